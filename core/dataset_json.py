"""Rows out of JSON: lines of it, lists that are read element by element, and objects that hold lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol, TextIO

from pydantic_core import from_json

from .dataset_folder import no_split
from .dataset_source import MAX_ROW_CHARACTERS, Located, Reading, Source, broken
from .dataset_streams import ON_ERROR
from .errors import FinetuiError
from .text import bytes_words, one_line

MAX_WHOLE_BYTES = 512 * 1024 * 1024
"""A JSON object has to be read whole; a larger one is refused. JSONL, CSV, Parquet and JSON lists have no limit."""

_CHUNK = 64 * 1024


class Lines(Protocol):
    """What gives lines as bytes, each with its line end, at most `size` bytes at a time."""

    def readline(self, size: int = -1, /) -> bytes: ...


def json_lines(source: Source, raw: Lines) -> Iterator[Located]:
    """The rows of JSON Lines, as UTF-8. A line that is not JSON is a row that cannot be read.

    Raises FinetuiError (dataset-broken) at the end of a file in which no line was JSON.
    """
    number = good = 0
    first: tuple[int, str, ValueError] | None = None
    decode = json.JSONDecoder(strict=False).decode
    while line := raw.readline(MAX_ROW_CHARACTERS + 1):
        number += 1
        if len(line) > MAX_ROW_CHARACTERS and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = raw.readline(_CHUNK)
            yield Located(number, {}, "longer than 10 MB")
            continue
        try:
            value = from_json(line)
        except ValueError:
            # The strict and fast parser refuses what can still be read: control characters, lone surrogates, …
            text = line.decode("utf-8", ON_ERROR).strip().strip("\ufeff\0").strip()
            if not text:
                if b"\0" in line:
                    yield Located(number, {}, "nothing but zeros")
                continue
            try:
                value = decode(text)
            except RecursionError:
                yield Located(number, {}, "nested too deeply")
                continue
            except ValueError as error:
                first = first or (number, one_line(text[:400], 60), error)
                yield Located(number, {}, _line_problem(error))
                continue
        good += 1
        yield _located(number, value)
    if first is not None and not good:
        raise _no_json_at_all(source, *first)


def _no_json_at_all(source: Source, number: int, text: str, error: ValueError) -> FinetuiError:
    column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
    return broken(
        source.path,
        f"Line {number}{column} is not valid JSON, and no other line is: {_line_problem(error)}. It reads: {text}",
        "Each line must be one JSON object. If it is plain writing, give it the ending .txt.",
    )


def _line_problem(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"broken JSON: {_words(error)}"
    return "broken JSON: a number with too many digits"


def _words(error: json.JSONDecodeError) -> str:
    """What the parser says, without the words that lead to a number of its own."""
    return error.msg.removesuffix(" starting at").removesuffix(" at")


def _located(number: int, value: Any) -> Located:
    if isinstance(value, dict):
        return Located(number, value)
    if isinstance(value, list) and value and _is_messages(value):
        return Located(number, {"messages": value})
    return Located(number, {}, "not a JSON object")


def json_document(source: Source, text: TextIO, split: str, reading: Reading) -> Iterator[Located]:
    """The rows of a JSON file. A list is read element by element; an object has to be read whole.

    `split` names the list to take from an object of several. Raises FinetuiError: dataset-broken, dataset-format.
    """
    start = text.read(1)
    while start and (start.isspace() or start == "\ufeff"):
        start = text.read(1)
    if start == "[":
        yield from _json_list(source, text)
        return
    if source.bytes > MAX_WHOLE_BYTES:
        raise broken(
            source.path,
            f"It is one JSON object of {bytes_words(source.bytes)}, which would have to be held in memory whole.",
            "Write it as JSONL: one row a line.",
        )
    whole = start + text.read(MAX_WHOLE_BYTES)
    if text.read(1):
        raise broken(
            source.path,
            "It is one JSON object, too large to be held in memory.",
            "Write it as JSONL: one row a line.",
        )
    try:
        value = json.loads(whole, strict=False)
    except RecursionError as error:
        raise broken(source.path, "Its JSON is nested too deeply.", "Write one flat object a row.") from error
    except ValueError as error:
        raise _not_json(source, error, 0) from error
    rows = _rows_of(source, value, split)
    reading.rows = len(rows)
    for number, row in enumerate(rows, 1):
        yield _located(number, row)


def _not_json(source: Source, error: ValueError, lines_before: int, element: int = 0) -> FinetuiError:
    """The card for broken JSON. A list is read in pieces, so a column would mislead there: the element is named."""
    if isinstance(error, json.JSONDecodeError):
        where = f"column {error.colno}" if not element else f"element {element} of the list,"
        why = f"Line {lines_before + error.lineno}, {where} is not valid JSON: {_words(error)}."
    else:
        why = f"It is not valid JSON: {one_line(str(error), 80)}."
    fix = "Correct the file there; a comma or a quote is often missing just before."
    if "Extra data" in str(error):
        fix = "If each line is a row of its own, give the file the ending .jsonl."
    return broken(source.path, why, fix)


def _rows_of(source: Source, value: Any, split: str) -> list[Any]:
    """The rows in a JSON object: those of the split, of its only list, or the object itself as the only row."""
    if not isinstance(value, dict):
        raise broken(source.path, "It holds neither a list nor an object.", "Write a list of rows, or JSONL.")
    tables = {
        name: rows
        for name, rows in value.items()
        if isinstance(rows, list) and any(isinstance(r, dict) for r in rows) and not _is_messages(rows)
    }
    if split in tables:
        return tables[split]
    if split != "train" and tables:
        raise no_split(source.path, split, list(tables))
    columns = {name: cells for name, cells in value.items() if isinstance(cells, list)}
    if len(columns) == len(value) > 1 and not tables and len({len(cells) for cells in columns.values()}) == 1:
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
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


def _json_list(source: Source, text: TextIO) -> Iterator[Located]:
    """The elements of a JSON list whose opening bracket has been read, without holding more than one and a chunk."""
    decoder = json.JSONDecoder(strict=False)
    buffer, at, number, lines_before = "", 0, 0, 0
    ended = closed = expect_comma = False
    chunk = _CHUNK

    def refill() -> None:
        nonlocal buffer, at, lines_before, ended
        lines_before += buffer.count("\n", 0, at)
        more = text.read(chunk)
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
                raise broken(
                    source.path, f"Element {number} is nested too deeply.", "Write one flat object a row."
                ) from error
            except ValueError as error:
                if ended or not _is_cut_off(error, buffer):
                    raise _not_json(source, error, lines_before, number) from error
                if len(buffer) - at > MAX_ROW_CHARACTERS:
                    raise broken(
                        source.path,
                        f"Element {number} of the list is longer than 10 MB, or a quote in it is never closed.",
                        "Shorten or correct it; JSONL (one row a line) lets such rows be left out.",
                    ) from error
                chunk *= 2  # a long element is tried again a few times only
                refill()
                continue
            if end >= len(buffer) and not ended:
                refill()  # a number may go on in the next chunk
                continue
            break
        length, at, expect_comma, chunk = end - at, end, True, _CHUNK
        if length > MAX_ROW_CHARACTERS:
            yield Located(number, {}, "longer than 10 MB")
            continue
        yield _located(number, value)


def _is_cut_off(error: ValueError, buffer: str) -> bool:
    """Whether the parser may only have run out of text: it failed at the very end, or inside a string."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.pos >= len(buffer) - 16 or error.msg.startswith("Unterminated")
