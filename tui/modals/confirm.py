"""A question with a few answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static


class ConfirmModal(ModalScreen[str]):
    """Asks `question`; dismisses with the key of the chosen answer, or `cancel`."""

    CSS_PATH = "modal.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="confirm.cancel"),
        Binding("right,down", "app.focus_next", "Next answer", show=False, id="confirm.next"),
        Binding("left,up", "app.focus_previous", "Previous answer", show=False, id="confirm.previous"),
    ]

    def __init__(self, title: str, question: str, answers: Sequence[tuple[str, str]]) -> None:
        """`answers` are (key, words); the first has the focus. `cancel` is added by Esc alone."""
        super().__init__()
        self._title = title
        self._question = question
        self._answers = tuple(answers)

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal-box"):
            yield Static(
                Content.assemble((self._title, "bold $accent"), "\n\n", self._question), markup=False
            )
            with Horizontal(classes="modal-buttons"):
                for key, words in self._answers:
                    yield Button(Content(words), id=f"answer-{key}", compact=True)

    @on(Button.Pressed)
    def _answered(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss((event.button.id or "").removeprefix("answer-"))

    def action_cancel(self) -> None:
        self.dismiss("cancel")
