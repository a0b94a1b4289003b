"""The controls of a form, each one line high: text, one of several, and some of several."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input

from ..theme import glyphs
from .text import clip, literal


class Edited(Message):
    """The person changed `control`; its `value` is the new one."""

    def __init__(self, control: Widget, value: str | tuple[str, ...]) -> None:
        super().__init__()
        self.edited = control
        self.value = value

    @property
    def control(self) -> Widget:
        return self.edited


class TextControl(Input):
    """A line of text or a number. Enter is left to the screen (`Input.Submitted`)."""

    DEFAULT_CSS = """
    TextControl, TextControl.-textual-compact {
        height: 1; border: none; padding: 0 1; background: $panel; color: $foreground;
        &:focus { border: none; height: 1; background: $accent; color: $background; text-style: bold; background-tint: 0%; }
        &:focus .input--cursor { background: $background; color: $accent; text-style: none; }
        &:focus .input--selection { background: $background 40%; }
        &:focus .input--placeholder { color: $background 70%; text-style: none; }
        & .input--placeholder { color: $text-disabled; }
        &.-wrong { color: $error; }
        &.-wrong:focus { background: $error; color: $background; }
        &:ansi { background: transparent; }
        &:ansi:focus { background: ansi_yellow; color: ansi_black; }
    }
    """

    def __init__(
        self, value: str, placeholder: str = "", *, numeric: bool = False, id: str | None = None
    ) -> None:
        super().__init__(value, placeholder=placeholder, compact=True, select_on_focus=False, id=id)
        self.numeric = numeric

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """A number has no use for a question mark, so there it opens the help."""
        if self.numeric and character == "?":
            return False
        return super().check_consume_key(key, character)

    async def on_key(self, event: events.Key) -> None:
        if self.numeric and event.character == "?":
            event.prevent_default().stop()
            await self.run_action("app.help")

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(Edited(self, event.value))

    def show(self, value: str) -> None:
        """Replace the text without telling the screen."""
        if value != self.value:
            with self.prevent(Input.Changed):
                self.value = value


class ChoiceControl(Widget, can_focus=True):
    """One of several values: `‹ 16-bit ›`. Left, right and space go round; so does a click on either half."""

    DEFAULT_CSS = """
    ChoiceControl { height: 1; width: 24; padding: 0 1; background: $panel; color: $foreground; pointer: pointer; }
    ChoiceControl:focus { background: $accent; color: $background; text-style: bold; }
    ChoiceControl:ansi:focus { background: ansi_yellow; color: ansi_black; }
    """
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "turn(-1)", "Previous value", show=False, id="choice.previous"),
        Binding("right,space", "turn(1)", "Next value", show=False, id="choice.next"),
    ]
    value: reactive[str] = reactive("")

    def __init__(
        self,
        choices: Sequence[str],
        value: str,
        labels: Mapping[str, str] | None = None,
        *,
        id: str | None = None,
    ) -> None:
        """`labels` are what people read in place of the values."""
        super().__init__(id=id)
        self.choices = tuple(choices)
        self.labels = dict(labels or {})
        self.set_reactive(ChoiceControl.value, value)

    def label(self, value: str) -> str:
        """What is read for `value`."""
        return literal(self.labels.get(value, value), 60)

    def action_turn(self, by: int) -> None:
        if not self.choices:
            return
        index = self.choices.index(self.value) if self.value in self.choices else -1 if by > 0 else 0
        self.choose(self.choices[(index + by) % len(self.choices)])

    def choose(self, value: str) -> None:
        """Take `value` and tell the screen."""
        if value != self.value:
            self.value = value
            self.post_message(Edited(self, value))

    def on_click(self, event: events.Click) -> None:
        self.action_turn(-1 if event.x < self.size.width // 2 else 1)

    def render(self) -> Content:
        width = self.content_size.width
        marks = glyphs()
        word = clip(self.label(self.value), max(1, width - 4))
        quiet = "" if self.has_focus else "$accent"
        left = (width - 4 - cell_len(word)) if width > 4 else 0
        return Content.assemble(
            (marks.previous, quiet), " ", word, " " * max(0, left), " ", (marks.next, quiet)
        )


class RadioControl(ChoiceControl):
    """One of a few values, all in sight: `● Demo  ○ Folder  ○ Hub id`, wrapped where it is narrow."""

    DEFAULT_CSS = """
    RadioControl { width: 1fr; height: auto; padding: 0; background: transparent; }
    RadioControl:focus { background: transparent; color: $foreground; text-style: none; }
    RadioControl:ansi:focus { background: transparent; color: ansi_default; }
    """

    def _places(self, width: int) -> list[tuple[int, int, int, str]]:
        """Each value's line, first column, width and value."""
        places: list[tuple[int, int, int, str]] = []
        line = at = 0
        total = sum(cell_len(self.label(value)) + 4 for value in self.choices)
        gap = 2 if total + 2 * len(self.choices) <= width else 1 if total <= width else 0
        for value in self.choices:
            cells = cell_len(self.label(value)) + 3 + (gap > 0)
            if at and at + cells > width:
                line, at = line + 1, 0
            places.append((line, at, cells, value))
            at += cells + max(0, gap - 1)
        return places

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        places = self._places(width)
        return places[-1][0] + 1 if places else 1

    def on_click(self, event: events.Click) -> None:
        event.prevent_default()  # the handler of the class above would go on to a neighbour
        offset = event.get_content_offset(self)
        if offset is None:
            return
        for line, at, cells, value in self._places(self.content_size.width):
            if line == offset.y and at <= offset.x < at + cells:
                self.choose(value)

    def render(self) -> Content:
        marks = glyphs()
        lines: dict[int, list[tuple[str, str]]] = {}
        for line, at, cells, value in self._places(self.content_size.width):
            chosen = value == self.value
            runs = lines.setdefault(line, [])
            runs.append((" " * (at - sum(cell_len(text) for text, _ in runs)), ""))
            words = f" {marks.dot if chosen else marks.todo} {self.label(value)} "[:cells]
            if chosen and self.has_focus:
                style = "bold $background on $accent" if not self.app.native_ansi_color else "bold reverse"
            else:
                style = "bold $accent" if chosen else "$text-muted"
            runs.append((words, style))
        return Content("\n").join(Content.assemble(*runs) for runs in lines.values())


