"""Chooses the settings that make a run the fastest that fits: precision, packing, micro-batch, accumulation, checkpointing.

What is learned stays what was asked for: the effective batch keeps its rows, so the loss is the same up to rounding (the
trainer averages over all learned tokens of an update, however they are divided into batches). Pure arithmetic, some
milliseconds; nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from . import memory, model_fit, pace, training
from .errors import FinetuiError
from .lengths import Lengths
from .memory_parts import GIB, MIB, MemoryEstimate
from .memory_shape import Shape, from_facts
from .model_facts import ModelFacts
from .pace import Measured, Pace
from .recipe import Recipe
from .system import Gpu, Machine
from .text import bytes_words, count_words, duration_words

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
"""Settings that save less than 3 % of the time are not worth more memory."""

_EFFECTIVE_SLACK = (0.7, 1.5)
"""By so much the rows behind an update may change where rows are packed, since sequences hold whole rows."""

_LENGTHS = (131_072, 65_536, 32_768, 16_384, 8192, 6144, 4096, 3072, 2048, 1536, 1024, 768, 512, 384, 256, 128)
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


@dataclass(frozen=True)
class _Candidate:
    recipe: Recipe
    memory: MemoryEstimate
    pace: Pace


@dataclass(frozen=True)
class _Task:
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

    def candidate(self, recipe: Recipe) -> _Candidate:
        return _Candidate(
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
) -> Fit:
    """The fastest settings of `recipe` that fit in the free memory of `machine`.

    `lengths` are those of the training rows; without them every row is taken to fill the sequence length. `pinned` holds
    paths out of `CHOSEN` whose values stay. `measured` corrects the time by what a probe found.

    16-bit is kept wherever it fits, since it is exact; 4-bit is chosen where nothing else fits.

    Raises FinetuiError: fit-none where nothing fits (it names the nearest way), fit-shape where the model's shape is not
    known, usage for a pinned path that is none, and what `training.problems` says of a pinned value.
    """
    facts = model if isinstance(model, ModelFacts) else None
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
    task = _Task(recipe, shape, facts, machine, known, frozenset(pinned), measured)
    _refuse_pinned(task)
    chosen = _choose(task)
    if chosen is None:
        raise _nothing_fits(task)
    before = task.candidate(recipe)
    return Fit(
        recipe=chosen.recipe,
        choices=_choices(task, chosen),
        memory=chosen.memory,
        pace=chosen.pace,
        memory_before=before.memory,
        pace_before=before.pace,
        free_bytes=machine.free_bytes,
        headroom_bytes=task.headroom(chosen.memory),
        on_gpu=task.gpu,
        threads=max(1, machine.cores),
        fitted_before=task.fits(before.memory),
        remarks=_remarks(task, chosen),
    )


def _refuse_pinned(task: _Task) -> None:
    for path, error in training.problems(task.asked, task.machine):
        if path in task.pinned and error.code != "bitsandbytes-missing":
            raise error


def _with(recipe: Recipe, **values: Any) -> Recipe:
    """`recipe` with fields changed, each named by its last part."""
    sections = {
        "precision": "model",
        "gradient_checkpointing": "lora",
        "packing": "training",
        "batch_size": "training",
        "gradient_accumulation_steps": "training",
        "max_length": "model",
    }
    changed: dict[str, Any] = {}
    for name, value in values.items():
        section = sections[name]
        part = changed.get(section) or getattr(recipe, section)
        changed[section] = part.model_copy(update={name: value})
    return recipe.model_copy(update=changed)


def _precisions(task: _Task) -> tuple[str, ...]:
    asked = task.asked.model.precision
    if PRECISION in task.pinned:
        return (asked,)
    if not task.gpu:
        return ("16bit",)
    if task.facts is not None and task.facts.is_4bit:
        return ("4bit",)
    if asked not in ("16bit", "4bit"):
        return (asked, "4bit")
    return ("16bit", "4bit")


def _options(task: _Task, path: str, asked: bool, *, possible: bool = True) -> tuple[bool, ...]:
    if path in task.pinned:
        return (asked,)
    return (False, True) if possible else (False,)


def _batches(task: _Task, packing: bool) -> Iterator[tuple[int, int]]:
    """Pairs of micro-batch and accumulation with the rows behind an update that were asked for."""
    asked = task.asked.training
    wanted = task.rows_wanted
    if packing:
        wanted /= task.lengths.rows_per_sequence(task.asked.model.max_length)
        if not asked.packing and not _EFFECTIVE_SLACK[0] <= max(1, round(wanted)) / wanted <= _EFFECTIVE_SLACK[1]:
            return
    whole = max(1, round(wanted))
    for batch in range(1, min(whole, 1024) + 1):
        if whole % batch or whole // batch > 1024:
            continue
        if BATCH in task.pinned and batch != asked.batch_size:
            continue
        if ACCUMULATION in task.pinned and whole // batch != asked.gradient_accumulation_steps:
            continue
        yield batch, whole // batch
    if BATCH in task.pinned and whole % asked.batch_size:
        yield asked.batch_size, max(1, round(whole / asked.batch_size))
    elif ACCUMULATION in task.pinned and whole % asked.gradient_accumulation_steps:
        yield max(1, round(whole / asked.gradient_accumulation_steps)), asked.gradient_accumulation_steps


def _candidates(task: _Task, precision: str) -> Iterator[_Candidate]:
    packable = task.gpu and task.shape.kind not in ("gemma2", "gpt_oss")
    for packing in _options(task, PACKING, task.asked.training.packing, possible=packable):
        for checkpointing in _options(task, CHECKPOINTING, bool(task.asked.lora.gradient_checkpointing)):
            kept = task.asked.lora.gradient_checkpointing
            value = kept if bool(kept) == checkpointing else checkpointing
            for batch, accumulation in _batches(task, packing):
                yield task.candidate(
                    _with(
                        task.asked,
                        precision=precision,
                        packing=packing,
                        gradient_checkpointing=value,
                        batch_size=batch,
                        gradient_accumulation_steps=accumulation,
                    )
                )


def _choose(task: _Task) -> _Candidate | None:
    """The fastest candidate that fits; of those that are about as fast, the one that takes the least memory."""
    for precision in _precisions(task):
        found = [one for one in _candidates(task, precision) if task.fits(one.memory)]
        if found:
            quickest = min(one.pace.seconds_per_row for one in found)
            near = [one for one in found if one.pace.seconds_per_row * _FASTER <= quickest]
            return min(near, key=lambda one: (one.memory.total_bytes, one.pace.seconds_per_row))
    return None


# Words.


def _room(task: _Task, found: MemoryEstimate) -> str:
    return f"{found.total_bytes / GIB:.1f} of {task.machine.free_bytes / GIB:.1f} GiB"


def _choices(task: _Task, chosen: _Candidate) -> tuple[Choice, ...]:
    reasons: dict[str, Callable[[_Task, _Candidate], str]] = {
        PRECISION: _precision_reason,
        PACKING: _packing_reason,
        BATCH: _batch_reason,
        ACCUMULATION: _accumulation_reason,
        CHECKPOINTING: _checkpointing_reason,
    }
    made = []
    for path in CHOSEN:
        value, before = _get(chosen.recipe, path), _get(task.asked, path)
        pinned = path in task.pinned
        because = "you pinned it" if pinned else reasons[path](task, chosen)
        seconds, extra = 0.0, 0
        if value != before and path != ACCUMULATION:
            other = _undone(task, chosen, path)
            if other is not None:
                rows = task.lengths.rows or 0
                epochs = min(task.asked.training.epochs, chosen.pace.steps * chosen.pace.rows_per_step / rows) if rows else 0
                seconds = (chosen.pace.seconds_per_row - other.pace.seconds_per_row) * rows * epochs
                extra = chosen.memory.total_bytes - other.memory.total_bytes
        made.append(Choice(path, value, before, because, pinned, seconds, extra))
    return tuple(made)


def _undone(task: _Task, chosen: _Candidate, path: str) -> _Candidate | None:
    """`chosen` with one field as it was asked for; micro-batch and accumulation go together."""
    name = path.rpartition(".")[2]
    values: dict[str, Any] = {name: _get(task.asked, path)}
    if path == BATCH:
        values["gradient_accumulation_steps"] = task.asked.training.gradient_accumulation_steps
        if chosen.recipe.training.packing != task.asked.training.packing:
            return None
    if path == PACKING:
        wanted = task.asked.training
        values |= {"batch_size": wanted.batch_size, "gradient_accumulation_steps": wanted.gradient_accumulation_steps}
    return task.candidate(_with(chosen.recipe, **values))


def _get(recipe: Recipe, path: str) -> Any:
    section, name = path.split(".")
    return getattr(getattr(recipe, section), name)


def _precision_reason(task: _Task, chosen: _Candidate) -> str:
    value = chosen.recipe.model.precision
    if not task.gpu:
        return "a CPU trains in 16 bit only"
    if task.facts is not None and task.facts.is_4bit:
        return "the model is stored in 4 bit"
    if value != "4bit":
        return f"it fits ({_room(task, chosen.memory)}), is exact, and is a little faster than 4 bit"
    smallest = min((c.memory.total_bytes for c in _candidates(task, "16bit")), default=0)
    return (
        f"in 16 bit even the smallest batch takes {smallest / GIB:.1f} GiB, and {task.machine.free_bytes / GIB:.1f} GiB "
        "are free"
    )


def _checkpointing_reason(task: _Task, chosen: _Candidate) -> str:
    on = bool(chosen.recipe.lora.gradient_checkpointing)
    other = task.candidate(_with(chosen.recipe, gradient_checkpointing=not on))
    slower = abs(1 - chosen.pace.seconds_per_row / other.pace.seconds_per_row)
    memory_words = bytes_words(abs(other.memory.total_bytes - chosen.memory.total_bytes))
    if not on:
        return f"what it would save ({memory_words}) is free, and recomputing would cost {slower:.0%} of the time".replace(
            "%", " %"
        )
    if not task.fits(other.memory):
        return f"without it a batch of this size takes {memory_words} more, which is not free"
    return f"it saves {memory_words}, which lets a larger batch fit"


def _packing_reason(task: _Task, chosen: _Candidate) -> str:
    training, lengths = chosen.recipe.training, task.lengths
    if not task.gpu:
        return "Unsloth packs only on a GPU"
    held = lengths.rows_per_sequence(chosen.recipe.model.max_length)
    if training.packing:
        return f"rows have {lengths.mean:,.0f} tokens on average, so that a sequence holds about {held:.3g} of them"
    if task.shape.kind in ("gemma2", "gpt_oss"):
        return "Unsloth does not pack for this family"
    wanted = task.rows_wanted
    if held > _EFFECTIVE_SLACK[1] * wanted:
        return (
            f"one packed sequence would hold {held:,.0f} rows, and an update is to have {wanted:,.0f}: raise the effective "
            "batch, or shorten the sequence, to pack"
        )
    if held < 1.5:
        return "rows fill the sequence as they are" if lengths.measured else "how long the rows are is not known"
    return "packing would not be faster here"


def _batch_reason(task: _Task, chosen: _Candidate) -> str:
    training = chosen.recipe.training
    unit = "sequences" if training.packing else "rows"
    if task.asked.effective_batch_size == 1 and training.batch_size == 1:
        return "an update is to have one row"
    larger = [
        one
        for one in _candidates(_pinned_but_batch(task, chosen), chosen.recipe.model.precision)
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


def _pinned_but_batch(task: _Task, chosen: _Candidate) -> _Task:
    """`task` with everything but the division of the batch as chosen. What was asked decides the rows of an update."""
    asked = _with(
        task.asked,
        gradient_checkpointing=chosen.recipe.lora.gradient_checkpointing,
        packing=chosen.recipe.training.packing,
        batch_size=chosen.recipe.training.batch_size,
        gradient_accumulation_steps=chosen.recipe.training.gradient_accumulation_steps,
    )
    return replace(task, asked=asked, pinned=frozenset({CHECKPOINTING, PACKING, PRECISION}))


def _accumulation_reason(task: _Task, chosen: _Candidate) -> str:
    training = chosen.recipe.training
    unit = "sequences" if training.packing else "rows"
    product = f"{training.batch_size} × {training.gradient_accumulation_steps} = {chosen.recipe.effective_batch_size}"
    if training.packing and not task.asked.training.packing:
        return (
            f"{product} {unit} hold about {chosen.pace.rows_per_step:.3g} rows, near the {task.rows_wanted:.3g} that you "
            "asked for"
        )
    return f"{product} {unit} an update, as you asked"


def _remarks(task: _Task, chosen: _Candidate) -> tuple[str, ...]:
    said = list(chosen.memory.remarks)
    if not task.lengths.measured:
        said.append("The rows' lengths are not counted yet; they are taken to be longer than they may be.")
    return tuple(said)


# Where nothing fits.


def _nothing_fits(task: _Task) -> FinetuiError:
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


def _smallest(task: _Task) -> _Candidate:
    found = [one for precision in _precisions(task) for one in _candidates(task, precision)]
    return min(found or [task.candidate(task.asked)], key=lambda one: one.memory.total_bytes)


def _form(recipe: Recipe) -> str:
    bits = {"4bit": "4 bit", "8bit": "8 bit", "16bit": "16 bit"}.get(recipe.model.precision, recipe.model.precision)
    rows = "1 row" if recipe.training.batch_size == 1 else f"{recipe.training.batch_size} rows"
    return f"{bits}, {rows} at once, checkpointing {'on' if recipe.lora.gradient_checkpointing else 'off'}"


def _ways(task: _Task) -> str:
    """What would fit, the nearest first: pins let go, 4 bit, a shorter sequence, a smaller model."""
    ways = []
    if task.pinned:
        free = replace(task, pinned=frozenset())
        chosen = _choose(free)
        if chosen is not None:
            names = sorted(p for p in task.pinned if _get(chosen.recipe, p) != _get(task.asked, p))
            values = " and ".join(f"{p} = {_written(_get(chosen.recipe, p))}" for p in names)
            ways.append(f"let go of the pin: {values} fits ({_room(task, chosen.memory)})")
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


def _shorter(task: _Task) -> _Candidate | None:
    for length in _LENGTHS:
        if length >= min(task.asked.model.max_length, task.lengths.longest):
            continue
        points = tuple((min(tokens, float(length)), share) for tokens, share in task.lengths.points)
        lengths = replace(task.lengths, points=points, longest=length)
        found = _choose(replace(task, asked=_with(task.asked, max_length=length), lengths=lengths))
        if found is not None:
            return found
    return None


def _smaller(task: _Task) -> int | None:
    """Million weights of the largest usual model that fits."""
    for size in _SIZES:
        if size * 1e6 >= 0.95 * task.shape.parameters:
            continue
        facts = model_fit.stand_in(int(size * 1e6))
        shape = from_facts(facts)
        if shape is not None and _choose(replace(task, shape=shape, facts=facts)) is not None:
            return size
    return None
