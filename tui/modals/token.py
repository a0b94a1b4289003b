"""Asks for a hub token, masked. It goes to the hub only; it is kept only if asked for."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from ...core import hub
from ...core.errors import FinetuiError
from ...core.secrets import hub_token, token_file
from ..theme import glyphs
from ..widgets.controls import ChecklistControl, Edited
from ..widgets.text import literal

KEEP = "keep"


class TokenModal(ModalScreen[bool]):
    """Takes a token for `repository` (empty: for the hub at large). Dismisses with True once one is in use."""

    CSS_PATH = ["modal.tcss", "token.tcss"]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="token.cancel"),
        Binding("down", "app.focus_next", "Next", show=False, id="token.next"),
        Binding("up", "app.focus_previous", "Previous", show=False, id="token.previous"),
    ]

    def __init__(self, repository: str = "", *, writes: bool = False) -> None:
        """`writes`: the token is for an upload, and one that only reads would not do."""
        super().__init__()
        self._repository, self._right = repository, "write" if writes else "read"
        self._keep = False

    def compose(self) -> ComposeResult:
        marks = glyphs()
        if self._repository:
            name = literal(self._repository, 100)
            title = f"{name} is gated"
            why = "Its owner asks you to accept terms first, signed in, on its page:"
            page = literal(hub.address(self._repository, "model"), 160)
        else:
            title = "Hub token"
            why = f"A token shows the hub who asks. Make one, with the right to {self._right}, at:"
            page = literal(f"{hub.endpoint()}/settings/tokens", 160)
        have = "  A token is in use already; a new one replaces it here." if hub_token() else ""
        with Vertical(classes="modal-box"):
            yield Static(
                Content.assemble(
                    (title, "bold $accent"),
                    "\n\n",
                    why,
                    "\n",
                    (f"{marks.right} {page}", "bold"),
                    "\n\nThen paste a token of that account:" + have,
                ),
                markup=False,
            )
            yield Input(password=True, placeholder="hf_…", compact=True, id="token-text")
            yield ChecklistControl(
                (KEEP,),
                (),
                {KEEP: "keep it for next time, where the hub's own login keeps it"},
                id="token-keep",
            )
            yield Static(id="token-words", markup=False)
            with Horizontal(classes="modal-buttons"):
                yield Button(Content("Use it"), id="token-use", compact=True)
                yield Button(Content("Cancel"), id="token-no", compact=True)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._say()

    def _say(self) -> None:
        where = (
            f"Kept in {literal(str(token_file()), 160)}, readable by you alone."
            if self._keep
            else "Used until finetui is left, and by what it starts; written nowhere."
        )
        self.query_one("#token-words", Static).update(Content.assemble((where, "$text-muted")))

    @on(Edited)
    def _edited(self, event: Edited) -> None:
        event.stop()
        self._keep = KEEP in event.value
        self._say()

    @on(Input.Submitted)
    @on(Button.Pressed, "#token-use")
    def _use(self) -> None:
        token, keep = self.query_one(Input).value, self._keep
        try:
            (hub.keep_token if keep else hub.use_token)(token)
        except FinetuiError as error:
            text = Content.assemble(
                (f"{glyphs().cross} {error.what}", "bold $text-error"),
                f" {literal(f'{error.why} {error.fix}')}",
            )
            self.query_one("#token-words", Static).update(text)
            self.query_one(Input).focus()
            return
        self.dismiss(True)

    @on(Button.Pressed, "#token-no")
    def action_cancel(self) -> None:
        self.dismiss(False)
