"""How long a training takes: predicted from the model's shape, the rows' lengths and the machine; corrected by what was measured.

One batch takes the time that launching its kernels takes plus the time of its arithmetic. A token costs about 2 ×
weights operations forward and 2 × backward, since the frozen weights need no gradients of their own, and 2 × more where
activations are recomputed (Kaplan 2020, arXiv 2001.08361, less the weight gradients).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .lengths import Lengths
from .memory_shape import Shape
from .recipe import Recipe
from .system import Machine

_TERAFLOPS_BY_CARD = (
    ("B200", 800.0),
    ("H200", 650.0),  # measured: about 750 with weights of zeros, which draw less power
    ("H100", 450.0),  # measured: 448 on 8B QLoRA
    ("A100", 150.0),
    ("5090", 150.0),
    ("L40", 120.0),
    ("4090", 110.0),
    ("3090", 50.0),
    ("A10", 50.0),
    ("L4", 45.0),
    ("T4", 18.0),
)
"""Useful 10¹² operations a second while an 8B model trains with LoRA; measured where marked, else scaled from data sheets."""

_TERAFLOPS_OF_OTHER_CARDS = 30.0
_WIDE = 4096
"""Narrower models use less of a card (measured on an H100: 188 of 448 at a hidden size of 2048)."""
_LAUNCH_SECONDS = 0.08
_LAUNCH_SECONDS_PER_LAYER = 0.0096
"""Kernels of a batch whose shape was not seen before, on a GPU; by the host's processor (measured: beside an H100 1B 0.27 s and
8B 0.45 s, beside an H200 8B 0.33 s)."""
_LAUNCH_SHARE_OF_SAME_SHAPES = 0.15
_PACKED_FACTOR = 1.45
"""Packed sequences look only within each row, which costs time of its own (measured: on an H100 1.3 to 1.6, on an H200 1.7)."""
_FOUR_BIT_FACTOR = 1.1
"""Unpacking 4-bit weights for each of the passes; the card's figures above are for 4 bit where they were measured."""
_GPU_STEP_SECONDS = 0.03

_TERAFLOPS_PER_CORE = 0.1  # measured: SmolLM2-135M on two cores, 0.08 to 0.15
_CPU_LAUNCH_SECONDS_PER_LAYER = 0.006  # measured: the same model, 8 × 1 against 1 × 8
_CPU_STEP_SECONDS = 0.05

_BYTES_PER_UPDATED_WEIGHT = 28
"""AdamW in 32 bit reads weight, gradient and two moments, and writes all but the gradient."""
_GPU_BYTES_PER_SECOND = 1e12
"""Of cards made for training two to three times as much; an update is a small part of a step there."""

_SAMPLE_TOKENS = 96
_SAMPLE_TOKENS_PER_SECOND_GPU = 25.0
_CPU_BYTES_PER_SECOND_PER_CORE = 3e9
"""A written token reads all weights once."""

_GPU_RANGE = (0.6, 2.0)
_GPU_RANGE_ELSEWHERE = (0.5, 3.5)
"""Where Unsloth's fast layers do not run: 8 bit unpacks each matrix in layers that are not compiled, DoRA takes the length of
each adapted row anew, full fine-tuning runs Transformers' layers. No speed of these was measured on a GPU."""
_CPU_RANGE = (0.65, 1.7)
_MEASURED_RANGE = (0.9, 1.15)


@dataclass(frozen=True)
class Measured:
    """What a probe or the run itself has measured, in seconds: `ratio` is measured ÷ predicted for the same batch."""

    ratio: float = 1.0
    seconds_per_step: float | None = None
    """Of the run's own steps; counts more than the ratio."""
    evaluation_ratio: float | None = None


@dataclass(frozen=True)
class Pace:
    """A prediction in seconds: `low` to `high` holds the truth most of the time; `seconds` is the best guess.

    `steps` are the updates, `rows_per_step` the rows behind one (more than the batch where rows are packed).
    """

    seconds: float
    low: float
    high: float
    steps: int
    rows_per_step: float
    seconds_per_step: float
    evaluation_seconds: float
    """All evaluations together."""
    sample_seconds: float
    """All samples together."""
    tokens_per_second: float
    """Tokens of rows, without padding."""
    padding_share: float
    """Of the tokens that are computed, 0 to 1."""
    measured: bool = False

    @property
    def seconds_per_row(self) -> float:
        """Of training alone: what settings are compared by."""
        return self.seconds_per_step / max(self.rows_per_step, 1e-9)


