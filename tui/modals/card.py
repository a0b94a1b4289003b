"""The error card: what happened, why, and what to do."""

from __future__ import annotations

import time
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from ...core import atomic, paths
from ...core.errors import FinetuiError
from ...core.text import clean
from ..theme import glyphs


def card_content(error: FinetuiError) -> Content:
    """The three texts of `error`, literally."""
    parts = [Content.assemble((f"{glyphs().cross} {clean(error.what, 600)}", "bold $text-error"))]
    if error.why:
        parts.append(Content(clean(error.why, 4000)))
    if error.fix:
        parts.append(Content.assemble((f"{glyphs().right} ", "bold $accent"), clean(error.fix, 2000)))
    return Content("\n\n").join(parts)


class ErrorCard(ModalScreen[None]):
    """Shows a FinetuiError. Errors are never cut: a long one scrolls."""

    CSS_PATH = "modal.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Close", id="card.close"),
        Binding("c", "copy", "Copy", id="card.copy", tooltip="To the clipboard, and to a file"),
    ]

    def __init__(self, error: FinetuiError) -> None:
        super().__init__()
        self.error = error

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal-box"):
            with VerticalScroll(classes="modal-scroll", can_focus=False):
                yield Static(card_content(self.error), markup=False)
            with Horizontal(classes="modal-buttons"):
                yield Button(Content("Close"), id="close", compact=True)
                yield Button(Content("Copy"), id="copy", compact=True)
            yield Static(id="copied", markup=False)

    @on(Button.Pressed, "#close")
    def action_close(self) -> None:
        self.dismiss(None)

    @on(Button.Pressed, "#copy")
    def action_copy(self) -> None:
        """To the clipboard (OSC 52, where the terminal takes it) and to a file, whose path is shown."""
        text = "\n\n".join(part for part in (self.error.what, self.error.why, self.error.fix) if part)
        self.app.copy_to_clipboard(text)
        target = paths.data() / "last-error.txt"
        try:
            paths.private_dir(target.parent)
            atomic.write_text(target, f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {self.error.code}\n\n{text}\n")
            words = f"Copied; also in {target}"
        except OSError:
            words = "Copied."
        self.query_one("#copied", Static).update(Content.assemble((words, "$text-muted")))
