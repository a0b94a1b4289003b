"""What a recipe comes to here: trainable weights, memory and time; and what a change does to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import lora, memory, pace
from .draft import Draft
from .errors import FinetuiError
from .lengths import Lengths
from .memory import MemoryEstimate
from .memory_shape import from_facts
from .model_facts import ModelFacts
from .recipe import Recipe
from .system import Machine
from .text import count_words


@dataclass(frozen=True)
class Situation:
    """What a recipe meets: model, rows and machine. None is not known (yet)."""

    facts: ModelFacts | None = None
    machine: Machine | None = None
    rows: int | None = None
    """Rows that are trained on."""
    evaluation_rows: int | None = None
    tokens_per_row: float | None = None
    """On average, after the cut."""
    p95_tokens: int | None = None
    """19 of 20 rows are no longer than this, before any cut."""
    longest_tokens: int | None = None
    learned_tokens: int | None = None
    """Tokens of one epoch that the loss counts."""
    format: str | None = None
    lengths: Lengths | None = None
    """Of the training rows; without them the rows are taken to have about `tokens_per_row`."""

    @property
    def gpu(self) -> bool:
        return self.machine is not None and self.machine.has_gpu


@dataclass(frozen=True)
class Outcome:
    """What a recipe would come to. `seconds` is a range."""

    weights: int | None = None
    """Trainable ones."""
    memory_bytes: int | None = None
    seconds: tuple[float, float] | None = None

    @property
    def middle_seconds(self) -> float | None:
        """The middle of the range as ratios go."""
        return None if self.seconds is None else (max(self.seconds[0], 1e-9) * self.seconds[1]) ** 0.5


@dataclass(frozen=True)
class Delta:
    """What a change adds (or takes away) of each. None where it is not known."""

    weights: int | None
    memory_bytes: int | None
    seconds: float | None

    @property
    def words(self) -> str:
        """`+20.9 M weights, +0.30 GiB, ±0 min`; empty where nothing is known."""
        return ", ".join(word for word in self.parts if word)

    @property
    def parts(self) -> tuple[str, str, str]:
        """The three in words, in the order weights, memory, time; empty for what is not known."""
        return (
            "" if self.weights is None else f"{signed(self.weights, count_words)} weights",
            "" if self.memory_bytes is None else signed_bytes(self.memory_bytes),
            "" if self.seconds is None else signed_seconds(self.seconds),
        )

    @property
    def nothing(self) -> bool:
        """Whether the change moves none of the three enough to be shown."""
        return all(part.startswith("±") for part in self.parts if part)


def signed(number: float, words: Any) -> str:
    """`number` with its sign, its size in `words`."""
    return "±0" if not number else f"{'+' if number > 0 else '−'}{words(abs(number))}"


def signed_bytes(count: float) -> str:
    """`+0.30 GiB`, `−45 MiB`, or `±0 GiB` below a mebibyte."""
    size = abs(count)
    sign = "+" if count > 0 else "−"
    if size < 1024**2:
        return "±0 GiB"
    if size < 100 * 1024**2:
        return f"{sign}{size / 1024**2:.0f} MiB"
    value = size / 1024**3
    return f"{sign}{value:.1f} GiB" if value >= 1 else f"{sign}{value:.2f} GiB"


def signed_seconds(seconds: float) -> str:
    """`+3 min`, `−20 s`, `+1.5 h`, or `±0 min`."""
    size = abs(seconds)
    sign = "+" if seconds > 0 else "−"
    if size < 1:
        return "±0 min"
    if size < 90:
        return f"{sign}{size:.0f} s"
    if size < 90 * 60:
        return f"{sign}{size / 60:.0f} min"
    return f"{sign}{size / 3600:.2g} h"


def memory_estimate(recipe: Recipe, here: Situation) -> MemoryEstimate | None:
    """The memory of training `recipe` on this machine's GPU, or on the host, by the longest row where the rows were counted;
    None where model or machine is not known."""
    if here.facts is None or here.machine is None:
        return None
    card = here.machine.total_bytes if here.gpu else None
    return memory.estimate(
        recipe, here.facts, gpu=card is not None, card_bytes=card, longest_tokens=here.longest_tokens
    )


def seconds(recipe: Recipe, here: Situation) -> tuple[float, float] | None:
    """How long training may take: a rough range; None where something is not known."""
    if here.facts is None or here.machine is None or here.rows is None:
        return None
    shape = from_facts(here.facts)
    if shape is None:
        return None
    limit = recipe.model.max_length
    lengths = here.lengths
    if lengths is None and here.tokens_per_row:
        lengths = Lengths.about(here.tokens_per_row, limit, here.rows, here.evaluation_rows or 0)
    lengths = lengths or Lengths.full(limit, here.rows, here.evaluation_rows or 0)
    found = pace.predict(recipe, shape, here.machine, lengths)
    return found.low, found.high


def outcome(recipe: Recipe, here: Situation) -> Outcome:
    """What `recipe` comes to here; a millisecond of arithmetic."""
    estimate = memory_estimate(recipe, here)
    return Outcome(
        weights=lora.adapter_weights(here.facts, recipe.lora) if here.facts else None,
        memory_bytes=estimate.total_bytes if estimate is not None else None,
        seconds=seconds(recipe, here),
    )


def delta(before: Outcome, after: Outcome) -> Delta:
    """What changes from `before` to `after`."""

    def difference(one: float | None, other: float | None) -> float | None:
        return None if one is None or other is None else other - one

    weights = difference(before.weights, after.weights)
    size = difference(before.memory_bytes, after.memory_bytes)
    return Delta(
        None if weights is None else int(weights),
        None if size is None else int(size),
        difference(before.middle_seconds, after.middle_seconds),
    )


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe | None:
    """`recipe` with the fields of `values` changed, or None where that is no recipe."""
    draft = Draft(recipe)
    for path, value in values.items():
        if draft.set(path, value):
            return None
    try:
        return draft.recipe()
    except FinetuiError:
        return None
