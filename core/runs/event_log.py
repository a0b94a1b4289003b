"""`events.jsonl`, the one file where a run's events stand: how a line is written and read.

A line is one JSON object: `v` (format version), `seq` (from 1, without gaps), `ts` (seconds since the epoch), `kind`,
and the fields of that kind's class (`events`). One worker appends; anybody may read at any time. A torn last line
is not yet an event; a broken line in the middle is skipped and counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import FinetuiError
from .events import KINDS, Event, Unknown

VERSION = 1
MAX_LINE_BYTES = 4 * 1024 * 1024
"""A longer line is no event of ours; it is skipped."""
UNREADABLE = "run-unreadable"
"""The code of what `opened` raises."""


@dataclass(frozen=True)
class Record:
    """An event with its place in the file."""

    seq: int
    ts: float
    event: Event


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN; "nan", "inf" and "-inf" come back as numbers
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def encode(record: Record) -> bytes:
    """`record` as one line, newline included. Lone surrogates are escaped as JSON does."""
    event = record.event
    name = event.name if isinstance(event, Unknown) else event.kind
    body = event.fields if isinstance(event, Unknown) else _plain(event)
    head = {"v": VERSION, "seq": record.seq, "ts": record.ts, "kind": name}
    return (
        json.dumps({**head, **_plain(body)}, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
    )


_CACHE: dict[type[Event], dict[str, Any]] = {}


def _hints(cls: type[Event]) -> dict[str, Any]:
    if cls not in _CACHE:
        hints = typing.get_type_hints(cls)
        _CACHE[cls] = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    return _CACHE[cls]


def _typed(annotation: Any, value: Any) -> Any:
    """`value` as `annotation`. Raises ValueError or TypeError where it is not of that type."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        if value is None:
            return None
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is tuple:
        return tuple(_typed(typing.get_args(annotation)[0], v) for v in value)
    if isinstance(annotation, type) and issubclass(annotation, Event):
        return _build(annotation, value)
    if annotation is float:
        if isinstance(value, bool):
            raise ValueError("a flag is no number")
        return float(value)
    if annotation is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError("not a whole number")
    if annotation is str and not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _build(cls: type[Event], values: Any) -> Event:
    if not isinstance(values, dict):
        raise TypeError("not an object")
    hints = _hints(cls)
    return cls(**{name: _typed(hints[name], v) for name, v in values.items() if name in hints})


def decode(line: bytes) -> Record | None:
    """The event on `line`, or None where there is none to be had (torn, foreign, too long)."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        data = json.loads(line)
        seq, ts, kind = data.pop("seq"), data.pop("ts"), data.pop("kind")
        data.pop("v", None)
        if not isinstance(seq, int) or not isinstance(ts, (int, float)) or not isinstance(kind, str):
            return None
        cls = KINDS.get(kind)
        event = _build(cls, data) if cls else Unknown(kind, data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return Record(seq, float(ts), event)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """An events file, to be read. Raises FileNotFoundError, and FinetuiError (run-unreadable) where the disk refuses it."""
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FinetuiError(
            "The run cannot be read.",
            f"{path}: {error.strerror or error}.",
            "Check the disk that holds it, and who owns its folder.",
            code=UNREADABLE,
        ) from error


@dataclass
class EventReader:
    """Reads an events file forward, again and again, as it grows.

    `read` returns the records that are new since the last call. A missing file reads as empty. Raises as `opened`.
    """

    path: Path
    offset: int = 0
    skipped: int = 0
    _rest: bytes = b""

    def read(self, max_bytes: int = 8 * 1024 * 1024) -> list[Record]:
        """The next records, from at most `max_bytes` of the file; call again while there are more."""
        try:
            with opened(self.path) as file:
                if os.fstat(file.fileno()).st_size < self.offset:  # replaced by a shorter file
                    self.offset, self._rest = 0, b""
                file.seek(self.offset)
                chunk = file.read(max_bytes)
        except FileNotFoundError:
            return []
        self.offset += len(chunk)
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest = self._rest[: MAX_LINE_BYTES + 1]  # stays too long, and so is skipped when it ends
        records = []
        for line in lines:
            record = decode(line) if line.strip() else None
            if record is not None:
                records.append(record)
            elif line.strip():
                self.skipped += 1
        return records


def read_all(path: Path) -> list[Record]:
    """Every record of a file. Raises FinetuiError: run-unreadable."""
    reader = EventReader(path)
    records: list[Record] = []
    while new := reader.read():
        records += new
    return records
