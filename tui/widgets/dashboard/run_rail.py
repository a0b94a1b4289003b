"""The rail beside a run: what was chosen for it, and what came of it."""

from __future__ import annotations

from ....core.draft import Draft
from ....core.recipe import STEPS
from ....core.runs.state import RunStatus
from ....core.text import counted
from ...theme import glyphs
from ...wizard import STEP_NAMES, Wizard
from ..rail import StepRail
from .background import Known
from .story import Story


class RunRail(StepRail, can_focus=False):
    """The five steps of one run."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__([(step, STEP_NAMES[step]) for step in STEPS], current="training", id=id)
        self._choices: Wizard | None = None
        self._shown: object = None

    def show_run(self, known: Known, story: Story, status: RunStatus | None) -> None:
        """The run's own choices, once its recipe is known; the result beside Export."""
        recipe, middot = known.recipe, glyphs().middot
        if recipe is None:
            return
        rows = story.dataset.rows if story.dataset is not None else None
        key = (known, rows, status and (status.total_steps, status.live, status.trained), len(story.exports))
        if key == self._shown:
            return
        self._shown = key
        if self._choices is None:
            self._choices = Wizard(draft=Draft(recipe), model_facts=known.facts)
        for step in STEPS:
            self.set_summary(step, self._choices.summary(step))
            self.set_state(step, "done" if step in ("model", "dataset", "lora") else "todo")
        if story.dataset is not None:
            words = f"{self._choices.summary('dataset')} {middot} {story.dataset.rows:,}"
            self.set_summary("dataset", words)
        total = status.total_steps if status else 0
        words = [counted(total, "step")] if total else []
        if not total or total != recipe.training.max_steps:
            words.append(counted(recipe.training.epochs, "epoch"))
        self.set_summary("training", f" {middot} ".join(words))
        if status is not None and not status.live and status.trained:
            self.set_state("training", "done")
            self.set_state("export", "done" if story.exports else "todo")
