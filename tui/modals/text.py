"""Asks for a line of text."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from ..widgets.text import literal


class TextModal(ModalScreen[str | None]):
    """Dismisses with what was typed, or None. `button` says what Enter does."""

    CSS_PATH = ["modal.tcss", "failure.tcss"]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="text.cancel"),
        Binding("down", "app.focus_next", "Next", show=False, id="text.next"),
        Binding("up", "app.focus_previous", "Previous", show=False, id="text.previous"),
    ]

    def __init__(self, title: str, words: str, value: str = "", button: str = "Save") -> None:
        super().__init__()
        self._title, self._words, self._value, self._button = title, words, value, button

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal-box"):
            yield Static(
                Content.assemble(
                    (literal(self._title, 120), "bold $accent"), "\n\n", literal(self._words, 600)
                ),
                markup=False,
            )
            yield Input(literal(self._value, 4000), compact=True, id="text-typed")
            with Horizontal(classes="modal-buttons"):
                yield Button(Content(self._button), id="text-use", compact=True)
                yield Button(Content("Cancel"), id="text-cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Submitted)
    @on(Button.Pressed, "#text-use")
    def _use(self) -> None:
        self.dismiss(self.query_one(Input).value.strip())

    @on(Button.Pressed, "#text-cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)
