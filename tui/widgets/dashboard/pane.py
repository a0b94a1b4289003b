"""Lines that scroll, painted often: a new text or another place costs what of it is in sight, and no new layout."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.visual import Style, Visual
from textual.widget import Widget

from ..sparing import changed_regions


class Pane(ScrollView, can_focus=False):
    """Shows lines that were wrapped to its width. Only the cells that differ are drawn."""

    DEFAULT_CSS = "Pane { overflow-x: hidden; overflow-y: scroll; scrollbar-size-vertical: 1; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: list[Content] = []
        """What is shown; change it with `show`."""
        self._strips: dict[int, tuple[Content, Strip]] = {}

    @property
    def cells(self) -> int:
        """The width of a line; 0 before the first layout."""
        return self.scrollable_content_region.width

    @property
    def rows(self) -> int:
        """How many lines are in sight."""
        return self.scrollable_content_region.height

    @property
    def at_end(self) -> bool:
        """Whether the last line is in sight."""
        return self.max_scroll_y - self.scroll_y <= 1

    def show(self, lines: Sequence[Content], place: int | None = None) -> None:
        """Shows `lines`, from the present place on, or from the line `place`; -1 is the end."""
        before, top = self._in_sight(), self.scroll_offset.y
        grown, self.lines = len(lines) != len(self.lines), list(lines)
        if grown:
            self._strips.clear()
            self.set_reactive(Widget.virtual_size, Size(self.cells, len(lines)))  # pyright: ignore[reportArgumentType]
            if self.styles.height is not None and self.styles.height.is_auto:
                self.refresh(layout=True)
            else:
                self._scroll_update(self.virtual_size)
        if place is not None:
            self.scroll_to(y=self.max_scroll_y if place < 0 else place, animate=False)
        if self.scroll_offset.y == top:  # else all of it is drawn
            regions = changed_regions(before, self._in_sight())
            if regions:
                self.refresh(*regions)

    def _in_sight(self) -> list[Content]:
        top, rows = self.scroll_offset.y, self.rows
        shown = self.lines[top : top + rows]
        return shown + [Content("")] * (rows - len(shown))

    def notify_style_update(self) -> None:
        self._strips.clear()
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        """The line at row `y` of those in sight."""
        index = self.scroll_offset.y + y
        if index >= len(self.lines):
            return Strip.blank(self.cells, self.rich_style)
        line, selection = self.lines[index], self.text_selection
        held = self._strips.get(index)
        if held is not None and held[0] is line and held[1].cell_length == self.cells and selection is None:
            return held[1]
        if selection is not None and (span := selection.get_span(index)) is not None:
            start, end = span
            chosen = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            line = line.stylize(chosen, start, len(line) if end == -1 else end)
        strips = Visual.to_strips(
            self, line, self.cells, 1, self.visual_style, apply_selection=False, pad=True
        )
        strip = strips[0] if strips else Strip.blank(self.cells, self.rich_style)
        strip = strip.adjust_cell_length(self.cells, self.rich_style).apply_offsets(0, index)
        if selection is None:
            if len(self._strips) > 500:
                self._strips.clear()
            self._strips[index] = (self.lines[index], strip)
        return strip

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The text under `selection`."""
        return selection.extract("\n".join(line.plain for line in self.lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh(Region(0, 0, self.cells, self.rows))
