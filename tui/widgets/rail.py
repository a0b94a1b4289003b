"""The five steps: where the person is, what is done, and in a line each what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from ..theme import glyphs
from .text import clip, literal, run_length

State = Literal["todo", "done", "trouble"]
Run = tuple[str, str]


@dataclass(slots=True)
class _Step:
    key: str
    name: str
    summary: str = ""
    state: State = "todo"


class StepRail(Widget, can_focus=True):
    """The rail of steps: a column with summaries where it is given height, else one line.

        rail = StepRail([("model", "Model"), ("dataset", "Dataset"), ...], current="model")
        rail.set_summary("model", "Llama-3.2-3B-Instruct")
        rail.set_state("model", "done")             # "todo", "done", "trouble"
        rail.current = "dataset"

    A click, or Enter on the step that the arrow keys moved to, posts `StepRail.Chosen(step)`; the rail itself
    moves nothing. `styles/app.tcss` gives it 28 columns at the left from 100 columns on and one line below
    that.
    """

    DEFAULT_CSS = """
    StepRail { width: 28; height: 1fr; background: $surface; padding: 1 2; }
    """
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,left", "move(-1)", "Previous step", show=False, id="rail.previous"),
        Binding("down,right", "move(1)", "Next step", show=False, id="rail.next"),
        Binding("enter", "choose", "Go to step", show=False, id="rail.choose"),
    ]

    current: reactive[str] = reactive("")
    """The key of the step that the person is in."""
    cursor: reactive[int] = reactive(0)
    """The step that Enter would choose."""

    class Chosen(Message):
        """The person wants to go to `step` (its key)."""

        def __init__(self, rail: StepRail, step: str) -> None:
            super().__init__()
            self.rail = rail
            self.step = step

        @property
        def control(self) -> StepRail:
            """The rail, for `@on(StepRail.Chosen, "#id")`."""
            return self.rail

    def __init__(
        self,
        steps: Sequence[tuple[str, str]],
        current: str = "",
        *,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """`steps` are (key, name) in their order."""
        super().__init__(name=name, id=id, classes=classes)
        self._steps = [_Step(key, literal(label)) for key, label in steps]
        self.set_reactive(StepRail.current, current)
        self.set_reactive(StepRail.cursor, self._index(current) if current else 0)

    def set_summary(self, step: str, summary: str) -> None:
        """What was chosen in `step`, in a few words. Raises ValueError for a step that the rail has not."""
        self._steps[self._index(step)].summary = literal(summary)
        self.refresh()

    def set_state(self, step: str, state: State) -> None:
        """Whether `step` is done, still to do, or needs the person. Raises ValueError for a step that the
        rail has not."""
        self._steps[self._index(step)].state = state
        self.refresh()

    def watch_current(self, current: str) -> None:
        """The cursor follows the current step."""
        if current:
            self.cursor = self._index(current)

    def _index(self, key: str) -> int:
        for index, step in enumerate(self._steps):
            if step.key == key:
                return index
        raise ValueError(f"the rail has no step {key!r}")

    def action_move(self, by: int) -> None:
        """Move the cursor, staying within the steps."""
        self.cursor = max(0, min(len(self._steps) - 1, self.cursor + by))

    def action_choose(self) -> None:
        """Ask for the step under the cursor."""
        self.post_message(self.Chosen(self, self._steps[self.cursor].key))

    def on_blur(self) -> None:
        self.watch_current(self.current)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        index = self._line_hit(offset.x) if self._in_line else self._column_hit(offset.y)
        if 0 <= index < len(self._steps):
            self.cursor = index
            self.post_message(self.Chosen(self, self._steps[index].key))

    def _column_hit(self, y: int) -> int:
        pitch = 3 if self._airy else 2
        return y // pitch if y % pitch < 2 else -1

    @property
    def _airy(self) -> bool:
        return self.content_size.height >= 3 * len(self._steps) - 1

    @property
    def _in_line(self) -> bool:
        return self.content_size.height < 2 * len(self._steps)

    def _glyph(self, step: _Step) -> tuple[str, str, str]:
        """Glyph, its style, and the style of the name."""
        marks = glyphs()
        if step.key == self.current:
            return marks.current, "bold $accent", "bold $accent"
        if step.state == "trouble":
            return marks.warn, "bold $error", "$foreground"
        if step.state == "done":
            return marks.check, "$success", "$foreground"
        return marks.todo, "$text-disabled", "$text-muted"

    def _runs(self, index: int) -> list[Run]:
        step = self._steps[index]
        mark, mark_style, name_style = self._glyph(step)
        if self.has_focus and index == self.cursor:
            name_style += " reverse"
        return [(mark, mark_style), (" ", ""), (step.name, name_style)]

    def _line_layout(self) -> list[tuple[int, list[Run]]]:
        """Each step's first column and runs, with the widest gap and the fullest names that fit in one
        line."""
        width = self.content_size.width
        runs = [self._runs(index) for index in range(len(self._steps))]
        for gap, short in ((4, False), (3, False), (2, False), (1, True)):
            if short:
                runs = [
                    one if step.key == self.current else one[:1]
                    for one, step in zip(runs, self._steps, strict=True)
                ]
            if sum(map(run_length, runs)) + gap * (len(runs) - 1) <= width or short:
                break
        found: list[tuple[int, list[Run]]] = []
        at = 0
        for one in runs:
            found.append((at, one))
            at += run_length(one) + gap
        return found

    def _line_hit(self, x: int) -> int:
        return next(
            (
                index
                for index, (at, runs) in enumerate(self._line_layout())
                if at <= x < at + run_length(runs)
            ),
            -1,
        )

    def render(self) -> Content:
        """The column or the line, by the height that the rail was given."""
        width = self.content_size.width
        if self._in_line:
            parts: list[Run] = []
            for at, runs in self._line_layout():
                parts += [(" " * max(0, at - run_length(parts)), ""), *runs]
            return Content.assemble(*parts).truncate(width)
        rows: list[Content] = []
        for index, step in enumerate(self._steps):
            style = "$text-muted" if step.key == self.current or step.state != "todo" else "$text-disabled"
            rows.append(Content.assemble(*self._runs(index)))
            rows.append(Content.assemble("  ", (clip(step.summary, width - 2), style)))
            if self._airy:
                rows.append(Content(""))
        return Content("\n").join(rows)
