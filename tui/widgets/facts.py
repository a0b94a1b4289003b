"""What was found out about a choice: a tick and figures, or what is wrong, why, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from ...core.errors import FinetuiError
from ...core.text import clean
from ..theme import glyphs
from .text import literal


class Facts(Static):
    """A few lines of facts. Errors are wrapped, never cut."""

    DEFAULT_CSS = "Facts { height: auto; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)

    def show_found(self, title: str, figures: Sequence[str], more: Sequence[str] = (), warning: str = "") -> None:
        """`title` with a tick, figures beside it, further lines under it."""
        marks = glyphs()
        dot = f" {marks.middot} "
        parts = [
            Content.assemble(
                (f"{marks.check} ", "bold $success"),
                (literal(title, 120), "bold"),
                ("   " if figures else "", ""),
                (dot.join(literal(figure) for figure in figures if figure), "$text-muted"),
            )
        ]
        parts += [Content.assemble(("  " + literal(line, 300), "$text-muted")) for line in more if line]
        if warning:
            parts.append(Content.assemble((f"{marks.warn} ", "bold $warning"), (literal(warning, 400), "$text-warning")))
        self.update(Content("\n").join(parts))

    def show_busy(self, words: str) -> None:
        """Something is being looked at."""
        self.update(Content.assemble((f"{glyphs().todo} {literal(words)}", "$text-muted")))

    def show_error(self, error: FinetuiError) -> None:
        """What, why, fix: a card without a frame."""
        marks = glyphs()
        parts = [Content.assemble((f"{marks.cross} {clean(error.what, 600)}", "bold $text-error"))]
        if error.why:
            parts.append(Content("  " + clean(error.why, 2000)))
        if error.fix:
            parts.append(Content.assemble((f"{marks.right} ", "bold $accent"), clean(error.fix, 2000)))
        self.update(Content("\n").join(parts))

    def show_nothing(self) -> None:
        """Nothing to say."""
        self.update(Content(""))
