"""The card of a failed run: what happened, why, what mends it, and to try it again with that."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from ...core.runs.retry import Retry
from ..theme import glyphs
from ..widgets.text import literal


class FailureModal(ModalScreen[str]):
    """Dismisses with `retry`, `change`, `report` or `close`."""

    CSS_PATH = ["modal.tcss", "failure.tcss"]
    AUTO_FOCUS = "#answer-retry"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "answer('close')", "Close", id="failure.close"),
        Binding("f", "answer('retry')", "Retry", id="failure.retry"),
        Binding("b", "answer('change')", "Change more", id="failure.change"),
        Binding("g", "answer('report')", "Report", id="failure.report"),
        Binding("right", "app.focus_next", "Next answer", show=False, id="failure.next"),
        Binding("left", "app.focus_previous", "Previous answer", show=False, id="failure.previous"),
        Binding("down,pagedown", "scroll(3)", "Down", show=False, id="failure.down"),
        Binding("up,pageup", "scroll(-3)", "Up", show=False, id="failure.up"),
    ]

    def __init__(self, plan: Retry) -> None:
        super().__init__()
        self.plan = plan

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal-box"):
            with VerticalScroll(classes="modal-scroll", can_focus=False):
                yield Static(card_content(self.plan), markup=False)
            with Horizontal(classes="modal-buttons"):
                title = "Retry with the fix" if self.plan.changes else "Retry"
                for key, words in (("retry", title), ("change", "Change more"), ("report", "Save a report")):
                    yield Button(Content(words), id=f"answer-{key}", compact=True)
                yield Button(Content("Close"), id="answer-close", compact=True)

    @on(Button.Pressed)
    def _answered(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss((event.button.id or "").removeprefix("answer-"))

    def action_answer(self, answer: str) -> None:
        self.dismiss(answer)

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)


def card_content(plan: Retry) -> Content:
    """The card's texts, what a retry changes as a diff, and what it does."""
    marks, card = glyphs(), plan.card
    parts = [Content.assemble((f"{marks.cross} {literal(card.what, 600)}", "bold $text-error"))]
    if card.why:
        parts.append(Content(literal(card.why, 4000)))
    if plan.changes:
        rows = [
            Content.assemble((literal(row, 400), "$text-error" if row.startswith("-") else "$text-success"))
            for row in plan.diff()
        ]
        parts.append(Content("\n").join(rows))
        parts.append(Content.assemble((f"{marks.right} ", "bold $accent"), literal(plan.why, 600)))
    elif card.fix:
        parts.append(Content.assemble((f"{marks.right} ", "bold $accent"), literal(card.fix, 2000)))
    before = "Once that is done: " if plan.first else ""
    words = plan.words[0].lower() + plan.words[1:] if before else plan.words
    parts.append(Content.assemble((before + words, "$text-muted")))
    return Content("\n\n").join(parts)


def change_words(plan: Retry) -> str:
    """What a retry changes, in a line: `batch size 8 → 4, accumulation 1 → 2`; empty where nothing."""
    from ...core.fields import field

    rows = plan.diff()
    pairs = zip(plan.changes, rows[::2], rows[1::2], strict=True)
    return ", ".join(
        f"{field(change.path).title.lower()} {_value(old)} {glyphs().right} {_value(new)}"
        for change, old, new in pairs
    )


def _value(row: str) -> str:
    return literal(row.partition(": ")[2], 60) or "none"
