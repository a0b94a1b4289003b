"""The rows of one tab: up, down, Enter and the mouse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ....core.model_fit import Fit
from .columns import fitting, heading, line
from .rows import Row, Tab

Fits = tuple[Fit | None, Fit | None]


class ModelList(OptionList):
    """Posts `Rested` when the highlight is on another row, `Taken` when one is chosen, `Left` when the keys lead out of it."""

    DEFAULT_CSS = """
    ModelList {
        border: none; padding: 0; background: transparent; scrollbar-size-vertical: 1; height: 1fr;
        &:focus { border: none; background: transparent; background-tint: 0%; }
        & > .option-list--option { padding: 0; text-wrap: nowrap; text-overflow: ellipsis; }
        & > .option-list--option-highlighted { background: $panel; color: $foreground; }
        &:focus > .option-list--option-highlighted { background: $accent; color: $background; text-style: bold; }
        &:ansi:focus > .option-list--option-highlighted { background: ansi_yellow; color: ansi_black; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "take", "Choose", show=False, id="models.take", tooltip="Choose it and stay here"),
        Binding("left", "tab(-1)", "Previous list", show=False, id="models.left"),
        Binding("right", "tab(1)", "Next list", show=False, id="models.right"),
    ]

    class Rested(Message):
        """`row` is highlighted now (None: the list is empty)."""

        def __init__(self, row: Row | None) -> None:
            super().__init__()
            self.row = row

    class Taken(Message):
        """`row` was chosen; `go` says whether the person also wants to go on."""

        def __init__(self, row: Row, go: bool) -> None:
            super().__init__()
            self.row = row
            self.go = go

    class Left(Message):
        """The keys lead to another list (`tab` is −1 or 1), or up (−1) and down (1) out of this one."""

        def __init__(self, *, tab: int = 0, out: int = 0) -> None:
            super().__init__()
            self.tab = tab
            self.out = out

    class Headed(Message):
        """The columns are these now."""

        def __init__(self, heading: Content) -> None:
            super().__init__()
            self.heading = heading

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False, compact=True)
        self.rows: tuple[Row, ...] = ()
        self._tab: Tab = "recommended"
        self._fits: Callable[[Row], Fits] = lambda _: (None, None)
        self._marks: Mapping[str, tuple[str, str]] = {}
        self._told: str | None = ""
        self._drawn: list[Content] = []
        self._plain: int | None = None

    def show(
        self,
        tab: Tab,
        rows: Sequence[Row],
        fits: Callable[[Row], Fits],
        marks: Mapping[str, tuple[str, str]],
        highlight: str = "",
    ) -> None:
        """Show `rows`. `marks` are a glyph and its style by a row's key. The highlighted row stays so where it is still
        there, unless `highlight` names another by its key."""
        before = self.row
        key = highlight or (before.key if before is not None else "")
        same = tuple(r.key for r in rows) == tuple(r.key for r in self.rows) and tab == self._tab
        self._tab, self._fits, self._marks, self.rows = tab, fits, marks, tuple(rows)
        self._fill(key, rebuild=not same)

    @property
    def row(self) -> Row | None:
        """The highlighted row."""
        index = self.highlighted
        return self.rows[index] if index is not None and index < len(self.rows) else None

    def highlight(self, key: str) -> None:
        """Highlight the row with `key`, where there is one."""
        index = next((i for i, row in enumerate(self.rows) if row.key == key), None)
        if index is not None:
            self.highlighted = index

    def _fill(self, key: str, rebuild: bool) -> None:
        width = (self.size.width or 76) - 1  # the scrollbar's column is always kept free
        columns, name_cells = fitting(self._tab, width)
        self.post_message(self.Headed(heading(columns, name_cells)))
        nothing = ("", "")
        drawn = [
            line(row, columns, name_cells, self._fits(row), self._marks.get(row.key, nothing))
            for row in self.rows
        ]
        if rebuild or len(drawn) != self.option_count:
            index = next((i for i, row in enumerate(self.rows) if row.key == key), 0 if self.rows else None)
            self._drawn, self._plain = drawn, None
            self.clear_options()
            self.add_options([Option(one) for one in drawn])
            self.highlighted = index
        else:
            before, self._drawn = self._drawn, drawn
            for index, (old, new) in enumerate(zip(before, drawn, strict=True)):
                if old != new:
                    if index == self._plain:
                        self._plain = None
                    self.replace_option_prompt_at_index(index, new)
            if self.row is None or self.row.key != key:
                self.highlight(key)
        self._cursor()
        self._tell()

    def _cursor(self) -> None:
        """The row under the cursor is drawn in the cursor's colours alone: others cannot be read on it."""
        now = self.highlighted if self.has_focus else None
        if now == self._plain:
            return
        for index, plain in ((self._plain, False), (now, True)):
            if index is not None and index < len(self._drawn):
                drawn = self._drawn[index]
                self.replace_option_prompt_at_index(index, Content(drawn.plain) if plain else drawn)
        self._plain = now

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self._cursor()

    def _tell(self) -> None:
        row = self.row
        key = row.key if row is not None else None
        if key != self._told:
            self._told = key
            self.post_message(self.Rested(row))

    def watch_highlighted(self, highlighted: int | None) -> None:
        super().watch_highlighted(highlighted)
        if self.is_mounted and highlighted is not None and self.option_count == len(self.rows):
            self._cursor()
            self._tell()

    def on_resize(self, event: events.Resize) -> None:
        self._fill(self.row.key if self.row is not None else "", rebuild=False)

    def action_cursor_up(self) -> None:
        if not self.highlighted:
            self.post_message(self.Left(out=-1))
        else:
            super().action_cursor_up()

    def action_cursor_down(self) -> None:
        if self.highlighted is None or self.highlighted >= self.option_count - 1:
            self.post_message(self.Left(out=1))
        else:
            super().action_cursor_down()

    def action_tab(self, by: int) -> None:
        self.post_message(self.Left(tab=by))

    def action_select(self) -> None:
        if self.row is not None:
            self.post_message(self.Taken(self.row, go=True))

    def action_take(self) -> None:
        if self.row is not None:
            self.post_message(self.Taken(self.row, go=False))

    async def _on_click(self, event: events.Click) -> None:
        """One click chooses, two choose and go on."""
        event.prevent_default()
        index = event.style.meta.get("option")
        if isinstance(index, int) and index < len(self.rows):
            self.highlighted = index
            self.post_message(self.Taken(self.rows[index], go=event.chain > 1))
