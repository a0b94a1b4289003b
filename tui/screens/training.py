"""The training step: the form before a run starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from ...core.runs.store import RunFolder
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.text import literal
from .step import StepScreen

if TYPE_CHECKING:
    from ..app import FinetuiApp


class TrainingScreen(StepScreen):
    """How long, how fast, how many rows at once; Continue starts the run."""

    step = "training"
    tagline = "how the adapter learns"
    basic = (
        "training.epochs",
        "training.batch_size",
        "training.gradient_accumulation_steps",
        "training.learning_rate",
        "name",
    )
    continue_label = "Start training"
    enter_words = "Enter starts"

    def notes(self) -> dict[str, str]:
        plan, recipe = self.wizard.plan(), self.wizard.recipe()
        notes: dict[str, str] = {}
        if plan is not None:
            notes["training.epochs"] = f"{plan.steps:,} steps over {plan.rows:,} rows"
        if recipe is not None:
            notes["training.gradient_accumulation_steps"] = f"effective batch {recipe.effective_batch_size}"
        return notes

    def proceed(self) -> None:
        self.finetui.start_run()


class RunScreen(Screen[None]):
    """Follows one run."""

    step = "training"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "home", "Home", id="run.home")]

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self.run = run

    def compose(self) -> ComposeResult:
        yield Header()
        yield Static(Content(f"Run {literal(self.run.id)}"), id="run-state", markup=False)
        yield Footer()

    def action_home(self) -> None:
        cast("FinetuiApp", self.app).go_home()
