"""The training step: the form before a run starts, and what the run will do."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from ...core import export_budget
from ...core.errors import FinetuiError
from ...core.export import FORMATS
from ...core.text import counted
from ..theme import glyphs
from ..widgets.text import literal
from .settings import SettingsScreen


class TrainingScreen(SettingsScreen):
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

    def compose_after(self) -> ComposeResult:
        yield Static(id="plan", markup=False)

    def notes(self) -> dict[str, str]:
        plan, recipe = self.wizard.plan(), self.wizard.recipe()
        notes: dict[str, str] = {}
        if plan is not None:
            notes["training.epochs"] = f"{counted(plan.steps, 'step')} over {counted(plan.rows, 'row')}"
            notes["training.max_steps"] = plan.words
        if recipe is not None:
            notes["training.gradient_accumulation_steps"] = f"effective batch {recipe.effective_batch_size}"
        return notes

    def trouble(self) -> FinetuiError | None:
        """What this machine cannot do of the recipe, besides what the step itself has."""
        return super().trouble() or next(iter(self.wizard.refused().values()), None)

    def refresh_facts(self) -> None:
        super().refresh_facts()
        marks, trouble = glyphs(), self.trouble()
        plan, recipe = self.wizard.plan(), self.wizard.recipe()
        parts: list[Content] = []
        if trouble is not None:
            parts.append(
                Content.assemble(
                    (f"{marks.cross} {literal(trouble.what)} ", "bold $text-error"), literal(trouble.why)
                )
            )
            if trouble.fix:
                parts.append(Content.assemble((f"{marks.right} ", "bold $accent"), literal(trouble.fix)))
        elif plan is not None and recipe is not None:
            parts.append(Content.assemble((literal(plan.words), "bold $foreground")))
            every, save = recipe.training.evaluate_every_steps, recipe.training.save_every_steps
            doing = []
            if 0 < every < plan.steps:
                doing.append(f"checks on held-out rows every {every:,} steps")
            elif recipe.dataset.holds_out:
                doing.append("checks on held-out rows at the end")
            if save:
                doing.append(f"saves every {save:,}")
            formats = ", ".join(FORMATS[f].title for f in recipe.export.formats)
            doing.append(f"then exports {formats}" if formats else "then ends")
            words = f" {marks.middot} ".join(doing)
            parts.append(Content.assemble((literal(words[0].upper() + words[1:] + "."), "$text-muted")))
            if warning := self._memory_warning():
                parts.append(
                    Content.assemble(
                        (f"{marks.warn} ", "bold $warning"), (literal(warning, 400), "$text-warning")
                    )
                )
        self.query_one("#plan", Static).update(Content("\n").join(parts))

    def _memory_warning(self) -> str:
        """A sentence where the exports would not find enough memory as it is now; nothing where they would, or nobody knows."""
        recipe, machine = self.wizard.recipe(), self.wizard.machine
        facts = None if self.wizard.model_busy else self.wizard.model_facts
        if recipe is None or machine is None or facts is None:
            return ""
        return export_budget.memory_before_training(recipe, machine, facts)

    def proceed(self) -> None:
        self.finetui.start_run()
