"""Rows out of local files, one at a time, whatever their size and kind.

A file is read by its content first and its ending second. What makes the rest of a file unreadable is an error that
names the line; what spoils one row only is told with that row (`Located.problem`), so that it can be counted.
"""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .dataset_csv import csv_rows, delimiter_of, header_of, steadiness
from .dataset_folder import ENDINGS, PACKED_ENDINGS, TABLE_ENDINGS, bare_suffix, manifest
from .dataset_json import json_document, json_lines
from .dataset_messages import as_messages
from .dataset_names import is_known
from .dataset_source import FileKind, Located, Reading, Source, broken, unreadable
from .dataset_streams import ON_ERROR, encoding_of, opened, packing_of
from .dataset_tables import arrow_rows, parquet_rows
from .dataset_text import NOTE, text_rows
from .errors import FinetuiError
from .text import one_line

__all__ = ["ENDINGS", "is_named_like_rows", "located_rows", "look_at", "read_rows", "sources_of"]

_SAMPLE = 64 * 1024
_MAGIC = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "Unpack it, or save the sheet as CSV."),
    (b"BZh", "a bzip2 archive", "Unpack it with bunzip2 first."),
    (b"\xfd7zXZ", "an xz archive", "Unpack it with unxz first."),
    (b"SQLite format 3", "a SQLite database", "Write the table that you want as CSV or JSONL."),
    (b"%PDF", "a PDF", "Fine-tuning needs rows of questions and answers; write them as JSONL."),
    (b"GGUF", "a GGUF model", "Choose a file of examples here; models belong to the model step."),
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, which stands in place of the file itself",
        "Fetch the file: run `git lfs pull` in its folder, or download it from its page.",
    ),
)
_PAGE = (b"<!doctype html", b"<html")


def is_named_like_rows(name: str) -> bool:
    """Whether `name` ends like a file of rows."""
    name = name.lower()
    for packed in PACKED_ENDINGS:
        name = name.removesuffix(packed)
    return name.endswith(ENDINGS)


def read_rows(path: Path, split: str = "train") -> Iterator[Mapping[str, Any]]:
    """The readable rows of a local file or folder of files, one at a time.

    `split` names the list to take from a JSON object of several lists, or the files of a folder. Raises FinetuiError:
    dataset-missing, dataset-empty, dataset-broken (naming the line), dataset-format, dataset-split.
    """
    for source in sources_of(path, split)[0]:
        for located in located_rows(source, split):
            if not located.problem:
                yield located.row


def sources_of(path: Path, split: str = "train") -> tuple[list[Source], str]:
    """The files that `path` names, one or those of a folder, and a note in words on what was taken. Raises as `read_rows`."""
    try:
        folder = path.is_dir()
    except OSError as error:  # a name that is too long for the system
        raise unreadable(path, error) from error
    if not folder:
        return [look_at(path)], ""
    found = manifest(path, split)
    sources: list[Source] = []
    for file in found.taken:
        try:
            sources.append(look_at(file))
        except FinetuiError as error:
            if error.code != "dataset-empty" or len(found.taken) == 1:
                raise
            found = replace(
                found,
                taken=tuple(p for p in found.taken if p != file),
                left_out=(*found.left_out, (file, "empty")),
            )
    if not sources:
        raise FinetuiError(
            f"{one_line(str(path), 200)} holds no rows.",
            found.note,
            "Choose a folder of examples.",
            code="dataset-empty",
        )
    return sources, found.note


def look_at(path: Path) -> Source:
    """What kind of file `path` is. Reads its first 64 KiB, unpacked. Raises as `read_rows` does."""
    shown = one_line(str(path), 200)
    try:
        if path.is_symlink() and not path.exists():
            raise FinetuiError(
                f"{shown} is a link that leads to no file.",
                f"It points to {one_line(os.readlink(path), 200)}.",
                "Correct the link, or name the file itself.",
                code="dataset-missing",
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
                f"{shown} is not an ordinary file.",
                f"It is {_what_else(path.stat().st_mode)}, which has no end that could be waited for.",
                "Write what comes out of it to a file, and name that.",
                code="dataset-missing",
            )
        size = path.stat().st_size
        with path.open("rb") as raw:
            head = raw.read(_SAMPLE)
        packing = packing_of(head)
        if packing:
            with opened(path, packing) as unpacked:
                head = unpacked.read(_SAMPLE)
    except OSError as error:
        raise unreadable(path, error) from error
    if not head.strip(b"\xef\xbb\xbf \t\r\n\0"):
        nothing = "It holds no rows." if not head else "It begins with nothing but zeros and white space."
        raise FinetuiError(f"{shown} is empty.", nothing, "Choose a file of examples.", code="dataset-empty")
    table = _table_kind(path, head)
    if table is not None:
        if packing:
            raise broken(path, f"It is a {table} file inside a {packing} archive.", "Unpack it first.")
        return Source(path, table, "", size)
    for magic, noun, fix in _MAGIC:
        if head.startswith(magic):
            raise broken(path, f"It is {noun}, not rows of text.", fix)
    if packing and packing_of(head):
        raise broken(
            path, "It is an archive inside an archive: it was packed twice.", "Unpack it once first."
        )
    if bare_suffix(path) in TABLE_ENDINGS and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith(
        _PAGE
    ):
        raise broken(
            path,
            "It is a web page, not rows: what a site sends in place of a file, often to ask for a login.",
            "Download the file again, logged in, or by its direct address.",
        )
    encoding, note = encoding_of(path, head)
    text = head.decode(encoding, "ignore" if encoding.startswith("utf-16") else ON_ERROR).lstrip("\ufeff")
    return _text_source(Source(path, "CSV", encoding, size, packing, text, note))


