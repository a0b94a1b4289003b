"""An answer, corrected, becomes a row of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static, TextArea

from ...core.text import clean
from ..widgets.controls import TextControl
from ..widgets.text import literal


class CorrectModal(ModalScreen[tuple[str, Path] | None]):
    """Takes the right answer and the JSONL file that it goes to; dismisses with both, or None."""

    CSS_PATH = ["modal.tcss", "talk.tcss"]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="correct.cancel"),
        Binding("f8", "add", "Add", id="correct.add"),
    ]

    def __init__(self, question: str, answer: str, file: Path) -> None:
        super().__init__()
        self._question, self._answer, self._file = question, answer, file

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal-box"):
            yield Static(
                Content.assemble(
                    ("What it should have answered", "bold $accent"),
                    "\n",
                    (literal(self._question, 300), "$text-muted"),
                ),
                markup=False,
            )
            yield TextArea(clean(self._answer), compact=True, tab_behavior="focus", id="correct-text")
            yield Static("Added as one row, with the talk before it, to this JSONL file:", markup=False)
            yield TextControl(str(self._file), id="correct-file")
            with Horizontal(classes="modal-buttons"):
                yield Button(Content("Add"), id="correct-add", compact=True)
                yield Button(Content("Cancel"), id="correct-cancel", compact=True)

    @on(TextControl.Submitted)
    @on(Button.Pressed, "#correct-add")
    def action_add(self) -> None:
        text = self.query_one("#correct-text", TextArea).text.strip()
        name = self.query_one("#correct-file", TextControl).value.strip()
        if not text or not name:
            self.app.bell()
            return
        self.dismiss((text, Path(name)))

    @on(Button.Pressed, "#correct-cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)
