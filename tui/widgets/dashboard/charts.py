"""The charts of a run, one in sight; until its first step, the way there."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import ContentSwitcher

from ....core.runs.state import RunStatus
from ..chart import LineChart
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
    if now == "download":
        stages.insert(1, "download")
    if now == "sample" and "baseline" in stages:
        stages[stages.index("baseline")] = "sample"
    elif now not in stages and now in STAGES:
        stages.insert(len(stages) - 1, now)
    return tuple(stages)


class Charts(ContentSwitcher):
    """Loss, learning rate and gradient norm. Draws only the points that it does not have yet."""

    def __init__(self, *, id: str | None = None) -> None:
        self.stages = Block(id="stages")
        self.loss = LineChart("Loss", empty=EMPTY, id="loss")
        self.rate = LineChart("Learning rate", empty=EMPTY, id="rate")
        self.norm = LineChart("Gradient norm", empty=EMPTY, id="norm")
        self.charts = (self.loss, self.rate, self.norm)
        super().__init__(self.stages, *self.charts, initial="stages", id=id)
        self._steps = 0
        self._evaluations = 0

    def on_mount(self) -> None:
        self.loss.add_series("train", "$accent", style="smoothed", faint="$accent-muted")
        self.loss.add_series("evaluation", "$success", style="points")
        self.rate.add_series("rate", "$accent")
        self.norm.add_series("norm", "$accent", style="smoothed", faint="$accent-muted")

    def extend(self, story: Story) -> None:
        """Draws the points that are new in `story`, or all of them where history was rewritten."""
        curves, at, rewritten = story.curves, self._steps, story.rewritten
        if rewritten:
            story.rewritten = False
            at = self._evaluations = 0
            for chart in self.charts:
                chart.clear()
        if len(curves.steps) > at:
            steps = curves.steps[at:]
            norms = zip(steps, curves.norms[at:], strict=True)
            self.loss.extend("train", zip(steps, curves.losses[at:], strict=True))
            self.rate.extend("rate", zip(steps, curves.rates[at:], strict=True))
            self.norm.extend("norm", ((step, norm) for step, norm in norms if norm == norm))
            self.loss.set_notes([("rate", rate(curves.rates[-1]))])
            total = story.step.total_steps if story.step else 0
            for chart in self.charts:
                chart.set_x_max(total if total > 0 else None)
        if rewritten or len(curves.evaluations) > self._evaluations:
            self.loss.extend("evaluation", curves.evaluations[self._evaluations :])
        self._steps, self._evaluations = len(curves.steps), len(curves.evaluations)

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
