"""The settings of a talk: the system prompt, and how the next token is chosen."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ValidationError
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static, TextArea

from ...core.talk import Sampling
from ..theme import glyphs
from ..widgets.controls import TextControl
from ..widgets.text import literal


class TalkSettings(ModalScreen[tuple[str, Sampling] | None]):
    """Dismisses with the system prompt and the sampling, or None."""

    CSS_PATH = ["modal.tcss", "talk.tcss"]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="talk-settings.cancel"),
        Binding("f5", "use", "Use them", id="talk-settings.use"),
        Binding("down", "app.focus_next", "Next", show=False, id="talk-settings.next"),
        Binding("up", "app.focus_previous", "Previous", show=False, id="talk-settings.previous"),
    ]

    def __init__(self, system: str, sampling: Sampling) -> None:
        super().__init__()
        self._system, self._sampling = system, sampling

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal-box"):
            yield Static(
                Content.assemble(
                    ("System prompt", "bold $accent"), ("  another one begins a new talk", "$text-muted")
                ),
                markup=False,
            )
            yield TextArea(self._system, compact=True, tab_behavior="focus", id="talk-system")
            for name, field in Sampling.model_fields.items():
                value = getattr(self._sampling, name)
                with Horizontal(classes="talk-line"):
                    yield Static(name.replace("_", " ").capitalize(), classes="talk-label", markup=False)
                    yield TextControl("" if value is None else f"{value:g}", numeric=True, id=f"talk-{name}")
                    yield Static(literal(field.description or ""), classes="talk-about", markup=False)
            yield Static(id="talk-wrong", markup=False)
            with Horizontal(classes="modal-buttons"):
                yield Button(Content("Use them"), id="talk-use", compact=True)
                yield Button(Content("Cancel"), id="talk-cancel", compact=True)

    def on_mount(self) -> None:
        self.query_one("#talk-temperature").focus()

    @on(TextControl.Submitted)
    @on(Button.Pressed, "#talk-use")
    def action_use(self) -> None:
        values = {
            name: self.query_one(f"#talk-{name}", TextControl).value.strip() for name in Sampling.model_fields
        }
        try:
            sampling = Sampling.model_validate({k: v for k, v in values.items() if v})
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            words = f"{glyphs().cross} {name.replace('_', ' ')}: {first['msg'].lower()}"
            self.query_one("#talk-wrong", Static).update(Content.assemble((words, "$text-error")))
            self.query_one(f"#talk-{name}").focus()
            return
        self.dismiss((self.query_one("#talk-system", TextArea).text.strip(), sampling))

    @on(Button.Pressed, "#talk-cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)
