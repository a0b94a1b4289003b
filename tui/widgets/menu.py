"""A list to choose from: a mark, a name, what it means, and a figure at the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ..theme import glyphs
from .text import clip, literal


@dataclass(frozen=True)
class Item:
    """One line of the menu. `key` says what is chosen; an item without one is a heading."""

    key: str
    title: str
    words: str = ""
    right: str = ""
    mark: str = ""
    mark_style: str = ""


class Menu(OptionList):
    """Up, down and Enter; the mouse. All texts are literal."""

    DEFAULT_CSS = """
    Menu {
        height: auto; border: none; padding: 0; background: transparent;
        &:focus { border: none; background: transparent; background-tint: 0%; }
        & > .option-list--option { padding: 0 1; }
        & > .option-list--option-disabled { color: $text-muted; }
        scrollbar-size-vertical: 1;
    }
    """

    def __init__(self, items: Sequence[Item] = (), *, title_cells: int = 22, id: str | None = None) -> None:
        super().__init__(id=id, markup=False, compact=True)
        self.title_cells = title_cells
        self.items: tuple[Item, ...] = tuple(items)

    def show(self, items: Sequence[Item]) -> None:
        """Replace the items; the highlighted one stays highlighted where it still exists."""
        if tuple(items) == self.items and self.option_count:
            return
        chosen = self.chosen
        self.items = tuple(items)
        self._fill(chosen)

    @property
    def chosen(self) -> str:
        """The key of the highlighted item, or empty."""
        index = self.highlighted
        return self.items[index].key if index is not None and index < len(self.items) else ""

    def highlight(self, key: str) -> None:
        """Highlight the item with `key`, or the first that can be chosen."""
        keys = [item.key for item in self.items]
        first = next((i for i, k in enumerate(keys) if k), None)
        self.highlighted = keys.index(key) if key and key in keys else first

    def _fill(self, chosen: str) -> None:
        self.clear_options()
        width = self.size.width - 2 if self.size.width else 76
        self.add_options([Option(self._line(item, width), disabled=not item.key) for item in self.items])
        self.highlight(chosen)

    def on_mount(self) -> None:
        self._fill("")

    def on_resize(self, event: events.Resize) -> None:
        self._fill(self.chosen)

    def _line(self, item: Item, width: int) -> Content:
        if not item.key:
            return Content.assemble((literal(item.title), "bold $text-muted"))
        right = literal(item.right, 60)
        mark = item.mark or " "
        title = literal(item.title, 80)
        room = width - cell_len(mark) - 1
        title = clip(title, min(room, max(self.title_cells, 10)))
        runs: list[Any] = [(mark, item.mark_style), " ", (title, "bold")]
        used = cell_len(mark) + 1 + cell_len(title)
        if width >= 56:
            gap = max(2, self.title_cells + 2 - cell_len(title))
            words = clip(
                literal(item.words), max(0, width - used - gap - (cell_len(right) + 2 if right else 0))
            )
            runs += [" " * gap, words]
            used += gap + cell_len(words)
        if right and used + 2 + cell_len(right) <= width:
            runs += [" " * (width - used - cell_len(right)), right]
        return Content.assemble(*runs)


def state_mark(state: str) -> tuple[str, str]:
    """The glyph and colour of a run's state."""
    marks = glyphs()
    return {
        "queued": (marks.todo, "$text-muted"),
        "starting": (marks.todo, "$accent"),
        "running": (marks.dot, "$accent"),
        "completed": (marks.check, "$success"),
        "stopped": (marks.pause, "$warning"),
        "failed": (marks.cross, "$error"),
        "crashed": (marks.cross, "$error"),
    }.get(state, (" ", ""))
