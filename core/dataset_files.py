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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from .dataset_formats import MAX_ROW_CHARACTERS
from .errors import FinetuiError
from .text import bytes_words, one_line

FileKind = Literal["JSONL", "JSON", "CSV", "TSV", "Parquet"]

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".txt")
"""File name endings that say: this is a dataset file."""

MAX_WHOLE_BYTES = 512 * 1024 * 1024
"""A JSON object has to be read whole; a larger one is refused. JSONL, CSV, Parquet and JSON lists have no limit."""

_CHUNK = 1024 * 1024
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


@dataclass(frozen=True, slots=True)
class Located:
    """A row and where it stands: the line of a text file, or the row of a table, from 1."""

    number: int
    row: Mapping[str, Any]
    problem: str = ""
    """Why this row cannot be read; `row` is then empty."""


@dataclass
class Reading:
    """How far a file has been read, for progress and estimates. Bytes."""

    done_bytes: int = 0
    total_bytes: int = 0
    rows: int | None = None
    """The exact number of rows where the file states it (Parquet)."""
    _raw: BinaryIO | None = field(default=None, repr=False)

    @property
    def share(self) -> float:
        """The part of the file that has been read, 0 to 1."""
        if self._raw is not None and not self._raw.closed:
            self.done_bytes = self._raw.tell()
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 1.0


