"""Single questions joined into conversations of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .conversation import Conversation
from .dataset_marks import Row, parts
from .dataset_source import Located
from .recipe import DatasetSection


@dataclass(slots=True)
class _Waiting:
    rows: list[Row] = field(default_factory=list[Row])
    raws: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    place: tuple[int, int, int] = (0, 0, 0)
    key: int = 0


class Joiner:
    """Collects rows of one question and one answer, apart for each side; every other row passes as it is."""

    def __init__(self, section: DatasetSection) -> None:
        self._section = section
        self._waiting: dict[bool, _Waiting] = {}

    def add(
        self, row: Row, located: Located, source: int, file: int, key: int, held_out: bool
    ) -> Iterator[tuple[list[Conversation], int, Mapping[str, Any]]]:
        """Takes a row. Yields what is ready: conversations, the question key of their first row, and the raw rows."""
        if not _is_single(row):
            yield parts(row, self._section, located.number, source, file), key, located.row
            return
        waiting = self._waiting.get(held_out)
        if waiting is not None and _system(waiting.rows[0]) != _system(row):
            yield self._emitted(waiting)
            waiting = None
        if waiting is None:
            waiting = _Waiting(place=(located.number, source, file), key=key)
            self._waiting[held_out] = waiting
        waiting.rows.append(row)
        waiting.raws.append(located.row)
        if len(waiting.rows) == self._section.join_rows:
            del self._waiting[held_out]
            yield self._emitted(waiting)

    def rest(self) -> Iterator[tuple[list[Conversation], int, Mapping[str, Any]]]:
        """What is left at the end: fewer rows than asked for."""
        for waiting in self._waiting.values():
            yield self._emitted(waiting)
        self._waiting.clear()

    def _emitted(self, waiting: _Waiting) -> tuple[list[Conversation], int, Mapping[str, Any]]:
        first, *others = waiting.rows
        said = list(first.said)
        for row in others:
            said += [turn for turn in row.said if turn.role != "system"]
        raw = waiting.raws[0] if not others else {"joined rows": waiting.raws}
        return parts(Row(said), self._section, *waiting.place), waiting.key, raw


def _is_single(row: Row) -> bool:
    roles = [turn.role for turn in row.said if turn.role != "system"]
    return roles == ["user", "assistant"] and not row.tools and not row.rejected


def _system(row: Row) -> str:
    return row.said[0].text if row.said[0].role == "system" else ""
