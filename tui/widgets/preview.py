"""Rows as they will be trained on: whose turn it is, and which words count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len, chop_cells
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from ...core.text import clean
from ..theme import glyphs

if TYPE_CHECKING:
    from ...core.conversation import Conversation, Turn

MOST_LINES_OF_A_TURN = 40


def wrapped(text: str, cells: int) -> list[str]:
    """`text` in lines of at most `cells` cells, broken at spaces where there are any."""
    lines: list[str] = []
    for paragraph in clean(text, 8000).expandtabs(4).split("\n"):
        line = ""
        for word in paragraph.split(" "):
            joined = f"{line} {word}" if line else word
            if cell_len(joined) <= cells:
                line = joined
                continue
            if line:
                lines.append(line)
            pieces = chop_cells(word, cells) if cell_len(word) > cells else [word]
            lines += pieces[:-1]
            line = pieces[-1] if pieces else ""
        lines.append(line)
    return lines


def turn_text(turn: Turn) -> str:
    """What a turn says, with what it thought before and the tools that it calls after."""
    parts = (
        f"(thinks) {turn.reasoning}" if turn.reasoning else "",
        turn.text,
        f"(calls) {turn.calls}" if turn.calls else "",
    )
    return "\n".join(part for part in parts if part)


def tool_count(tools: str) -> str:
    """How many tools a JSON list of them holds."""
    try:
        return f"{len(json.loads(tools)):,}"
    except (ValueError, TypeError, RecursionError):
        return "some"


class RowPreview(VerticalScroll, can_focus=True):
    """The first rows, one at a time. Left and right turn the pages, up and down scroll."""

    DEFAULT_CSS = """
    RowPreview { height: auto; max-height: 16; min-height: 3; background: $surface; padding: 0 1; scrollbar-size-vertical: 1;
        border-left: outer $panel; }
    RowPreview:focus { border-left: outer $accent; }
    RowPreview Static { height: auto; width: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "turn(-1)", "Row before", show=False, id="preview.previous"),
        Binding("right", "turn(1)", "Row after", show=False, id="preview.next"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: tuple[Conversation, ...] = ()
        self.at = 0

    def compose(self) -> ComposeResult:
        yield Static(id="preview-text", markup=False)

    def show(self, rows: Sequence[Conversation]) -> None:
        """Show `rows`; the page stays where it still exists."""
        if tuple(rows) == self._rows:
            return
        self._rows = tuple(rows)
        self.at = min(self.at, max(0, len(self._rows) - 1))
        self.display = bool(self._rows)
        self._paint()

    def action_turn(self, by: int) -> None:
        if self._rows:
            self.at = (self.at + by) % len(self._rows)
            self.scroll_home(animate=False)
            self._paint()

    def on_mount(self) -> None:
        self.display = bool(self._rows)

    def on_resize(self, event: events.Resize) -> None:
        self._paint()

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            self.action_turn(-1 if event.x < self.size.width // 2 else 1)

    def _paint(self) -> None:
        if self._rows:
            width = max(20, self.content_size.width - 1 if self.content_size.width else 60)
            self.query_one("#preview-text", Static).update(self.content(width))

    def content(self, width: int) -> Content:
        """The row in view, `width` cells wide."""
        marks = glyphs()
        learned, read = ("▌", "│") if marks.unicode else ("#", "|")
        legend = width >= 44
        lines = [
            Content.assemble(
                (f"{marks.previous} ", "$accent"),
                (f"Row {self.at + 1} of {len(self._rows)}", "bold"),
                (f" {marks.next}", "$accent"),
                ("   " if legend else "", ""),
                (f"{learned} learned  " if legend else "", "$success"),
                (f"{read} only read" if legend else "", "$text-muted"),
            )
        ]
        name_cells = 10 if width >= 44 else 2
        shown = self._rows[self.at]
        for turn in shown:
            name = (turn.role if name_cells > 2 else turn.role[0]).ljust(name_cells)
            style, mark = ("$success", learned) if turn.learned else ("$text-muted", read)
            rows = wrapped(turn_text(turn), width - name_cells - 2)
            if len(rows) > MOST_LINES_OF_A_TURN:
                rows = [*rows[:MOST_LINES_OF_A_TURN], marks.ellipsis]
            for index, row in enumerate(rows):
                lines.append(
                    Content.assemble(
                        (name if index == 0 else " " * name_cells, "$text-muted"),
                        (f"{mark} ", f"bold {style}" if turn.learned else "$text-disabled"),
                        (row, "$foreground" if turn.learned else "$text-muted"),
                    )
                )
        more = [
            f"{tool_count(shown.tools)} tools are described to the model" if shown.tools else "",
            "a rejected answer is kept, and not learned" if shown.rejected else "",
        ]
        lines += [Content.assemble((f"({words})", "$text-muted")) for words in more if words]
        return Content("\n").join(lines)
