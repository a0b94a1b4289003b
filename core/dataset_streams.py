"""The bytes and the text of a dataset file: unpacked within bounds, and decoded by what they are."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

from .dataset_source import Reading, broken
from .errors import FinetuiError

Packing = Literal["", "gzip", "zstd"]

MAX_RATIO = 300
"""Unpacked to packed bytes. Text reaches 3 to 30, the same row again and again about 100, a bomb 1,000 and more."""

FREE_BYTES = 64 * 1024 * 1024
"""So much may be unpacked at any ratio."""

_MAGIC: tuple[tuple[bytes, Packing], ...] = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_BUFFER = 256 * 1024


def packing_of(head: bytes) -> Packing:
    """How a file that begins with `head` is packed."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return ""


class _Bounded(io.RawIOBase):
    """What `inner` unpacks from `raw`, for as long as it does not grow past all measure."""

    def __init__(self, path: Path, inner: Any, raw: BinaryIO) -> None:
        super().__init__()
        self._path, self._inner, self._raw = path, inner, raw
        self._count = 0

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readinto(self, into: Any) -> int:
        try:
            data = self._inner.read(len(into))
        except FinetuiError:
            raise
        # pyarrow's errors are OSError and ValueError; zlib.error is neither.
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise broken(
                self._path,
                "It is packed, and cannot be unpacked to its end.",
                "It may be cut off: fetch it again.",
            ) from error
        self._count += len(data)
        if self._count > FREE_BYTES and self._count > MAX_RATIO * max(1, self._raw.tell()):
            raise broken(
                self._path,
                f"It unpacks to more than {MAX_RATIO} times its size: that is no text, it is made to fill a machine.",
                "If you trust it, unpack it yourself and name the unpacked file.",
            )
        into[: len(data)] = data
        return len(data)


def opened(path: Path, packing: Packing, reading: Reading | None = None) -> BinaryIO:
    """The unpacked bytes of `path`. Reads raise OSError, or FinetuiError (dataset-broken) for a damaged archive or a bomb.

    `reading` follows the position in the file as it stands on disk.
    """
    raw = path.open("rb")
    if reading is not None:
        reading.raw = raw
    if not packing:
        return raw
    if packing == "gzip":
        inner: Any = gzip.GzipFile(fileobj=raw)
    else:
        import pyarrow

        inner = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")
    return io.BufferedReader(_Bounded(path, inner, raw), _BUFFER)


def _as_windows(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are no UTF-8, read as Windows-1252: what spreadsheets write. Its five gaps read as Latin-1."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    piece = error.object[error.start : error.end]
    return "".join(
        bytes([b]).decode("cp1252", "ignore") or bytes([b]).decode("latin-1") for b in piece
    ), error.end


codecs.register_error("finetui-windows", _as_windows)

ON_ERROR = "finetui-windows"
"""The error handler for every file's text: no byte stops a file from being read."""


def encoding_of(path: Path, head: bytes) -> tuple[str, str]:
    """The encoding of a text that begins with `head`, and a note in words where it was guessed.

    Raises FinetuiError (dataset-broken) for what is no text.
    """
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32", ""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", ""
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig", ""
    start = head[:2000]
    if b"\0" in start:
        even, odd = start[::2].count(0), start[1::2].count(0)
        if odd > len(start) * 0.3 and even == 0:
            return "utf-16-le", "coded as UTF-16"
        if even > len(start) * 0.3 and odd == 0:
            return "utf-16-be", "coded as UTF-16"
        controls = sum(
            b < 9 for b in re.sub(rb"\0{8,}", b"", start)
        )  # a crash leaves runs of zeros in a text
        if controls > max(8, len(start) * 0.02):
            raise broken(path, "It is binary, not text.", "Choose a JSONL, JSON, CSV, Parquet or text file.")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return _legacy(head)
    return "utf-8", ""


_HIGH_RUNS = re.compile(rb"[\x80-\xff]+")
_COMMON_HANZI = frozenset(
    bytes((lead, trail)).decode("gb2312", "ignore")
    for lead in range(0xB0, 0xD8)
    for trail in range(0xA1, 0xFF)
) | frozenset("，。？！：；、“”（）《》")
_KANA = re.compile("[\u3040-\u30ff]")
_TYPICAL: tuple[tuple[str, str, Callable[[str], int], float], ...] = (
    ("euc_kr", "EUC-KR", lambda text: len(re.findall("[\uac00-\ud7a3]", text)), 0.95),
    ("euc_jp", "EUC-JP", lambda text: len(_KANA.findall(text)), 0.25),
    ("shift_jis", "Shift-JIS", lambda text: len(_KANA.findall(text)), 0.25),
    ("cp1251", "Windows-1251", lambda text: len(re.findall("[а-яё]", text)), 0.6),
    ("gb18030", "GB 18030", lambda text: sum(c in _COMMON_HANZI for c in text), 0.8),
)
"""Encodings with their names, how many typical characters a text has, and the share of those that speaks for it. In
this order, as each accepts the bytes of later ones with untypical characters."""


def _legacy(head: bytes) -> tuple[str, str]:
    """The encoding of a text that is no UTF-8. In Western texts single letters stand out; elsewhere they come in runs."""
    runs = _HIGH_RUNS.findall(head)
    high = sum(map(len, runs))
    in_runs = sum(len(run) for run in runs if len(run) > 1)
    if high and in_runs / high > 0.6 and high > len(head) * 0.08:
        for name, shown, typical, least in _TYPICAL:
            try:
                text = codecs.getincrementaldecoder(name)().decode(head)
            except UnicodeDecodeError:
                continue
            if typical(text) >= least * max(1, sum(c > "\x7f" for c in text)):
                return name, f"its text is no UTF-8 and was read as {shown}"
    return "utf-8", "its text is no UTF-8 and was read as Windows-1252"
