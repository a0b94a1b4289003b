"""Rows out of CSV and TSV: the delimiter and the header are worked out from the first records, not assumed."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import TextIO

from .dataset_names import is_known
from .dataset_source import MAX_ROW_CHARACTERS, Located, Source, broken
from .text import one_line

_SAMPLE_RECORDS = 50
_NUMBER = re.compile(r"^[-+]?[\d.,]+%?$")


def csv_rows(source: Source, text: TextIO) -> Iterator[Located]:
    """The records of a delimited file as rows by column. Raises FinetuiError (dataset-broken) for an unclosed quote."""
    csv.field_size_limit(MAX_ROW_CHARACTERS)
    reader = csv.reader(text, delimiter=delimiter_of(source), strict=True)
    header = header_of(source)
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
            header = _names(cells)
            continue
        if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            yield Located(number, {}, "more cells than the header has columns")
            continue
        cells += [""] * (len(header) - len(cells))
        yield Located(number, dict(zip(header, cells, strict=False)))


def header_of(source: Source) -> list[str] | None:
    """Names made up for the columns of a file without a header (`column 1`, …); None where its first record names them."""
    records = _records(source, delimiter_of(source))
    if len(records) < 2 or _is_header(records[0], records[1:]):
        return None
    return [f"column {position}" for position in range(1, max(map(len, records)) + 1)]


def _is_header(first: list[str], rest: list[list[str]]) -> bool:
    names = [cell.strip() for cell in first]
    if any(is_known(name) for name in names):
        return True
    if any(not name for name in names[:-1]) or len({name.lower() for name in names}) < len(names):
        return False
    if any(_NUMBER.match(name) for name in names):
        return False
    if any(
        len(name) > 60 or name.endswith((".", "?", "!", "。", "？", "…")) or "\n" in name for name in names
    ):
        return False
    # Names are short; a first record as wordy as the others is a row like them.
    wordy = sum(len(name.split()) >= 4 for name in names)
    others = [len(cell.split()) for record in rest for cell in record if cell.strip()]
    return not (wordy and wordy >= len(names) / 2 and others and sorted(others)[len(others) // 2] >= 3)


def _names(cells: list[str]) -> list[str]:
    names: list[str] = []
    for position, cell in enumerate(cells, 1):
        name = cell.strip().strip("\ufeff") or f"column {position}"
        names.append(name if name not in names else f"{name} ({position})")
    return names


def _records(source: Source, delimiter: str) -> list[list[str]]:
    """The first records under `delimiter`, up to 50; the last one is left out where the sample may cut it."""
    records: list[list[str]] = []
    whole = len(source.head) < 60_000
    try:
        for cells in csv.reader(io.StringIO(source.head, newline=""), delimiter=delimiter):
            if any(cell.strip() for cell in cells):
                records.append(cells)
            if len(records) > _SAMPLE_RECORDS:
                break
    except csv.Error:
        whole = True
    return records if whole or len(records) <= 1 else records[:-1]


def steadiness(source: Source, delimiter: str) -> tuple[float, int]:
    """The share of the first records that have as many columns as the first one, and that number of columns."""
    records = _records(source, delimiter)
    if not records:
        return 0.0, 0
    width = len(records[0])
    return sum(len(record) == width for record in records) / len(records), width


def delimiter_of(source: Source) -> str:
    """The delimiter under which the first records have the most columns in the steadiest way."""
    best, best_score = "\t" if source.kind == "TSV" else ",", 0.0
    for delimiter in (",", ";", "\t", "|"):
        steady, width = steadiness(source, delimiter)
        if width < 2:
            continue
        score = steady + min(width, 20) * 0.001 + (0.5 if delimiter == "\t" and source.kind == "TSV" else 0)
        if score > best_score:
            best, best_score = delimiter, score
    return best
