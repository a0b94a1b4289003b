"""What was done to a draft, to be undone and done again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST = 1000
"""Changes that are remembered; the oldest give way."""


@dataclass(frozen=True)
class Change:
    """One thing that was done: the raw values of its fields before and after. `label` names a change of many."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    label: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.after)


class History:
    """A line of changes with a place in it. Values are kept as they were typed, right or wrong.

    What is typed into one field is one change until `close` is called: nobody undoes letter by letter.
    """

    def __init__(self) -> None:
        self._done: list[Change] = []
        self._undone: list[Change] = []
        self._open = False

    @property
    def can_undo(self) -> bool:
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    def note(self, before: Mapping[str, Any], after: Mapping[str, Any], label: str = "") -> None:
        """Takes down that the fields of `before` now have the values in `after`. What was undone cannot return then."""
        differing = [path for path in after if not _same(before[path], after[path])]
        if not differing:
            return
        self._undone.clear()
        last = self._done[-1] if self._done and self._open and not label else None
        if last is not None and not last.label and last.paths == tuple(differing):
            self._done.pop()
            before = last.before
            differing = [path for path in differing if not _same(before[path], after[path])]
        self._open = not label
        if differing:
            self._done.append(
                Change({p: before[p] for p in differing}, {p: after[p] for p in differing}, label)
            )
            del self._done[:-MOST]

    def close(self) -> None:
        """The next change is one of its own, as when the focus has moved on."""
        self._open = False

    def undo(self) -> Change | None:
        """The change to take back, now counted as undone; None where nothing is left."""
        self._open = False
        if not self._done:
            return None
        self._undone.append(self._done.pop())
        return self._undone[-1]

    def redo(self) -> Change | None:
        """The change to make again; None where nothing was undone."""
        self._open = False
        if not self._undone:
            return None
        self._done.append(self._undone.pop())
        return self._done[-1]


def _same(one: Any, other: Any) -> bool:
    """Equal and of one type: True is not 1, and 2.0 is not 2 to an input that shows it."""
    return type(one) is type(other) and bool(one == other)
