"""The training step: how many steps a recipe takes, what they cover, and what cannot run here. `pace` has their time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import export_budget, refusals, refusals_export
from .errors import FinetuiError
from .model_facts import ModelFacts
from .recipe import Recipe
from .system import Machine


@dataclass(frozen=True)
class Plan:
    """What a recipe means for a number of rows."""

    rows: int
    steps: int
    rows_seen: int
    warmup_steps: int

    @property
    def share(self) -> float:
        """How many times the rows are seen: 1.0 is one epoch."""
        return self.rows_seen / self.rows if self.rows else 0.0

    @property
    def words(self) -> str:
        """`30 steps = 240 rows = 0.5 % of your data`."""
        part = f"{self.share:.1%}".replace("%", " %") if self.share < 0.995 else f"{self.share:.3g} ×"
        return f"{self.steps:,} steps = {self.rows_seen:,} rows = {part}{' of' if self.share < 0.995 else ''} your data"


def smaller_batch(rows: int) -> int:
    """The largest divisor of `rows` that is at most half of it, so that the parts of a batch are equal; 1 stays 1."""
    return next((size for size in range(rows // 2, 0, -1) if rows % size == 0), 1)


def warmup_steps(recipe: Recipe, steps: int) -> int:
    """Steps over which the rate rises, of `steps` in all."""
    training = recipe.training
    if training.schedule == "constant":
        return 0
    return (
        math.ceil(training.warmup_share * steps) if training.warmup_steps is None else training.warmup_steps
    )


def plan(recipe: Recipe, rows: int) -> Plan:
    """The steps that the trainer will take over `rows` training rows (counted as transformers' Trainer counts them: a last
    batch or accumulation that is not full is a step too)."""
    training = recipe.training
    batches = math.ceil(rows / training.batch_size)
    per_epoch = max(1, math.ceil(batches / training.gradient_accumulation_steps)) if rows else 0
    steps = math.ceil(training.epochs * per_epoch)
    if training.max_steps is not None:
        steps = min(steps, training.max_steps)
    whole, rest = divmod(steps, per_epoch) if per_epoch else (0, 0)
    seen = whole * rows + min(rows, rest * recipe.effective_batch_size)
    return Plan(rows, steps, seen, warmup_steps(recipe, steps))


def problems(
    recipe: Recipe,
    machine: Machine,
    facts: ModelFacts | None = None,
    rows: int | None = None,
    evaluation_rows: int | None = None,
) -> list[tuple[str, FinetuiError]]:
    """What cannot be done of `recipe`: pairs of the field's path and the error. Empty when it can start.

    What is known of the model (`facts`) and of the rows (trained on; held out) is looked at too.
    """
    found = [*refusals.of_machine(recipe, machine), *refusals.of_settings(recipe)]
    found += [("export.formats", error) for error in refusals_export.of_export(recipe, machine, facts)]
    if facts is not None:
        found += refusals.of_model(recipe, facts)
        found += export_budget.before_training(recipe, machine, facts)
    if rows is not None:
        steps = plan(recipe, rows).steps
        found += refusals.of_rows(recipe, rows, steps, warmup_steps(recipe, steps), evaluation_rows)
    return found
