"""Lines of text on a screen that is painted often."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widget import Widget

from ..sparing import changed_regions


class Block(Widget):
    """Shows lines. Over SSH nothing is sent twice: what stands there already is not drawn again.

    While there is nothing to show it has the class `-nothing`.
    """

    DEFAULT_CSS = "Block { height: auto; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._lines: list[Content] = []

    def show(self, lines: Sequence[Content]) -> None:
        """Shows `lines` in place of those before."""
        before, self._lines = self._lines, list(lines)
        width = self.content_size.width
        fits = all(line.cell_length <= width and "\n" not in line.plain for line in (*before, *lines))
        if not width and len(before) == len(lines):  # not in sight
            self.refresh()
        elif len(before) != len(lines) or not fits:
            if [(line.plain, line.spans) for line in before] != [(line.plain, line.spans) for line in lines]:
                self.refresh(layout=True)
        else:
            regions = changed_regions(before, self._lines)
            if regions:
                self.refresh(*regions)
        self.set_class(not lines, "-nothing")

    def render(self) -> Content:
        """The lines."""
        return Content("\n").join(self._lines)