def _what_else(mode: int) -> str:
    """In words, what stands at a path that is neither a file nor a folder."""
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _table_kind(path: Path, head: bytes) -> FileKind | None:
    if head.startswith(b"PAR1"):
        return "Parquet"
    # An Arrow stream has no magic: a continuation mark, the length of its schema, and a flat buffer.
    if head.startswith(b"ARROW1") or (head.startswith(b"\xff\xff\xff\xff") and head[6:8] == b"\0\0"):
        return "Arrow"
    if bare_suffix(path) in (".parquet", ".pq", ".arrow") and b"\0" in head[:64]:
        raise broken(path, "Its first bytes are not those of such a file.", "Write or fetch it again.")
    return None


def located_rows(source: Source, split: str = "train", reading: Reading | None = None) -> Iterator[Located]:
    """The rows of `source` with their numbers; rows that cannot be read come with their problem. Raises as `read_rows`."""
    reading = reading if reading is not None else Reading()
    reading.total_bytes = source.bytes
    try:
        if source.kind == "Parquet":
            yield from parquet_rows(source, reading)
            return
        if source.kind == "Arrow":
            yield from arrow_rows(source, reading)
            return
        with opened(source.path, source.packing, reading) as raw:
            old_ends = "\r" in source.head.strip() and "\n" not in source.head  # those of old Macs
            if source.kind == "JSONL" and source.encoding in ("utf-8", "utf-8-sig") and not old_ends:
                yield from json_lines(source, raw)
            else:
                ends = None if source.kind == "JSONL" and old_ends else ""
                text = io.TextIOWrapper(raw, source.encoding, ON_ERROR, newline=ends)
                if source.kind == "JSONL":
                    yield from json_lines(source, _Lines(text))
                elif source.kind == "JSON":
                    yield from json_document(source, text, split, reading)
                elif source.kind == "text":
                    yield from text_rows(text)
                else:
                    yield from csv_rows(source, text)
            reading.done_bytes, reading.raw = source.bytes, None
    except OSError as error:
        raise unreadable(source.path, error) from error
    except UnicodeError as error:
        raise broken(
            source.path, "Its text is not coded as its first bytes say.", "Save it as UTF-8."
        ) from error


class _Lines:
    """Lines of a text in another encoding, as the UTF-8 that the JSON reader takes."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def readline(self, size: int = -1, /) -> bytes:
        return self._text.readline(size).encode("utf-8", "surrogatepass")


def _text_source(source: Source) -> Source:
    kind = _text_kind(source)
    notes = [source.note]
    source = replace(source, kind=kind)
    if kind == "text":
        notes.append(NOTE)
    elif kind in ("CSV", "TSV"):
        delimiter = delimiter_of(source)
        if (kind == "CSV") != (delimiter == ","):
            notes.append(
                "cells divided by " + {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}[delimiter]
            )
        if header_of(source) is not None:
            notes.append("no header: its first line is a row like the others")
    return replace(source, note="; ".join(note for note in notes if note))


def _text_kind(source: Source) -> FileKind:
    ending = bare_suffix(source.path)
    start = source.head.lstrip("\ufeff \t\r\n")
    named_lines = ending in (".jsonl", ".ndjson")
    if ending not in (".csv", ".tsv") and start.startswith(("[", "{")):
        first, _, rest = start.partition("\n")
        if start.startswith("["):
            said = as_messages(_parsed(first)) if rest.lstrip().startswith("[") else None
            if said and any(f'"{key}"' in first for key in ("role", "from")):
                return "JSONL"
            if ending not in (".txt", ".md", ".markdown") or start[1:].lstrip().startswith(("{", "[")):
                return "JSON"
        elif isinstance(_parsed(first), dict):
            return "JSONL" if rest.strip() or named_lines else "JSON"
        elif ending not in (".txt", ".md", ".markdown") or start[1:].lstrip().startswith('"'):
            # A pretty-printed object may stand under a JSONL name; any other first line is a broken or a long one.
            return "JSONL" if named_lines and first.strip() != "{" else "JSON"
    if named_lines:
        return "JSONL"
    if ending == ".json":
        return "JSON"
    if ending in (".csv", ".tsv"):
        return "TSV" if ending == ".tsv" else "CSV"
    if ending in (".md", ".markdown"):
        return "text"
    return "CSV" if _is_table(source) else "text"


def _is_table(source: Source) -> bool:
    """Whether a text of no telling name is a table: a steady number of columns, under names that are known or by tabs."""
    delimiter = delimiter_of(source)
    steady, width = steadiness(source, delimiter)
    first = source.head.split("\n", 1)[0].strip()
    known = any(is_known(name.strip(' "')) for name in first.split(delimiter))
    return width >= 2 and (
        steady > 0.8 if known else steady == 1 and delimiter in "\t|;" and "\n" in source.head
    )


def _parsed(line: str) -> Any:
    try:
        return json.loads(line, strict=False)
    except (ValueError, RecursionError):
        return None
