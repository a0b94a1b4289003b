"""Why each setting was chosen, in words; and the nearest way where nothing fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from . import model_fit, pace
from .errors import FinetuiError
from .fit_task import (
    ACCUMULATION,
    BATCH,
    CHECKPOINTING,
    CHOSEN,
    EFFECTIVE_SLACK,
    PACKING,
    PRECISION,
    Candidate,
    Task,
    candidates,
    choose,
    precisions,
    value_of,
    with_fields,
)
from .memory_parts import GIB, MIB, MemoryEstimate
from .memory_shape import from_facts
from .model_facts import UNPACKED
from .recipe import Recipe
from .text import bytes_words, count_words, duration_words

_LENGTHS = (
    131_072,
    65_536,
    32_768,
    16_384,
    8192,
    6144,
    4096,
    3072,
    2048,
    1536,
    1024,
    768,
    512,
    384,
    256,
    128,
)
_SIZES = (70_000, 32_000, 14_000, 8000, 4000, 3000, 1700, 1000, 600, 360, 135)
"""Sizes of models that exist, in million weights."""


@dataclass(frozen=True)
class Choice:
    """One field: what it becomes, and why. `seconds` and `bytes` are what the new value costs against `before`, with all
    other fields as chosen; negative is saved."""

    path: str
    value: Any
    before: Any
    because: str
    """`fits in 16 bit: 9.1 of 22.8 GiB`, to be read after “chosen because” or on its own."""
    pinned: bool = False
    seconds: float = 0.0
    bytes: int = 0

    @property
    def changed(self) -> bool:
        return self.value != self.before

    @property
    def costs(self) -> str:
        """`saves 12 min, takes 1.2 GiB more`; empty where nothing changes."""
        if not self.changed:
            return ""
        words = []
        if abs(self.seconds) >= 1:
            words.append(f"{'saves' if self.seconds < 0 else 'costs'} {duration_words(abs(self.seconds))}")
        if abs(self.bytes) >= 16 * MIB:
            words.append(
                f"takes {bytes_words(abs(self.bytes))} {'less' if self.bytes < 0 else 'more'} memory"
            )
        return ", ".join(words)


def _room(task: Task, found: MemoryEstimate) -> str:
    return f"{found.total_bytes / GIB:.1f} of {task.machine.free_bytes / GIB:.1f} GiB"


def choices(task: Task, chosen: Candidate) -> tuple[Choice, ...]:
    reasons: dict[str, Callable[[Task, Candidate], str]] = {
        PRECISION: _precision_reason,
        PACKING: _packing_reason,
        BATCH: _batch_reason,
        ACCUMULATION: _accumulation_reason,
        CHECKPOINTING: _checkpointing_reason,
    }
    made = []
    for path in CHOSEN:
        value, before = value_of(chosen.recipe, path), value_of(task.asked, path)
        pinned = path in task.pinned
        because = "you pinned it" if pinned else reasons[path](task, chosen)
        seconds, extra = 0.0, 0
        if value != before and path != ACCUMULATION:
            other = _undone(task, chosen, path)
            if other is not None:
                rows = task.lengths.rows or 0
                epochs = (
                    min(task.asked.training.epochs, chosen.pace.steps * chosen.pace.rows_per_step / rows)
                    if rows
                    else 0
                )
                seconds = (chosen.pace.seconds_per_row - other.pace.seconds_per_row) * rows * epochs
                extra = chosen.memory.total_bytes - other.memory.total_bytes
        made.append(Choice(path, value, before, because, pinned, seconds, extra))
    return tuple(made)


def _undone(task: Task, chosen: Candidate, path: str) -> Candidate | None:
    """`chosen` with one field as it was asked for; micro-batch and accumulation go together."""
    name = path.rpartition(".")[2]
    values: dict[str, Any] = {name: value_of(task.asked, path)}
    if path == BATCH:
        values["gradient_accumulation_steps"] = task.asked.training.gradient_accumulation_steps
        if chosen.recipe.training.packing != task.asked.training.packing:
            return None
    if path == PACKING:
        wanted = task.asked.training
        values |= {
            "batch_size": wanted.batch_size,
            "gradient_accumulation_steps": wanted.gradient_accumulation_steps,
        }
    return task.candidate(with_fields(chosen.recipe, **values))


def _precision_reason(task: Task, chosen: Candidate) -> str:
    value = chosen.recipe.model.precision
    if pace.trains_all(task.asked):
        return "every weight is trained, and its precision is part of what is learned"
    if not task.gpu:
        return "a CPU trains in 16 bit only"
    if task.facts is not None and task.facts.is_4bit:
        return "the model is stored in 4 bit"
    if value != "4bit":
        return f"it fits ({_room(task, chosen.memory)}), is exact, and is a little faster than 4 bit"
    smallest = min((c.memory.total_bytes for c in candidates(task, "16bit")), default=0)
    return (
        f"in 16 bit even the smallest batch takes {smallest / GIB:.1f} GiB, and {task.machine.free_bytes / GIB:.1f} GiB "
        "are free"
    )


def _checkpointing_reason(task: Task, chosen: Candidate) -> str:
    on = bool(chosen.recipe.lora.gradient_checkpointing)
    other = task.candidate(with_fields(chosen.recipe, gradient_checkpointing=not on))
    slower = abs(1 - chosen.pace.seconds_per_row / other.pace.seconds_per_row)
    memory_words = bytes_words(abs(other.memory.total_bytes - chosen.memory.total_bytes))
    if not on:
        return f"what it would save ({memory_words}) is free, and recomputing would cost {slower:.0%} of the time".replace(
            "%", " %"
        )
    if not task.fits(other.memory):
        return f"without it a batch of this size takes {memory_words} more, which is not free"
    return f"it saves {memory_words}, which lets a larger batch fit"


def _packing_reason(task: Task, chosen: Candidate) -> str:
    training, lengths = chosen.recipe.training, task.lengths
    if not task.gpu:
        return "Unsloth packs only on a GPU"
    held = lengths.rows_per_sequence(chosen.recipe.model.max_length)
    if training.packing:
        return f"rows have {lengths.mean:,.0f} tokens on average, so that a sequence holds about {held:.3g} of them"
    if task.shape.kind in UNPACKED:
        return "Unsloth does not pack for this family"
    wanted = task.rows_wanted
    if held > EFFECTIVE_SLACK[1] * wanted:
        return (
            f"one packed sequence would hold {held:,.0f} rows, and an update is to have {wanted:,.0f}: raise the effective "
            "batch, or shorten the sequence, to pack"
        )
    if held < 1.5:
        return (
            "rows fill the sequence as they are" if lengths.measured else "how long the rows are is not known"
        )
    return "packing would not be faster here"


def _batch_reason(task: Task, chosen: Candidate) -> str:
    training = chosen.recipe.training
    unit = "sequences" if training.packing else "rows"
    if chosen.recipe.effective_batch_size == 1:
        return f"an update is one {unit[:-1]}"
    larger = [
        one
        for one in candidates(_pinned_but_batch(task, chosen), chosen.recipe.model.precision)
        if one.recipe.training.batch_size > training.batch_size
    ]
    if not larger:
        return f"all {unit} of an update fit side by side ({_room(task, chosen.memory)})"
    next_one = min(larger, key=lambda one: one.recipe.training.batch_size)
    size = next_one.recipe.training.batch_size
    if not task.fits(next_one.memory):
        return f"{size} {unit} at once would take {next_one.memory.total_bytes / GIB:.1f} of {task.machine.free_bytes / GIB:.1f} GiB, headroom not counted"
    if next_one.pace.padding_share > chosen.pace.padding_share + 0.02:
        return (
            f"{size} rows at once would be padded to the longest: {next_one.pace.padding_share:.0%} of the work for "
            f"nothing, in place of {chosen.pace.padding_share:.0%}"
        ).replace("%", " %")
    return "more at once would not be faster here"


def _pinned_but_batch(task: Task, chosen: Candidate) -> Task:
    """`task` with everything but the division of the batch as chosen. What was asked decides the rows of an update."""
    asked = with_fields(
        task.asked,
        gradient_checkpointing=chosen.recipe.lora.gradient_checkpointing,
        packing=chosen.recipe.training.packing,
        batch_size=chosen.recipe.training.batch_size,
        gradient_accumulation_steps=chosen.recipe.training.gradient_accumulation_steps,
    )
    return replace(task, asked=asked, pinned=frozenset({CHECKPOINTING, PACKING, PRECISION}))


def _accumulation_reason(task: Task, chosen: Candidate) -> str:
    training = chosen.recipe.training
    unit = "sequences" if training.packing else "rows"
    unit = unit[:-1] if chosen.recipe.effective_batch_size == 1 else unit
    product = f"{training.batch_size} × {training.gradient_accumulation_steps} = {chosen.recipe.effective_batch_size}"
    if training.packing and not task.asked.training.packing:
        return (
            f"{product} {unit} for about {chosen.pace.rows_per_step:.3g} rows an update, near the "
            f"{task.rows_wanted:.3g} that you asked for"
        )
    return f"{product} {unit} an update, as you asked"


def remarks(task: Task, chosen: Candidate) -> tuple[str, ...]:
    said = list(chosen.memory.remarks)
    if not task.lengths.measured:
        said.append("The rows' lengths are not counted yet; they are taken to be longer than they may be.")
    return tuple(said)


def nothing_fits(task: Task) -> FinetuiError:
    smallest = _smallest(task)
    free = task.machine.free_bytes
    title = task.facts.title if task.facts is not None and task.facts.title else "The model"
    where = "GPU" if task.gpu else "host"
    largest = max(smallest.memory.parts, key=lambda part: part.bytes)
    taken = smallest.memory.total_bytes + task.headroom(smallest.memory)
    ways = _ways(task)
    return FinetuiError(
        f"{title} does not fit in {free / GIB:.1f} GiB of {where} memory.",
        f"The smallest settings ({_form(smallest.recipe)}) take {taken / GIB:.1f} GiB with headroom, of which {largest.name} "
        f"{largest.bytes / GIB:.1f}.",
        ways or "Use a machine with more memory.",
        code="fit-none",
    )


def _smallest(task: Task) -> Candidate:
    found = [one for precision in precisions(task) for one in candidates(task, precision)]
    return min(found or [task.candidate(task.asked)], key=lambda one: one.memory.total_bytes)


def _form(recipe: Recipe) -> str:
    bits = {"4bit": "4 bit", "8bit": "8 bit", "16bit": "16 bit"}.get(
        recipe.model.precision, recipe.model.precision
    )
    rows = "1 row" if recipe.training.batch_size == 1 else f"{recipe.training.batch_size} rows"
    return f"{bits}, {rows} at once, checkpointing {'on' if recipe.lora.gradient_checkpointing else 'off'}"


def _ways(task: Task) -> str:
    """What would fit, the nearest first: pins let go, fewer held-out rows at once, a shorter sequence, a smaller model."""
    ways = []
    if task.pinned:
        free = replace(task, pinned=frozenset())
        chosen = choose(free)
        if chosen is not None:
            names = sorted(p for p in task.pinned if value_of(chosen.recipe, p) != value_of(task.asked, p))
            values = " and ".join(f"{p} = {_written(value_of(chosen.recipe, p))}" for p in names)
            ways.append(f"let go of the pin: {values} fits ({_room(task, chosen.memory)})")
    if task.asked.training.evaluation_batch_size is not None:
        asked = with_fields(task.asked, evaluation_batch_size=None)
        chosen = choose(replace(task, asked=asked))
        if chosen is not None:
            ways.append(f"an empty Held-out batch fits ({_room(task, chosen.memory)})")
    shorter = _shorter(task)
    if shorter is not None:
        ways.append(
            f"a sequence length of {shorter.recipe.model.max_length:,} tokens in place of {task.asked.model.max_length:,} "
            f"fits ({_room(task, shorter.memory)})"
        )
    smaller = _smaller(task)
    if smaller:
        ways.append(f"a model of up to about {count_words(smaller * 1e6)} weights fits with these settings")
    if not task.gpu and not ways:
        ways.append("a machine with more memory, or with a GPU")
    text = "; or ".join(ways)
    return text[:1].upper() + text[1:] + "." if text else ""


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shorter(task: Task) -> Candidate | None:
    for length in _LENGTHS:
        if length >= min(task.asked.model.max_length, task.lengths.longest):
            continue
        points = tuple((min(tokens, float(length)), share) for tokens, share in task.lengths.points)
        lengths = replace(task.lengths, points=points, longest=length)
        found = choose(replace(task, asked=with_fields(task.asked, max_length=length), lengths=lengths))
        if found is not None:
            return found
    return None


def _smaller(task: Task) -> int | None:
    """Million weights of the largest usual model that fits."""
    for size in _SIZES:
        if size * 1e6 >= 0.95 * task.shape.parameters:
            continue
        facts = model_fit.stand_in(int(size * 1e6))
        shape = from_facts(facts)
        if shape is not None and choose(replace(task, shape=shape, facts=facts)) is not None:
            return size
    return None
