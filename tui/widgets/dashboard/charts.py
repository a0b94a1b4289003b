"""The charts of a run, one in sight; until its first step, the way there."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import ContentSwitcher

from ....core.runs.state import RunStatus
from ..chart import Line, LineChart, Look
from . import panes
from .block import Block
from .story import STAGES, Story, rate

EMPTY = "the first step is being worked on"
BEFORE_TRAINING = ("start", "load", "dataset", "tokenize", "baseline", "train")


def way(status: RunStatus) -> tuple[str, ...]:
    """The stages up to the first step of this run, or up to its export."""
    now = status.stage
    if status.job in ("export", "verify"):
        return ("start", "load", "export")
    stages = [stage for stage in BEFORE_TRAINING if stage != "baseline" or status.job != "resume"]
    if now == "queue":
        stages.insert(0, "queue")
    if now == "download":
        stages.insert(1, "download")
    if now == "tools":
        stages.insert(stages.index("tokenize") + 1, "tools")
    elif now == "sample" and "baseline" in stages:
        stages[stages.index("baseline")] = "sample"
    elif now not in stages and now in STAGES:
        stages.insert(len(stages) - 1, now)
    return tuple(stages)


class Charts(ContentSwitcher):
    """Loss, learning rate, gradient norm and speed, looked at alike."""

    def __init__(self, *, id: str | None = None) -> None:
        self.look = Look()
        self.stages = Block(id="stages")
        self.loss = LineChart("Loss", self.look, EMPTY, id="loss")
        self.rate = LineChart("Learning rate", self.look, EMPTY, id="rate")
        self.norm = LineChart("Gradient norm", self.look, EMPTY, id="norm")
        self.speed = LineChart("Tokens a second", self.look, EMPTY, id="speed")
        self.charts = (self.loss, self.rate, self.norm, self.speed)
        super().__init__(self.stages, *self.charts, initial="stages", id=id)

    @property
    def chart(self) -> LineChart | None:
        """The chart in sight."""
        return next((chart for chart in self.charts if chart.id == self.current), None)

    def extend(self, story: Story, history: float | None) -> None:
        """Shows what `story` has in the chart in sight. `history`: how much of a long run's beginning was read."""
        curves = story.curves
        if not curves.steps:
            return
        total = story.step.total_steps if story.step else 0
        notes: list[tuple[str, str]] = []
        if history is not None:
            notes.append(("reading", f"{100 * history:.0f} %"))
        if curves.best is not None and curves.evaluations.total > 1:
            notes.append(("best", f"{curves.best[1]:.3f} at {curves.best[0]:,.0f}"))
        notes.append(("rate", rate(curves.rate.last)))
        lines = {
            "loss": [
                Line("train", curves.loss, style="smoothed", average=curves.average),
                Line("evaluation", curves.evaluations, "$success", "points", mark_lowest=True),
            ],
            "rate": [Line("rate", curves.rate)],
            "norm": [Line("norm", curves.norm)],
            "speed": [Line("trained", curves.speed)],
        }
        for chart in self.charts:
            if chart.id == self.current:
                shown = notes if chart is self.loss else notes[:1] if history is not None else []
                chart.show(lines[chart.id or "loss"], curves.places, total, shown)

    def show(self, story: Story, status: RunStatus | None) -> None:
        """The chart that was chosen, or the way to the first step while there is none."""
        if story.curves.steps:
            if self.current == "stages":
                self.current = "loss"
            return
        self.current = "stages"
        if status is None:
            self.stages.show([Content.assemble(("Opening the run", "$text-muted"))])
        elif status.live:
            box = self.content_size
            self.stages.show(panes.stages(way(status), status, max(20, box.width), max(3, box.height)))
        else:
            self.stages.show([Content.assemble(("It ended before its first step.", "$text-muted"))])

    def turn(self) -> None:
        """Brings the next chart to the front, once there are any."""
        names = [chart.id for chart in self.charts]
        if self.current in names:
            self.current = names[(names.index(self.current) + 1) % len(names)]
