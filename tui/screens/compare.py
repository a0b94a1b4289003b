"""Two to six runs side by side: curves laid over each other, where the recipes differ, what each answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen

from ...core.runs import compare, summary
from ...core.runs.compare import Compared
from ...core.runs.store import RunFolder
from ...core.runs.summary import Summary
from ...core.text import duration_words
from ..theme import glyphs
from ..widgets.chart import Line, LineChart, Look
from ..widgets.dashboard.block import Block
from ..widgets.dashboard.lines import hanging
from ..widgets.dashboard.story import number
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.text import clip, clip_middle, literal
from .closing import while_standing

if TYPE_CHECKING:
    from ..app import FinetuiApp

COLORS = ("$accent", "$success", "$error", "$foreground", "$warning", "$secondary")
CHARTS = ("Loss", "Held-out loss", "Learning rate", "Gradient norm")


class CompareScreen(Screen[None]):
    """The runs that were marked. Read once; `r` reads them again."""

    CSS_PATH = "compare.tcss"
    AUTO_FOCUS = "#compare-pane"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "c",
            "chart",
            "Chart",
            id="compare.chart",
            tooltip="Loss, held-out loss, rate, gradient norm in turn",
        ),
        Binding("x", "axis", "Axis", id="compare.axis", tooltip="Steps, tokens, time, epochs"),
        Binding("l", "log", "Log", id="compare.log", tooltip="Linear or logarithmic"),
        Binding("plus,equals_sign", "zoom(0.5)", "Look closer", key_display="+", show=False, id="compare.in"),
        Binding("minus", "zoom(2.0)", "From further away", key_display="-", show=False, id="compare.out"),
        Binding("0", "whole", "All of it", show=False, id="compare.whole"),
        Binding("left", "cursor(-1)", "Cursor back", show=False, id="compare.back-cursor"),
        Binding("right", "cursor(1)", "Cursor on", show=False, id="compare.on-cursor"),
        Binding("r", "read", "Read again", show=False, id="compare.read"),
        Binding("escape", "app.pop_screen", "Back", id="compare.back"),
    ]

    def __init__(self, chosen: Sequence[Summary]) -> None:
        super().__init__()
        self.chosen = list(chosen)
        self.compared: list[Compared] = []
        self.which = 0
        self.look = Look()

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    def compose(self) -> ComposeResult:
        yield Header()
        with Vertical(id="compare"):
            yield LineChart("Loss", self.look, "reading the runs", id="compare-chart")
            with VerticalScroll(id="compare-pane"):
                yield Block(id="compare-text")
        yield Footer(first=("compare.chart", "compare.axis", "compare.log", "compare.back"))

    def on_mount(self) -> None:
        self.query_one(Header).show_place(f"Compare {len(self.chosen)} runs")
        self.action_read()
        self.paint()

    def on_resize(self) -> None:
        self.call_after_refresh(self.paint)

    def action_read(self) -> None:
        runs = [RunFolder(summary.folder_of(one)) for one in self.chosen]
        self.finetui.in_background("compare", lambda: [compare.read(run) for run in runs], self._read)

    @while_standing
    def _read(self, compared: list[Compared]) -> None:
        self.compared = compared
        self.paint()

    @while_standing
    def paint(self) -> None:
        """Shows what was read."""
        if not self.compared:
            return
        chart = self.query_one(LineChart)
        chart.set_title(CHARTS[self.which])
        lines: list[Line] = []
        for place, one in enumerate(self.compared):
            curves = one.curves
            points = (curves.average, curves.evaluations, curves.rate, curves.norm)[self.which]
            number_of = str(place + 1)
            lines.append(Line(number_of, points, COLORS[place], places=curves.places, label=number_of))
        longest = max(self.compared, key=lambda one: one.curves.newest)
        chart.show(lines, longest.curves.places)
        width = max(20, self.query_one("#compare-pane", VerticalScroll).scrollable_content_region.width)
        self.query_one("#compare-text", Block).show(self._lines(width))

    def _lines(self, width: int) -> list[Content]:
        marks = glyphs()
        lines: list[Content] = []
        for place, one in enumerate(self.compared):
            told = one.summary
            best = number(told.best) if told.best is not None else marks.dash
            loss = number(told.loss) if told.loss is not None else marks.dash
            figures = f"  {told.state}  last loss {loss}  best {best}  {duration_words(told.seconds)}"
            alike = sum(other.summary.name == told.name for other in self.compared) > 1
            apart = f" {_stamp(told.run)}" if alike else ""
            room = max(10, width - len(figures) - 4)
            name = clip_middle(literal(told.name, 80), max(4, room - len(apart))) + apart
            lines.append(
                Content.assemble(
                    (f"{place + 1} {marks.line} ", f"bold {COLORS[place]}"),
                    (name, "$foreground"),
                    (figures, "$text-muted"),
                )
            )
        different = compare.differences(self.compared)
        label = 20
        cells = max(6, (width - label) // len(self.compared) - 1)
        heads = [(str(i + 1).ljust(cells + 1), f"bold {COLORS[i]}") for i in range(len(self.compared))]
        lines += [
            Content(""),
            Content.assemble(("Recipes".ljust(label), "bold $accent"), *(heads if different else [])),
        ]
        if not different:
            lines.append(Content.assemble(("They are the same, or cannot be read.", "$text-muted")))
        for one in different:
            values = [
                (clip(literal(value, 200), cells).ljust(cells + 1), COLORS[i])
                for i, value in enumerate(one.values)
            ]
            lines.append(Content.assemble((clip(one.title, label - 1).ljust(label), "$text-muted"), *values))
        first = self.compared[0].answers
        shared = [p for p in first if all(p in other.answers for other in self.compared)]
        lines += [Content(""), Content.assemble(("Answers", "bold $accent"))]
        if not shared:
            lines.append(Content.assemble(("They were not asked the same.", "$text-muted")))
        for prompt in shared[:6]:
            lines += hanging("", prompt, width, cells=0, most=2)
            for place, one in enumerate(self.compared):
                lines += hanging(f"{place + 1}", one.answers[prompt], width, COLORS[place], cells=3, most=4)
        return lines

    # ── Keys ──

    def action_chart(self) -> None:
        self.which = (self.which + 1) % len(CHARTS)
        self.paint()

    def action_axis(self) -> None:
        self.look.turn_axis()
        self.query_one(LineChart).looked()

    def action_log(self) -> None:
        self.look.turn_log()
        self.query_one(LineChart).looked()

    def action_zoom(self, factor: float) -> None:
        self.query_one(LineChart).zoom(factor)

    def action_cursor(self, by: int) -> None:
        self.query_one(LineChart).move(by)

    def action_whole(self) -> None:
        self.look.whole()
        self.query_one(LineChart).looked()


def _stamp(run: str) -> str:
    """What tells a run from others of its name: the start of its id, which is its time, and the number of one of several
    in that second."""
    number = re.search(r"-\d+$", run[15:])
    return run[:15] + (number[0] if number else "")
