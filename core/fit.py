"""Chooses the settings that make a run the fastest that fits: precision, packing, micro-batch, accumulation, checkpointing.

What is learned stays what was asked for: the effective batch keeps its rows, so the loss is the same up to rounding (the
trainer averages over all learned tokens of an update, however they are divided into batches). Pure arithmetic, some
milliseconds; nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from . import refusals, training
from .errors import FinetuiError
from .fit_task import (
    ACCUMULATION,
    BATCH,
    CHECKPOINTING,
    CHOSEN,
    HEADROOM_SHARES,
    PACKING,
    PRECISION,
    Task,
    choose,
)
from .fit_words import Choice, choices, nothing_fits, remarks
from .lengths import Lengths
from .memory_parts import MemoryEstimate
from .memory_shape import Shape, from_facts
from .model_facts import ModelFacts
from .pace import Measured, Pace
from .recipe import Recipe
from .system import Gpu, Machine

__all__ = [
    "ACCUMULATION",
    "BATCH",
    "CHECKPOINTING",
    "CHOSEN",
    "HEADROOM_SHARES",
    "PACKING",
    "PRECISION",
    "Choice",
    "Fit",
    "fit",
    "for_card",
]


@dataclass(frozen=True)
class Fit:
    """The settings chosen for a machine, with what they take, and what the settings before would have taken."""

    recipe: Recipe
    choices: tuple[Choice, ...]
    memory: MemoryEstimate
    pace: Pace
    memory_before: MemoryEstimate
    pace_before: Pace
    free_bytes: int
    """Memory that a run may take: the GPU's, or the host's where there is none."""
    headroom_bytes: int
    """Kept free beyond the prediction."""
    on_gpu: bool
    threads: int
    """Of the processor: as many as this process may use."""
    fitted_before: bool
    remarks: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[tuple[str, Any], ...]:
        """(path, value) of the fields that differ from what was asked."""
        return tuple((choice.path, choice.value) for choice in self.choices if choice.changed)

    def choice(self, path: str) -> Choice | None:
        """The choice for the field at `path`; None where `fit` has no say in it."""
        return next((choice for choice in self.choices if choice.path == path), None)

    @property
    def speedup(self) -> float:
        """How many times faster a row is trained than before; 1 where nothing changes."""
        return self.pace_before.seconds_per_row / max(self.pace.seconds_per_row, 1e-9)


def for_card(machine: Machine, card_bytes: int) -> Machine:
    """`machine` with one empty card of `card_bytes` in place of its own, of the same make; and with host memory to spare."""
    gpu = machine.gpus[0] if machine.gpus else Gpu(0, "")
    card = replace(gpu, total_bytes=card_bytes, used_bytes=0, driver_bytes=0)
    host = max(machine.memory_available_bytes, 1 << 40)
    return replace(machine, gpus=(card,), memory_available_bytes=host)


def fit(
    recipe: Recipe,
    model: ModelFacts | Shape,
    machine: Machine,
    lengths: Lengths | None = None,
    pinned: Collection[str] = (),
    *,
    measured: Measured | None = None,
    facts: ModelFacts | None = None,
) -> Fit:
    """The fastest settings of `recipe` that fit in the free memory of `machine`.

    `lengths` are those of the training rows; without them every row is taken to fill the sequence length. `pinned` holds
    paths out of `CHOSEN` whose values stay. `measured` corrects the time by what a probe found. `facts` say more of a model
    that is given as its shape.

    16-bit is kept wherever it fits, since it is exact; 4-bit is chosen where nothing else fits.

    Raises FinetuiError: fit-none where nothing fits (it names the nearest way), fit-shape where the model's shape is not
    known, usage for a pinned path that is none, and what `training.problems` and `refusals.of_model` say of a pinned value.
    """
    facts = model if isinstance(model, ModelFacts) else facts
    shape = from_facts(model) if isinstance(model, ModelFacts) else model
    if shape is None:
        raise FinetuiError(
            "Nothing can be chosen for this model.",
            "Its shape is not known, so neither its memory nor its time can be predicted.",
            "Set batch size, precision and checkpointing yourself; the probe before training shows what they take.",
            code="fit-shape",
        )
    for path in pinned:
        if path not in CHOSEN:
            raise FinetuiError(
                f"{path} cannot be pinned.",
                "It is no field that is chosen.",
                "These are: " + ", ".join(CHOSEN) + ".",
                code="usage",
            )
    known = lengths or Lengths.full(recipe.model.max_length)
    task = Task(recipe, shape, facts, machine, known, frozenset(pinned), measured)
    _refuse_pinned(task)
    chosen = choose(task)
    if chosen is None:
        raise nothing_fits(task)
    before = task.candidate(recipe)
    return Fit(
        recipe=chosen.recipe,
        choices=choices(task, chosen),
        memory=chosen.memory,
        pace=chosen.pace,
        memory_before=before.memory,
        pace_before=before.pace,
        free_bytes=machine.free_bytes,
        headroom_bytes=task.headroom(chosen.memory),
        on_gpu=task.gpu,
        threads=max(1, machine.cores),
        fitted_before=task.fits(before.memory),
        remarks=remarks(task, chosen),
    )


def _refuse_pinned(task: Task) -> None:
    found = training.problems(task.asked, task.machine)
    if task.facts is not None:
        found += refusals.of_model(task.asked, task.facts)
    for path, error in found:
        if path in task.pinned and error.code != "bitsandbytes-missing":
            raise error
