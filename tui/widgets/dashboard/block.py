"""Lines of text on a screen that is painted often."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static


class Block(Static):
    """Shows lines. Over SSH nothing is sent twice: lines that stand there already are not drawn again.

    While there is nothing to show it has the class `-nothing`.
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._lines: object = None

    def show(self, lines: Sequence[Content]) -> None:
        """Shows `lines` in place of those before."""
        content = Content("\n").join(lines)
        now = (content.plain, tuple(content.spans))
        if self._lines != now:
            self._lines = now
            self.update(content)
            self.set_class(not lines, "-nothing")
