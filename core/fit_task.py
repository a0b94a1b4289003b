"""The candidates that `fit` chooses from: every form of a recipe that learns the same, with its memory and its time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import memory, pace
from .lengths import Lengths
from .memory_parts import MIB, MemoryEstimate
from .memory_shape import Shape
from .model_facts import UNPACKED, ModelFacts
from .pace import Measured, Pace
from .recipe import Recipe
from .recipe_training import MOST_ACCUMULATED
from .system import Machine

PRECISION = "model.precision"
CHECKPOINTING = "lora.gradient_checkpointing"
PACKING = "training.packing"
BATCH = "training.batch_size"
ACCUMULATION = "training.gradient_accumulation_steps"

CHOSEN = (PRECISION, PACKING, BATCH, ACCUMULATION, CHECKPOINTING)
"""The fields that `fit` chooses, by path; any of them can be pinned."""

HEADROOM_SHARES = {"good": 0.05, "fair": 0.12, "low": 0.35}
"""Of the predicted memory, kept free beyond it: by how much predictions of that confidence may be below the truth."""

_HEADROOM_BYTES = 192 * MIB
_HOST_HEADROOM_SHARE = 0.15
_CPU_HEADROOM_SHARE = 0.25
"""On a CPU the prediction is coarser, and whatever else runs here needs room too."""

_FASTER = 0.97
"""Settings that save less than 3 % of the time are worth neither a change nor more memory."""

EFFECTIVE_SLACK = (0.7, 1.5)
"""By so much the rows behind an update may change where rows are packed, since sequences hold whole rows."""


@dataclass(frozen=True)
class Candidate:
    recipe: Recipe
    memory: MemoryEstimate
    pace: Pace


@dataclass(frozen=True)
class Task:
    """What one call of `fit` is about."""

    asked: Recipe
    shape: Shape
    facts: ModelFacts | None
    machine: Machine
    lengths: Lengths
    pinned: frozenset[str]
    measured: Measured | None

    @property
    def gpu(self) -> bool:
        return self.machine.has_gpu

    @property
    def rows_wanted(self) -> float:
        """Rows behind an update, as asked: with packing a sequence counts for the rows that it holds."""
        held = 1.0
        if self.asked.training.packing and self.gpu:
            held = self.lengths.rows_per_sequence(self.asked.model.max_length)
        return self.asked.effective_batch_size * held

    def estimate(self, recipe: Recipe) -> MemoryEstimate:
        longest = self.lengths.longest
        if not self.gpu:
            return memory.estimate_host(recipe, self.shape, longest_tokens=longest)
        card = self.machine.total_bytes
        return memory.estimate_shape(
            recipe, self.shape, card_bytes=card, longest_tokens=longest, facts=self.facts
        )

    def candidate(self, recipe: Recipe) -> Candidate:
        return Candidate(
            recipe,
            self.estimate(recipe),
            pace.predict(recipe, self.shape, self.machine, self.lengths, self.measured),
        )

    def headroom(self, found: MemoryEstimate) -> int:
        share = HEADROOM_SHARES[found.confidence] if self.gpu else _CPU_HEADROOM_SHARE
        return int(share * found.total_bytes) + _HEADROOM_BYTES

    def fits(self, found: MemoryEstimate) -> bool:
        if found.total_bytes + self.headroom(found) > self.machine.free_bytes:
            return False
        host = found.host_needed_bytes if self.gpu else 0
        return host * (1 + _HOST_HEADROOM_SHARE) <= self.machine.memory_available_bytes


def with_fields(recipe: Recipe, **values: Any) -> Recipe:
    """`recipe` with fields changed, each named by its last part."""
    sections = {
        "precision": "model",
        "gradient_checkpointing": "lora",
        "packing": "training",
        "batch_size": "training",
        "gradient_accumulation_steps": "training",
        "evaluation_batch_size": "training",
        "max_length": "model",
    }
    changed: dict[str, Any] = {}
    for name, value in values.items():
        section = sections[name]
        part = changed.get(section) or getattr(recipe, section)
        changed[section] = part.model_copy(update={name: value})
    return recipe.model_copy(update=changed)


def precisions(task: Task) -> tuple[str, ...]:
    asked = task.asked.model.precision
    if PRECISION in task.pinned or pace.trains_all(task.asked):
        return (asked,)
    if not task.gpu:
        return (asked,) if asked == "32bit" else ("16bit",)
    if task.facts is not None and task.facts.is_4bit:
        return ("4bit",)
    if asked not in ("16bit", "4bit"):
        return (asked, "4bit")
    return ("16bit", "4bit")


def _options(task: Task, path: str, asked: bool, *, possible: bool = True) -> tuple[bool, ...]:
    if path in task.pinned:
        return (asked,)
    return (False, True) if possible else (False,)


def _batches(task: Task, packing: bool) -> Iterator[tuple[int, int]]:
    """Pairs of micro-batch and accumulation with the rows behind an update that were asked for, pins respected.

    Where rows are packed that were not, or the other way round, their number changes a little.
    """
    asked = task.asked.training
    wanted = task.rows_wanted
    if packing:
        wanted /= task.lengths.rows_per_sequence(task.asked.model.max_length)
    whole = max(1, round(wanted))
    pairs = [(batch, whole // batch) for batch in range(1, min(whole, 1024) + 1) if whole % batch == 0]
    if BATCH in task.pinned:
        pairs = [(asked.batch_size, max(1, round(whole / asked.batch_size)))]
    if ACCUMULATION in task.pinned:
        batch = asked.batch_size if BATCH in task.pinned else whole / asked.gradient_accumulation_steps
        pairs = [(max(1, round(batch)), asked.gradient_accumulation_steps)]
    free = packing == asked.packing or (asked.packing and not task.gpu)
    for batch, accumulation in pairs:
        kept = EFFECTIVE_SLACK[0] <= batch * accumulation / wanted <= EFFECTIVE_SLACK[1]
        if (free or kept) and batch <= 1024 and accumulation <= MOST_ACCUMULATED:
            yield batch, accumulation


def candidates(task: Task, precision: str) -> Iterator[Candidate]:
    packable = task.gpu and task.shape.kind not in UNPACKED
    for packing in _options(task, PACKING, task.asked.training.packing, possible=packable):
        for checkpointing in _options(task, CHECKPOINTING, bool(task.asked.lora.gradient_checkpointing)):
            kept = task.asked.lora.gradient_checkpointing
            value = kept if bool(kept) == checkpointing else checkpointing
            for batch, accumulation in _batches(task, packing):
                yield task.candidate(
                    with_fields(
                        task.asked,
                        precision=precision,
                        packing=packing,
                        gradient_checkpointing=value,
                        batch_size=batch,
                        gradient_accumulation_steps=accumulation,
                    )
                )


def choose(task: Task) -> Candidate | None:
    """The fastest candidate that fits; of those that are about as fast, what was asked for, or else the one that takes the
    least memory."""
    for precision in precisions(task):
        found = [one for one in candidates(task, precision) if task.fits(one.memory)]
        if found:
            quickest = min(one.pace.seconds_per_row for one in found)
            near = [one for one in found if one.pace.seconds_per_row * _FASTER <= quickest]
            if any(one.recipe == task.asked for one in near):
                return task.candidate(task.asked)
            return min(near, key=lambda one: (one.memory.total_bytes, one.pace.seconds_per_row))
    return None


def value_of(recipe: Recipe, path: str) -> Any:
    section, name = path.split(".")
    return getattr(getattr(recipe, section), name)