@dataclass(frozen=True)
class _Speed:
    """How fast this machine is at this model."""

    gpu: bool
    operations_per_second: float
    launch_seconds: float
    step_seconds: float


def _speed(shape: Shape, machine: Machine) -> _Speed:
    if not machine.has_gpu:
        return _Speed(
            False,
            _TERAFLOPS_PER_CORE * 1e12 * max(1, machine.cores),
            _CPU_LAUNCH_SECONDS_PER_LAYER * shape.layers,
            _CPU_STEP_SECONDS,
        )
    name = machine.gpus[0].name
    peak = next((t for card, t in _TERAFLOPS_BY_CARD if card in name), _TERAFLOPS_OF_OTHER_CARDS) * 1e12
    launch = _LAUNCH_SECONDS + _LAUNCH_SECONDS_PER_LAYER * shape.layers
    return _Speed(True, peak * min(1.0, max(shape.hidden, 256) / _WIDE), launch, _GPU_STEP_SECONDS)


def _active_weights(shape: Shape) -> float:
    """Weights that a token meets: of a mixture of experts, only the chosen ones; the embeddings are looked up, not multiplied."""
    output = shape.embedding
    if shape.experts > 0:
        chosen = shape.experts_per_token * 3 * shape.hidden * shape.expert_inner
        return shape.layers * (shape.attention + chosen) + output
    return shape.matrices + output


def trains_all(recipe: Recipe) -> bool:
    """Whether every weight is trained, so that each needs a gradient of its own."""
    return getattr(recipe.lora, "method", "lora") == "full"


def batch_seconds(
    recipe: Recipe,
    shape: Shape,
    machine: Machine,
    tokens: float,
    length: float,
    *,
    same_shapes: bool = False,
    forward_only: bool = False,
) -> float:
    """One batch of `tokens` tokens, padding included, in rows of `length` tokens: forward and backward, in seconds."""
    speed = _speed(shape, machine)
    passes = 2 if forward_only else 4 + 2 * bool(recipe.lora.gradient_checkpointing) + 2 * trains_all(recipe)
    attention = (
        2 * shape.layers * shape.queries * length
    )  # of a token: half of all positions, twice 2 operations
    work = passes * tokens * (_active_weights(shape) + attention / 2)
    launch = speed.launch_seconds * (passes / 6 if not speed.gpu else 1 / 3 if forward_only else 1)
    if speed.gpu and same_shapes:
        launch *= _LAUNCH_SHARE_OF_SAME_SHAPES
    if speed.gpu and recipe.model.precision == "4bit":
        work *= _FOUR_BIT_FACTOR
    seconds = launch + work / speed.operations_per_second
    return seconds * (_PACKED_FACTOR if speed.gpu and recipe.training.packing and not forward_only else 1.0)


def update_seconds(recipe: Recipe, shape: Shape, machine: Machine) -> float:
    """One update of all trained weights: memory is read and written once through. Nothing with an adapter, seconds on a
    CPU where every weight is trained."""
    bandwidth = (
        _GPU_BYTES_PER_SECOND if machine.has_gpu else _CPU_BYTES_PER_SECOND_PER_CORE * max(1, machine.cores)
    )
    return shape.trained_weights(recipe.lora) * _BYTES_PER_UPDATED_WEIGHT / bandwidth


def longest_batch_seconds(recipe: Recipe, shape: Shape, machine: Machine, lengths: Lengths) -> float:
    """The batch with the longest row, forward and backward, and an update: what a probe runs, in seconds."""
    length = recipe.model.max_length if recipe.training.packing else lengths.longest
    work = batch_seconds(recipe, shape, machine, recipe.training.batch_size * length, length)
    return work + update_seconds(recipe, shape, machine)


