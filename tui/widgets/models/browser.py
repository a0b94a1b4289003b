"""The four lists of models: tabs, a line to filter or search with, and the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, Static

from ...theme import glyphs
from ..controls import Edited, RadioControl, TextControl
from ..text import literal
from .listing import Fits, ModelList
from .rows import TAB_ORDER, TABS, Row, Tab

PLACEHOLDERS: dict[Tab, str] = {
    "recommended": "filter, or type a folder or owner/name",
    "hub": "search the hub: qwen3, code, german …",
    "local": "filter, or type a folder (F2 browses)",
    "runs": "filter by name",
}
SPINNER_SECONDS = 0.25


class FilterControl(TextControl):
    """The line over the list. Empty, its left and right keys change the list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "empty", "Clear", id="models.empty", tooltip="Empty the line"),
    ]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Esc empties what is typed; only then it leads back."""
        return bool(self.value) if action == "empty" else super().check_action(action, parameters)

    def action_empty(self) -> None:
        self.value = ""

    def action_cursor_left(self, select: bool = False) -> None:
        if self.value:
            super().action_cursor_left(select)
        else:
            self.post_message(ModelList.Left(tab=-1))

    def action_cursor_right(self, select: bool = False) -> None:
        if self.value:
            super().action_cursor_right(select)
        else:
            self.post_message(ModelList.Left(tab=1))


class ModelBrowser(Vertical):
    """Shows what the screen gives it, and posts `TabChosen`, `Typed` and the list's own messages."""

    class TabChosen(Message):
        """The person wants the list `tab`."""

        def __init__(self, tab: Tab) -> None:
            super().__init__()
            self.tab: Tab = tab

    class Typed(Message):
        """The line over the list now holds `text`."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, tab: Tab, text: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.tab: Tab = tab
        self._text = text
        self._status = ("", "")
        self._status_cells = 0
        self._turning = 0
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        yield RadioControl(TAB_ORDER, self.tab, TABS, id="model-tabs")
        with Horizontal(id="model-line"):
            yield FilterControl(literal(self._text, 1000), PLACEHOLDERS[self.tab], id="model-filter")
            yield Static(id="model-status", markup=False)
        yield Static(id="model-heading", markup=False)
        yield ModelList(id="model-list")
        yield Static(id="model-empty", markup=False)

    def on_mount(self) -> None:
        self._timer = self.set_interval(SPINNER_SECONDS, self._turn, pause=True)

    @property
    def model_list(self) -> ModelList:
        return self.query_one(ModelList)

    @property
    def text(self) -> str:
        """What is typed."""
        return self.query_one(FilterControl).value.strip()

    def turn_to(self, tab: Tab, text: str) -> None:
        """Another list, with what was typed for it before."""
        self.tab = tab
        control = self.query_one(FilterControl)
        control.placeholder = PLACEHOLDERS[tab]
        control.show(literal(text, 1000))
        radio = self.query_one("#model-tabs", RadioControl)
        if radio.value != tab:
            radio.value = tab

    def show(
        self,
        rows: Sequence[Row],
        fits: Callable[[Row], Fits],
        marks: Mapping[str, tuple[str, str]],
        highlight: str = "",
        empty: str = "",
    ) -> None:
        """The rows of the list in front; `empty` is said where there are none."""
        self.model_list.show(self.tab, rows, fits, marks, highlight)
        note = self.query_one("#model-empty", Static)
        note.display = not rows
        self.model_list.display = self.query_one("#model-heading").display = bool(rows)
        if not rows:
            note.update(Content.assemble((literal(empty, 400), "$text-muted")))

    def say(self, words: str, mood: str = "") -> None:
        """A few words at the right of the line: `busy` turns beside them, `bad` is a failure."""
        if (words, mood) == self._status:
            return
        self._status = (words, mood)
        if self._timer is not None:
            (self._timer.resume if mood == "busy" else self._timer.pause)()
        self._paint()

    def _turn(self) -> None:
        self._turning += 1
        self._paint()

    def _paint(self) -> None:
        words, mood = self._status
        marks = glyphs()
        frames = "⠋⠙⠸⠴⠦⠇" if marks.unicode else "|/-\\"
        head = {"busy": frames[self._turning % len(frames)] + " ", "bad": marks.cross + " "}.get(mood, "")
        style = "$text-error" if mood == "bad" else "$accent" if mood == "busy" else "$text-muted"
        text = Content.assemble((head + literal(words, 60) if words else "", style))
        layout, self._status_cells = text.cell_length != self._status_cells, text.cell_length
        self.query_one("#model-status", Static).update(text, layout=layout)

    def take_focus(self) -> None:
        """The rows, or where there are none the line to type in."""
        (self.model_list if self.model_list.rows else self.query_one(FilterControl)).focus()

    # ── Keys between the parts ──

    @on(Edited)
    def _edited(self, event: Edited) -> None:
        event.stop()
        if isinstance(event.edited, RadioControl):
            tab = TAB_ORDER[[*TABS].index(str(event.value))] if event.value in TABS else self.tab
            if tab != self.tab:
                self.post_message(self.TabChosen(tab))
        else:
            self.post_message(self.Typed(str(event.value).strip()))

    @on(ModelList.Headed)
    def _headed(self, event: ModelList.Headed) -> None:
        event.stop()
        self.query_one("#model-heading", Static).update(event.heading, layout=False)

    @on(ModelList.Left)
    def _left(self, event: ModelList.Left) -> None:
        if event.tab:
            event.stop()
            index = TAB_ORDER.index(self.tab) + event.tab
            if 0 <= index < len(TAB_ORDER):
                self.post_message(self.TabChosen(TAB_ORDER[index]))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        """Enter in the line takes the highlighted row; where nothing matches it takes nothing."""
        event.stop()
        row = self.model_list.row
        if row is None:
            self.app.bell()
        else:
            self.post_message(ModelList.Taken(row, go=True))

    def on_key(self, event: events.Key) -> None:
        """Up and down go from the line into the rows and pages turn them, without leaving the line."""
        if event.key in ("pagedown", "pageup") and isinstance(self.screen.focused, FilterControl):
            event.stop()
            (
                self.model_list.action_page_down
                if event.key == "pagedown"
                else self.model_list.action_page_up
            )()
