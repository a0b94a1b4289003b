"""One line about the whole dataset: how far the reading is, then the worst that was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from ...theme import glyphs
from ..text import clip, literal, spread
from .findings import mark_of, worst_first

if TYPE_CHECKING:
    from ...inspecting import Inspection


def report_words(inspection: Inspection) -> tuple[str, str, str]:
    """Mark, style and sentence for what `inspection` knows."""
    marks = glyphs()
    ledger, error = inspection.ledger, inspection.error
    if error is not None:
        return marks.cross, "$text-error", error.what
    if inspection.state == "waiting":
        stage = inspection.stage or "getting ready to read every row"
        return marks.todo, "$text-muted", f"{stage[:1].upper()}{stage[1:].rstrip('.')} {marks.ellipsis}"
    if inspection.state == "cancelled":
        return (
            marks.pause,
            "$text-warning",
            "The reading was stopped; what is known is of the rows read so far.",
        )
    if inspection.state == "reading":
        found = worst_first(ledger.findings) if ledger is not None else []
        worst = f" {marks.middot} {found[0].sentence}" if found and found[0].severity == "stop" else ""
        return (
            marks.todo,
            "$text-muted",
            f"Reading every row: {inspection.share:.0%}, {inspection.rows_read:,} rows{worst}",
        )
    if ledger is None:
        return "", "", ""
    found = [f for f in worst_first(ledger.findings) if f.severity != "note"]
    if not found:
        share = ledger.trained_tokens / ledger.tokens if ledger.tokens else 0.0
        words = f"Nothing to mend: {ledger.read:,} rows, {ledger.tokens:,} tokens, {share:.0%} learned"
        return marks.check, "$success", words
    mark, style, _ = mark_of(found[0].severity)
    more = f" (+{len(found) - 1} more)" if len(found) > 1 else ""
    return mark, style, found[0].sentence + more


class ReportLine(Widget, can_focus=True):
    """The line under the facts. Enter (or a click) opens the ledger."""

    DEFAULT_CSS = """
    ReportLine { height: 1; width: 1fr; pointer: pointer; }
    """
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open the ledger", show=False, id="report.open"),
    ]

    class Opened(Message):
        """The ledger is wanted."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._words: tuple[str, str, str] = ("", "", "")
        self.display = False

    def show(self, inspection: Inspection) -> None:
        """Show what `inspection` knows; nothing where it knows nothing."""
        words = report_words(inspection)
        if words != self._words:
            self._words = words
            self.display = bool(words[2])
            self.refresh()

    @property
    def text(self) -> str:
        """The sentence that is shown."""
        return literal(self._words[2], 400)

    def action_open(self) -> None:
        self.post_message(self.Opened())

    def on_click(self, event: events.Click) -> None:
        self.action_open()

    def render(self) -> Content:
        mark, style, _ = self._words
        width = self.content_size.width
        key = " F4 more" if width >= 50 else ""
        words = clip(self.text, max(4, width - 2 - len(key)))
        focus = "bold reverse" if self.app.native_ansi_color else "bold $background on $accent"
        return spread(
            [(f"{mark} ", f"bold {style}"), (words, focus if self.has_focus else style)],
            [(key[:3], "bold $accent"), (key[3:], "$text-muted")] if key else [],
            width,
        )