class ChecklistControl(Widget, can_focus=True):
    """Some of several values: `[x] q  [x] k  [ ] v`. Left and right move, space ticks, a click does both."""

    DEFAULT_CSS = """
    ChecklistControl { width: 1fr; height: auto; color: $foreground; pointer: pointer; }
    """
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Previous", show=False, id="checklist.previous"),
        Binding("right", "move(1)", "Next", show=False, id="checklist.next"),
        Binding("space", "tick", "Tick", show=False, id="checklist.tick"),
        Binding("a", "all", "All or one", show=False, id="checklist.all"),
    ]
    value: reactive[tuple[str, ...]] = reactive(())
    cursor: reactive[int] = reactive(0)

    class Pointed(Message):
        """The cursor stands on another choice."""

    def __init__(
        self,
        choices: Sequence[str],
        value: Sequence[str],
        labels: Mapping[str, str] | None = None,
        *,
        rare: Collection[str] = (),
        id: str | None = None,
    ) -> None:
        """`rare` choices are folded away behind an entry of their own, but for those that are ticked."""
        super().__init__(id=id)
        self.choices = tuple(choices)
        self.labels = dict(labels or {})
        self.rare = frozenset(rare)
        self.unfolded = False
        self.set_reactive(ChecklistControl.value, tuple(value))

    @property
    def shown(self) -> tuple[str, ...]:
        """The choices in sight; the empty one folds those after it in and out, and stays in sight itself."""
        if not self.rare:
            return self.choices
        common = [c for c in self.choices if c not in self.rare]
        rare = [c for c in self.choices if c in self.rare]
        if self.unfolded:
            return (*common, "", *rare)
        return (*common, *(c for c in rare if c in self.value), "")

    @property
    def at(self) -> str:
        """The choice under the cursor; empty on the entry that folds."""
        return self.shown[min(self.cursor, len(self.shown) - 1)]

    def watch_cursor(self) -> None:
        self.post_message(self.Pointed())

    def action_move(self, by: int) -> None:
        self.cursor = (self.cursor + by) % len(self.shown)

    def action_tick(self) -> None:
        here = self.at
        if not here:
            self.unfolded = not self.unfolded
            self.cursor = self.shown.index("")
            self.refresh(layout=True)
            return
        ticked = set(self.value) ^ {here}
        self._take(tuple(c for c in self.choices if c in ticked))

    def action_all(self) -> None:
        every = tuple(c for c in self.shown if c)
        here = self.at or every[0]
        self._take(every if self.value != every else (here,))

    def _label(self, value: str) -> str:
        if value:
            return f"[{glyphs().check if value in self.value else ' '}] " + literal(
                self.labels.get(value, value)
            )
        return "fewer" if self.unfolded else f"{len(self.choices) - len(self.shown) + 1} more"

    def _take(self, value: tuple[str, ...]) -> None:
        self.value = value
        self.post_message(Edited(self, value))

    def _places(self, width: int) -> list[tuple[int, int, int, int]]:
        """Each choice's line, first column, width and index."""
        places: list[tuple[int, int, int, int]] = []
        line = at = 0
        for index, value in enumerate(self.shown):
            cells = cell_len(self._label(value))
            if at and at + cells > width:
                line, at = line + 1, 0
            places.append((line, at, cells, index))
            at += cells + 1
        return places

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return self._places(width)[-1][0] + 1

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        for line, at, cells, index in self._places(self.content_size.width):
            if line == offset.y and at <= offset.x < at + cells:
                self.cursor = index
                self.action_tick()

    def render(self) -> Content:
        lines: dict[int, list[tuple[str, str]]] = {}
        for line, _, _, index in self._places(self.content_size.width):
            value = self.shown[index]
            ticked = value in self.value
            runs = lines.setdefault(line, [])
            if runs:
                runs.append((" ", ""))
            mark, name = self._label(value)[:3], self._label(value)[3:]
            if self.has_focus and index == min(self.cursor, len(self.shown) - 1):
                style = "bold reverse" if self.app.native_ansi_color else "bold $background on $accent"
                runs.append((mark + name, style))
            elif not value:
                runs.append((mark + name, "$accent"))
            else:
                runs.append((mark, "$success" if ticked else "$text-disabled"))
                runs.append((name, "$foreground" if ticked else "$text-muted"))
        return Content("\n").join(Content.assemble(*runs) for runs in lines.values())