def predict(
    recipe: Recipe,
    shape: Shape,
    machine: Machine,
    lengths: Lengths,
    measured: Measured | None = None,
) -> Pace:
    """How long training `recipe` takes over rows of `lengths`, without loading and export. Raises nothing."""
    training = recipe.training
    limit = recipe.model.max_length
    rows = lengths.rows or 0
    batch, accumulation = training.batch_size, training.gradient_accumulation_steps
    if training.packing:
        held = lengths.rows_per_sequence(limit)
        length = min(float(limit), held * lengths.mean)
        computed = batch * length
    else:
        held = 1.0
        length = lengths.padded(batch)
        computed = batch * length
    items = math.ceil(rows / held) if rows else 0
    if 0 < items < batch:  # the only batch is not full
        computed *= items / batch
    rows_per_step = batch * accumulation * held
    per_epoch = max(1, math.ceil(math.ceil(items / batch) / accumulation)) if items else 0
    steps = math.ceil(training.epochs * per_epoch)
    if training.max_steps is not None:
        steps = min(steps, training.max_steps) if items else training.max_steps
    speed = _speed(shape, machine)
    one = batch_seconds(recipe, shape, machine, computed, length, same_shapes=lengths.uniform)
    accumulated = min(accumulation, max(1, math.ceil(items / batch))) if items else accumulation
    measured = measured or Measured()
    is_measured = measured.ratio != 1.0 or measured.seconds_per_step is not None
    worked = accumulated * one + update_seconds(recipe, shape, machine)
    step = measured.seconds_per_step or worked * measured.ratio + speed.step_seconds
    rows_per_step = min(rows_per_step, float(rows)) if rows else rows_per_step

    times = _times_looked(recipe, steps)
    evaluation = 0.0
    if lengths.evaluation_rows:
        at_once = min(training.evaluation_batch_size or batch, lengths.evaluation_rows)
        batches = math.ceil(lengths.evaluation_rows / at_once)
        padded = lengths.padded(at_once)
        each = batch_seconds(recipe, shape, machine, at_once * padded, padded, forward_only=True)
        evaluation = times * batches * each * (measured.evaluation_ratio or measured.ratio)
    samples = (times + 1) * training.sample_count * _sample_seconds(shape, machine, lengths) * measured.ratio
    total = steps * step + evaluation + samples
    slower = trains_all(recipe) or recipe.lora.dora or recipe.model.precision == "8bit"
    guessed = (_GPU_RANGE_ELSEWHERE if slower else _GPU_RANGE) if speed.gpu else _CPU_RANGE
    low, high = _MEASURED_RANGE if is_measured else guessed
    if not lengths.measured:
        low, high = low * 0.85, high * 1.3
    return Pace(
        seconds=total,
        low=total * low,
        high=total * high + (0 if is_measured else 1),
        steps=steps,
        rows_per_step=rows_per_step,
        seconds_per_step=step,
        evaluation_seconds=evaluation,
        sample_seconds=samples,
        tokens_per_second=rows_per_step * lengths.mean / step if step > 0 else 0.0,
        padding_share=0.0 if training.packing else max(0.0, 1 - lengths.mean / length) if length > 0 else 0.0,
        measured=is_measured,
    )


def _times_looked(recipe: Recipe, steps: int) -> int:
    """How often the held-out rows are looked at: at the cadence, and at the end."""
    every = recipe.training.evaluate_every_steps
    if not steps:
        return 0
    return math.ceil(steps / every) if every else 1


def _sample_seconds(shape: Shape, machine: Machine, lengths: Lengths) -> float:
    """One sample: up to 96 tokens, and about as many as half a row has."""
    tokens = min(_SAMPLE_TOKENS, max(8.0, lengths.mean / 2))
    if machine.has_gpu:
        return tokens / _SAMPLE_TOKENS_PER_SECOND_GPU * shape.layers / 32
    reading = 2 * shape.parameters / (_CPU_BYTES_PER_SECOND_PER_CORE * max(1, machine.cores))
    return tokens * (reading + _CPU_LAUNCH_SECONDS_PER_LAYER / 6 * shape.layers)
