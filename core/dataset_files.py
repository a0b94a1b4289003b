"""Rows out of local files: JSONL, JSON, CSV, TSV and Parquet, one row at a time, whatever their size.

A file is read by its content first and its ending second. What makes the rest of a file unreadable is an error that
names the line; what spoils one row only is told with that row (`Located.problem`), so that it can be counted.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .dataset_formats import MAX_ROW_CHARACTERS
from .dataset_json import json_document, json_lines
from .dataset_source import FileKind, Located, Reading, Source, broken
from .errors import FinetuiError
from .text import one_line

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".txt")
"""File name endings that say: this is a dataset file."""

_SAMPLE = 64 * 1024
_MAGIC = (
    (b"\x1f\x8b", "a gzip archive", "Unpack it with gunzip first."),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "Unpack it, or save the sheet as CSV."),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "Unpack it with unzstd first."),
    (b"BZh", "a bzip2 archive", "Unpack it with bunzip2 first."),
    (b"\xfd7zXZ", "an xz archive", "Unpack it with unxz first."),
    (b"ARROW1", "an Arrow file", "Save it as Parquet or JSONL."),
    (b"SQLite format 3", "a SQLite database", "Write the table that you want as CSV or JSONL."),
    (b"%PDF", "a PDF", "Fine-tuning needs rows of questions and answers; write them as JSONL."),
    (b"GGUF", "a GGUF model", "Choose a file of examples here; models belong to the model step."),
)


def _as_windows(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are no UTF-8, read as Windows-1252: what spreadsheets write. Its five gaps read as Latin-1."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    piece = error.object[error.start : error.end]
    return "".join(
        bytes([b]).decode("cp1252", "ignore") or bytes([b]).decode("latin-1") for b in piece
    ), error.end


codecs.register_error("finetui-windows", _as_windows)


def read_rows(path: Path, split: str = "train") -> Iterator[Mapping[str, Any]]:
    """The readable rows of a local JSONL, JSON, CSV, TSV or Parquet file, one at a time.

    `split` names the list to take from a JSON object of several lists. Raises FinetuiError: dataset-missing,
    dataset-empty, dataset-broken (naming the line), dataset-format.
    """
    for located in located_rows(look_at(path), split):
        if not located.problem:
            yield located.row


def look_at(path: Path) -> Source:
    """What kind of file `path` is. Reads its first 64 KiB. Raises as `read_rows` does."""
    shown = one_line(str(path), 200)
    try:
        if path.is_dir():
            inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in ENDINGS)
            fix = f"Name one of its files, such as {one_line(inside[0], 80)}." if inside else "Name a file."
            raise FinetuiError(
                f"{shown} is a folder, not a file.", "A dataset is one file.", fix, code="dataset-missing"
            )
        if not path.exists():
            raise FinetuiError(
                f"There is no file {shown}.",
                "Nothing stands at this path." if path.is_absolute() else f"Looked in {Path.cwd()}.",
                "Check the spelling, or give the whole path.",
                code="dataset-missing",
            )
        if not path.is_file():
            raise FinetuiError(
                f"{shown} is not an ordinary file.", fix="Name a file of rows.", code="dataset-missing"
            )
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_SAMPLE)
    except OSError as error:
        raise unreadable(path, error) from error
    if not head.strip(b"\xef\xbb\xbf \t\r\n\0"):
        raise FinetuiError(
            f"{shown} is empty.", "It holds no rows.", "Choose a file of examples.", code="dataset-empty"
        )
    if head.startswith(b"PAR1"):
        return Source(path, "Parquet", "", size)
    for magic, noun, fix in _MAGIC:
        if head.startswith(magic):
            raise broken(path, f"It is {noun}, not rows of text.", fix)
    encoding = _encoding(path, head)
    text = head.decode(encoding, "ignore" if encoding.startswith("utf-16") else "finetui-windows")
    return Source(path, _text_kind(path, text), encoding, size)


def located_rows(source: Source, split: str = "train", reading: Reading | None = None) -> Iterator[Located]:
    """The rows of `source` with their numbers; rows that cannot be read come with their problem. Raises as `read_rows`."""
    reading = reading if reading is not None else Reading()
    reading.total_bytes = source.bytes
    try:
        if source.kind == "Parquet":
            yield from _parquet(source, reading)
            return
        with source.path.open("rb") as raw:
            reading.raw = raw
            text = io.TextIOWrapper(raw, source.encoding, "finetui-windows", newline="")
            if source.kind == "JSONL":
                yield from json_lines(source, text)
            elif source.kind == "JSON":
                yield from json_document(source, text, split, reading)
            else:
                yield from _csv(source, text)
            reading.done_bytes, reading.raw = source.bytes, None
    except OSError as error:
        raise unreadable(source.path, error) from error
    except UnicodeError as error:
        raise broken(
            source.path, "Its text is not coded as its first bytes say.", "Save it as UTF-8."
        ) from error


def unreadable(path: Path, error: OSError) -> FinetuiError:
    """The card for a file that the system does not let us read."""
    reason = error.strerror or type(error).__name__
    return FinetuiError(
        f"{one_line(str(path), 200)} cannot be read.",
        f"The system says: {reason}.",
        "Check its permissions.",
        code="dataset-missing",
    )


def _encoding(path: Path, head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    start = head[:2000]
    if b"\0" in start:
        even, odd = start[::2].count(0), start[1::2].count(0)
        if odd > len(start) * 0.3 and even == 0:
            return "utf-16-le"
        if even > len(start) * 0.3 and odd == 0:
            return "utf-16-be"
        controls = sum(b < 9 for b in start)
        if controls > max(8, len(start) * 0.02):
            raise broken(path, "It is binary, not text.", "Choose a JSONL, JSON, CSV or Parquet file.")
    return "utf-8"


def _text_kind(path: Path, text: str) -> FileKind:
    ending = path.suffix.lower()
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("["):
        return "CSV" if ending in (".csv", ".tsv") else "JSON"
    if start.startswith("{"):
        if ending in (".csv", ".tsv"):
            return "CSV"
        first, _, rest = start.partition("\n")
        named_lines = ending in (".jsonl", ".ndjson")
        if _is_object(first):
            return "JSONL" if rest.strip() or named_lines else "JSON"
        # A pretty-printed object may stand under a JSONL name; any other first line is a broken or a long one.
        return "JSONL" if named_lines and first.strip() != "{" else "JSON"
    if ending in (".jsonl", ".ndjson"):
        return "JSONL"
    if ending == ".json":
        return "JSON"
    return "TSV" if ending == ".tsv" else "CSV"


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line, strict=False), dict)
    except (ValueError, RecursionError):
        return False


def _csv(source: Source, text: io.TextIOWrapper) -> Iterator[Located]:
    csv.field_size_limit(MAX_ROW_CHARACTERS)
    delimiter = "\t" if source.kind == "TSV" else _delimiter(source)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    begins = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = one_line(str(error), 80)
            if "end of data" in reason or "field limit" in reason:
                reason = "a quote is opened and never closed"
            raise broken(
                source.path,
                f"The row that begins at line {begins} is broken: {reason}.",
                'Close the quotes of that row; a quote inside a quoted cell is written twice ("").',
            ) from error
        number, begins = begins, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _header(cells)
            continue
        if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            yield Located(number, {}, "more cells than the header has columns")
            continue
        cells += [""] * (len(header) - len(cells))
        yield Located(number, dict(zip(header, cells, strict=False)))


def _header(cells: list[str]) -> list[str]:
    names: list[str] = []
    for position, cell in enumerate(cells, 1):
        name = cell.strip().strip("\ufeff") or f"column {position}"
        names.append(name if name not in names else f"{name} ({position})")
    return names


def _delimiter(source: Source) -> str:
    """The delimiter under which the first records have the most columns in the steadiest way."""
    with source.path.open("rb") as raw:
        sample = raw.read(_SAMPLE).decode(source.encoding, "ignore")
    best, best_score = ",", 0.0
    for delimiter in (",", ";", "\t", "|"):
        widths: list[int] = []
        try:
            for cells in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
                if any(cells):
                    widths.append(len(cells))
        except csv.Error:
            pass
        if len(widths) > 1 and len(sample) >= _SAMPLE - 4:
            widths.pop()  # cut by the end of the sample
        if not widths or widths[0] < 2:
            continue
        score = sum(width == widths[0] for width in widths) / len(widths) + min(widths[0], 20) * 0.001
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _parquet(source: Source, reading: Reading) -> Iterator[Located]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(source.path) as file:
            total = reading.rows = file.metadata.num_rows
            number = 0
            for batch in file.iter_batches(batch_size=128):
                for row in batch.to_pylist():
                    number += 1
                    reading.done_bytes = int(source.bytes * number / max(1, total))
                    yield Located(number, row)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise broken(
            source.path,
            f"The Parquet reader says: {one_line(str(error), 160)}",
            "Write the file again; it may be cut off.",
        ) from error
