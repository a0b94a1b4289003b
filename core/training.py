"""The training step: how many steps a recipe takes, what they cover, and what cannot run here. `pace` has their time."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass

from .errors import FinetuiError
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


def warmup_steps(recipe: Recipe, steps: int) -> int:
    """Steps over which the rate rises, of `steps` in all."""
    return math.ceil(recipe.training.warmup_share * steps)


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


def problems(recipe: Recipe, machine: Machine) -> list[tuple[str, FinetuiError]]:
    """What this machine cannot do of `recipe`: pairs of the field's path and the error. Empty when it can start."""
    found: list[tuple[str, FinetuiError]] = []
    if not machine.has_gpu:
        if recipe.model.precision == "4bit":
            found.append(
                (
                    "model.precision",
                    FinetuiError(
                        "4-bit needs an NVIDIA GPU.",
                        "The 4-bit form (QLoRA) runs on kernels that only NVIDIA GPUs have, and none was found here.",
                        "Set Precision to 16bit, and take a smaller model if memory is short.",
                        code="precision-4bit",
                    ),
                )
            )
        if recipe.training.packing:
            found.append(
                (
                    "training.packing",
                    FinetuiError(
                        "Packing needs an NVIDIA GPU.",
                        "Unsloth does not pack on a CPU, and no GPU was found here.",
                        "Turn Packing off.",
                        code="packing-cpu",
                    ),
                )
            )
        if recipe.training.optimizer == "adamw_8bit":
            found.append(
                (
                    "training.optimizer",
                    FinetuiError(
                        "The 8-bit optimizer needs an NVIDIA GPU.",
                        "adamw_8bit runs on bitsandbytes' GPU kernels, and no GPU was found here.",
                        "Set Optimizer to adamw_torch.",
                        code="optimizer-8bit",
                    ),
                )
            )
    elif importlib.util.find_spec("bitsandbytes") is None:
        for path, wanted in (
            ("model.precision", recipe.model.precision == "4bit"),
            ("training.optimizer", recipe.training.optimizer == "adamw_8bit"),
        ):
            if wanted:
                error = FinetuiError(
                    "bitsandbytes is not installed.",
                    "4-bit weights and the 8-bit optimizer come from the package bitsandbytes; without it the model "
                    "would silently load in 16-bit.",
                    "Install it (pip install bitsandbytes), or take 16bit and adamw_torch.",
                    code="bitsandbytes-missing",
                )
                found.append((path, error))
    return found
