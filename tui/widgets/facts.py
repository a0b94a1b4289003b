"""What was found out about a choice: a tick and figures, or what is wrong, why, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.widgets import Static

from ...core.errors import FinetuiError
from ...core.text import clean
from ..theme import glyphs
from .text import literal


@dataclass(frozen=True)
class _Line:
    """A glyph with its style, and a text that wraps beside it."""

    mark: str
    mark_style: str
    text: Content


class Facts(Static):
    """A few lines of facts, each with a hanging indent. Errors are wrapped, never cut."""

    DEFAULT_CSS = "Facts { height: auto; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._lines: list[_Line] = []

    def show_found(
        self, title: str, figures: Sequence[str], more: Sequence[str] = (), warning: str = ""
    ) -> None:
        """`title` with a tick, figures beside it, further lines under it."""
        marks = glyphs()
        head = Content.assemble((literal(title, 120), "bold"))
        rest = Content.assemble((f" {marks.middot} ".join(literal(f) for f in figures if f), "$text-muted"))
        width = self._width
        if head.cell_length + 3 + rest.cell_length <= width:
            lines = [_Line(marks.check, "bold $success", Content.assemble(head, "   ", rest))]
        else:
            lines = [_Line(marks.check, "bold $success", head), _Line(" ", "", rest)]
        lines += [
            _Line(" ", "", Content.assemble((literal(line, 300), "$text-muted"))) for line in more if line
        ]
        if warning:
            lines.append(
                _Line(marks.warn, "bold $warning", Content.assemble((literal(warning, 400), "$text-warning")))
            )
        self._show(lines)

    def show_busy(self, words: str) -> None:
        """Something is being looked at."""
        self._show([_Line(glyphs().todo, "$text-muted", Content.assemble((literal(words), "$text-muted")))])

    def show_error(self, error: FinetuiError) -> None:
        """What, why, fix: a card without a frame."""
        marks = glyphs()
        lines = [
            _Line(marks.cross, "bold $error", Content.assemble((clean(error.what, 600), "bold $text-error")))
        ]
        if error.why:
            lines.append(_Line(" ", "", Content(clean(error.why, 2000))))
        if error.fix:
            lines.append(_Line(marks.right, "bold $accent", Content(clean(error.fix, 2000))))
        self._show(lines)

    def show_nothing(self) -> None:
        """Nothing to say."""
        self._show([])

    @property
    def _width(self) -> int:
        return max(10, (self.content_size.width or 72) - 2)

    def _show(self, lines: list[_Line]) -> None:
        if lines != self._lines:
            self._lines = lines
            self._paint()

    def on_resize(self, event: events.Resize) -> None:
        self._paint()

    def _paint(self) -> None:
        rows: list[Content] = []
        for line in self._lines:
            indent = len(line.mark) + 1
            wrapped = [
                w
                for part in line.text.split("\n", allow_blank=True)
                for w in part.wrap(self._width) or [Content("")]
            ]
            for index, row in enumerate(wrapped):
                rows.append(
                    Content.assemble((line.mark, line.mark_style), " ", row)
                    if index == 0
                    else Content.assemble(" " * indent, row)
                )
        self.update(Content("\n").join(rows))