@dataclass(frozen=True)
class Source:
    """A local file that was looked at: what it is, and how its text is coded."""

    path: Path
    kind: FileKind
    encoding: str
    bytes: int


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
            raise _broken(path, f"It is {noun}, not rows of text.", fix)
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
            reading._raw = raw
            text = io.TextIOWrapper(raw, source.encoding, "finetui-windows", newline="")
            if source.kind == "JSONL":
                yield from _json_lines(source, text)
            elif source.kind == "JSON":
                yield from _json(source, text, split)
            else:
                yield from _csv(source, text)
            reading.done_bytes, reading._raw = source.bytes, None
    except OSError as error:
        raise unreadable(source.path, error) from error
    except UnicodeError as error:
        raise _broken(
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


def _broken(path: Path, why: str, fix: str) -> FinetuiError:
    return FinetuiError(
        f"{one_line(path.name, 100)} cannot be read as a dataset.", why, fix, code="dataset-broken"
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
            raise _broken(path, "It is binary, not text.", "Choose a JSONL, JSON, CSV or Parquet file.")
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


def _lines(text: io.TextIOBase) -> Iterator[tuple[int, str | None]]:
    """Lines with their numbers from 1; None stands for a line too long to be a row, which is passed over in pieces."""
    number = 0
    while True:
        line = text.readline(MAX_ROW_CHARACTERS + 1)
        if not line:
            return
        number += 1
        if len(line) > MAX_ROW_CHARACTERS and not line.endswith("\n"):
            while line and not line.endswith("\n"):
                line = text.readline(_CHUNK)
            yield number, None
        else:
            yield number, line


def _json_lines(source: Source, text: io.TextIOBase) -> Iterator[Located]:
    for number, line in _lines(text):
        if line is None:
            yield Located(number, {}, "longer than 10 MB")
            continue
        line = line.strip().strip("\ufeff")
        if not line:
            continue
        try:
            value = json.loads(line, strict=False)
        except RecursionError:
            yield Located(number, {}, "nested too deeply")
            continue
        except ValueError as error:
            column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise _broken(
                source.path,
                f"Line {number}{column} is not valid JSON: {one_line(message, 80)}. It reads: {one_line(line, 60)}",
                "Each line must be one JSON object. Correct or remove that line.",
            ) from error
        if isinstance(value, dict):
            yield Located(number, value)
        else:
            yield Located(number, {}, "not a JSON object")


def _json(source: Source, text: io.TextIOBase, split: str) -> Iterator[Located]:
    """A list is read element by element; an object has to be read whole."""
    start = text.read(1)
    while start and (start.isspace() or start == "\ufeff"):
        start = text.read(1)
    if start == "[":
        yield from _json_list(source, text)
        return
    if source.bytes > MAX_WHOLE_BYTES:
        raise _broken(
            source.path,
            f"It is one JSON object of {bytes_words(source.bytes)}, which would have to be held in memory whole.",
            "Write it as JSONL: one row a line.",
        )
    whole = start + text.read()
    try:
        value = json.loads(whole, strict=False)
    except RecursionError as error:
        raise _broken(
            source.path, "Its JSON is nested too deeply.", "Write one flat object a row."
        ) from error
    except ValueError as error:
        raise _not_json(source, error, 0) from error
    rows = _rows_of(source, value, split)
    for number, row in enumerate(rows, 1):
        yield Located(number, row) if isinstance(row, dict) else Located(number, {}, "not a JSON object")


def _not_json(source: Source, error: ValueError, lines_before: int, element: int = 0) -> FinetuiError:
    """The card for broken JSON. A list is read in pieces, so a column would mislead there: the element is named."""
    if isinstance(error, json.JSONDecodeError):
        where = f"column {error.colno}" if not element else f"element {element} of the list,"
        why = f"Line {lines_before + error.lineno}, {where} is not valid JSON: {error.msg}."
    else:
        why = f"It is not valid JSON: {one_line(str(error), 80)}."
    fix = "Correct the file there; a comma or a quote is often missing just before."
    if "Extra data" in str(error):
        fix = "If each line is a row of its own, give the file the ending .jsonl."
    return _broken(source.path, why, fix)


def _rows_of(source: Source, value: Any, split: str) -> list[Any]:
    """The rows in a JSON object: those of the split, of its only list, or the object itself as the only row."""
    if not isinstance(value, dict):
        raise _broken(
            source.path, "It holds neither a list nor an object.", "Write a list of rows, or JSONL."
        )
    tables = {
        name: rows
        for name, rows in value.items()
        if isinstance(rows, list) and any(isinstance(r, dict) for r in rows) and not _is_messages(rows)
    }
    if split in tables:
        return tables[split]
    if len(tables) == 1:
        return next(iter(tables.values()))
    if len(tables) > 1:
        names = ", ".join(one_line(name, 40) for name in list(tables)[:8])
        raise FinetuiError(
            f"{one_line(source.path.name, 100)} has no list named {one_line(split, 40)}.",
            f"It holds several lists of rows: {names}.",
            "Set the split to one of these names.",
            code="dataset-format",
        )
    return [value]


def _is_messages(rows: list[Any]) -> bool:
    return all(isinstance(r, dict) and ("role" in r or "from" in r) for r in rows[:20])


def _json_list(source: Source, text: io.TextIOBase) -> Iterator[Located]:
    """The elements of a JSON list whose opening bracket has been read, without holding more than one and a chunk."""
    decoder = json.JSONDecoder(strict=False)
    buffer, at, number, lines_before = "", 0, 0, 0
    ended = closed = expect_comma = False

    def refill() -> None:
        nonlocal buffer, at, lines_before, ended
        lines_before += buffer.count("\n", 0, at)
        more = text.read(_CHUNK)
        buffer, at, ended = buffer[at:] + more, 0, not more

    refill()
    while True:
        while at < len(buffer) and buffer[at].isspace():
            at += 1
        if at >= len(buffer):
            if ended and closed:
                return
            if ended:
                error = json.JSONDecodeError(
                    "The list is not closed, the file ends too early", buffer, len(buffer)
                )
                raise _not_json(source, error, lines_before, number)
            refill()
            continue
        if closed:
            raise _not_json(source, json.JSONDecodeError("Extra data", buffer, at), lines_before, number)
        if buffer[at] == "]" and (expect_comma or number == 0):
            at, closed = at + 1, True
            continue
        if expect_comma:
            if buffer[at] != ",":
                raise _not_json(
                    source, json.JSONDecodeError("Expecting ',' delimiter", buffer, at), lines_before, number
                )
            at, expect_comma = at + 1, False
            continue
        number += 1
        while True:
            try:
                value, end = decoder.raw_decode(buffer, at)
            except RecursionError as error:
                raise _broken(
                    source.path, f"Element {number} is nested too deeply.", "Write one flat object a row."
                ) from error
            except ValueError as error:
                if ended or len(buffer) - at > MAX_ROW_CHARACTERS:
                    raise _not_json(source, error, lines_before, number) from error
                refill()
                continue
            if end >= len(buffer) and not ended:
                refill()  # a number may go on in the next chunk
                continue
            break
        at, expect_comma = end, True
        yield Located(number, value) if isinstance(value, dict) else Located(number, {}, "not a JSON object")


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
            raise _broken(
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
            reading.rows = file.metadata.num_rows
            number = 0
            for batch in file.iter_batches(batch_size=128):
                for row in batch.to_pylist():
                    number += 1
                    reading.done_bytes = int(source.bytes * number / max(1, reading.rows))
                    yield Located(number, row)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise _broken(
            source.path,
            f"The Parquet reader says: {one_line(str(error), 160)}",
            "Write the file again; it may be cut off.",
        ) from error
