"""The keys of the dashboard that look along the curve: chart, axis, zoom, cursor, samples, and what the coach proposes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.binding import Binding

from ...core.coach_seen import Advice
from ...core.recipe import Recipe
from ...core.runs import best
from ..modals.confirm import ConfirmModal
from ..widgets.chart import LineChart
from ..widgets.dashboard.advising import Counsel
from ..widgets.dashboard.charts import Charts

CHART_BINDINGS = (
    Binding(
        "c", "chart", "Chart", id="run.chart", tooltip="Loss, learning rate, gradient norm, speed in turn"
    ),
    Binding("x", "axis", "Count along in steps, tokens, time, epochs", show=False, id="run.axis"),
    Binding("l", "log", "Linear or logarithmic", show=False, id="run.log"),
    Binding("plus,equals_sign", "zoom(0.5)", "Look closer", key_display="+", show=False, id="run.zoom-in"),
    Binding("minus", "zoom(2.0)", "From further away", key_display="-", show=False, id="run.zoom-out"),
    Binding("0", "whole", "All of the curve, no cursor", show=False, id="run.whole"),
    Binding("shift+left", "pan(-0.25)", "Move the view back", show=False, id="run.pan-back"),
    Binding("shift+right", "pan(0.25)", "Move the view on", show=False, id="run.pan-on"),
    Binding("comma", "cursor(-1)", "Cursor back", key_display=",", show=False, id="run.cursor-back"),
    Binding("full_stop", "cursor(1)", "Cursor on", key_display=".", show=False, id="run.cursor-on"),
)


if TYPE_CHECKING:
    from .following import FollowingScreen as _Base
else:
    _Base = object


class ChartKeys(_Base):
    """What the keys in `CHART_BINDINGS` do, on a screen that follows a run and has `Charts`."""

    tab: str
    prompt_at: int
    answers_back: int

    @property
    def _chart(self) -> LineChart | None:
        return self.query_one(Charts).chart

    def _looked(self) -> None:
        for chart in self.query_one(Charts).charts:
            if chart is self._chart:
                chart.looked()

    def action_chart(self) -> None:
        self.query_one(Charts).turn()
        self.paint()

    def action_axis(self) -> None:
        self.query_one(Charts).look.turn_axis()
        self._looked()

    def action_log(self) -> None:
        self.query_one(Charts).look.turn_log()
        self._looked()

    def action_whole(self) -> None:
        self.query_one(Charts).look.whole()
        self._looked()

    def action_zoom(self, factor: float) -> None:
        if self._chart is not None:
            self._chart.zoom(factor)

    def action_pan(self, share: float) -> None:
        if self._chart is not None:
            self._chart.pan(share)

    def action_cursor(self, by: int) -> None:
        """Moves the cursor; the samples follow it."""
        chart = self._chart
        if chart is None:
            return
        chart.move(by)
        at, later = chart.look.cursor, self._answered()
        if at is not None and later:
            self.answers_back = sum(1 for step in later if step > at)
            self.paint()

    # ── Samples along the curve ──

    def _answered(self) -> list[int]:
        """The steps after which the prompt in sight was answered."""
        prompts = self.story.prompts()
        if not prompts:
            return []
        asked = self.story.asked[prompts[self.prompt_at % len(prompts)]]
        return [step for step in sorted(asked.answers) if step > 0]

    def action_turn(self, by: int) -> None:
        """Back and on along the curve: the samples of another step, the cursor with them; elsewhere the cursor alone."""
        if self.tab == "Result":
            super().action_turn(by)
            return
        later = self._answered()
        if self.tab != "Samples" or not later:
            self.action_cursor(by)
            return
        self.answers_back = max(0, min(len(later) - 1, self.answers_back - by))
        look = self.query_one(Charts).look
        look.place(None if self.answers_back == 0 else float(later[len(later) - 1 - self.answers_back]))
        self._looked()
        self.paint()

    # ── The coach ──

    counsel: Counsel

    def coached(self) -> list[Advice]:
        """What the coach finds."""
        return self.counsel.of(self.story, self.known.recipe, self.live)

    def action_advice(self) -> None:
        """Does what the first finding proposes; asks first where that ends or replaces something."""
        found = next(iter(self.coached()), None)
        action = found.action if found is not None else None
        if action is None:
            self.app.bell()
        elif action.act == "stop" and self.live:
            self._stop_run()
        elif action.act == "best" and not self.live:
            self._go_back(action.step)
        elif action.act == "duplicate" and self.known.recipe is not None:
            self._open_changed(changed(self.known.recipe, action.changes))

    def _go_back(self, step: int) -> None:
        def answered(answer: str | None) -> None:
            if answer == "back":
                self.finetui.in_background(
                    f"best {self.run.id}", lambda: best.go_back(self.run, step), self.say
                )

        question = (
            f"The weights of step {step:,} become those that this run exports, talks with and hands on. "
            "The last ones are kept beside them, and training goes on from there; what was exported before stays as it is."
        )
        answers = [("back", f"Go back to step {step:,}"), ("cancel", "Leave it as it is")]
        self.app.push_screen(ConfirmModal("Go back?", question, answers), answered)

    def _stop_run(self) -> None:
        raise NotImplementedError

    def _open_changed(self, recipe: Recipe) -> None:
        raise NotImplementedError


def changed(recipe: Recipe, changes: tuple[tuple[str, Any], ...]) -> Recipe:
    """`recipe` with other values in some fields."""
    values = recipe.model_dump()
    for path, value in changes:
        section, name = path.split(".")
        values[section][name] = value
    return Recipe.model_validate(values)
