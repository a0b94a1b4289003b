"""What can be done with a run, as a menu: each action with its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static

from ..widgets.menu import Item, Menu
from ..widgets.text import literal


class ActionsModal(ModalScreen[str | None]):
    """Dismisses with the name of the chosen action, or None. An item's `right` is its key, which chooses it too."""

    CSS_PATH = ["modal.tcss", "failure.tcss"]
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,m", "close", "Close", id="actions.close")]

    def __init__(self, title: str, items: Sequence[Item]) -> None:
        super().__init__()
        self._title = title
        self._items = tuple(items)

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal-box"):
            yield Static(Content.assemble((literal(self._title, 80), "bold $accent"), "\n"), markup=False)
            yield Menu(self._items, title_cells=16, id="actions-menu")

    def on_mount(self) -> None:
        for item in self._items:
            key = "delete" if item.right == "del" else item.right
            self._bindings.bind(key, f"choose('{item.key}')", show=False)
        self.query_one(Menu).focus()

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self._items[event.option_index].key)

    def action_choose(self, name: str) -> None:
        self.dismiss(name)

    def action_close(self) -> None:
        self.dismiss(None)
