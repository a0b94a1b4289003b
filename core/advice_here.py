"""What the rules of advice share: what is known here, and how it is put into words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import training
from .memory import GIB
from .outcome import Situation, memory_estimate, with_values
from .recipe import Recipe

ROOM = 0.85
"""The share of the free memory that a setting may fill: estimates err, and others use memory too."""

Rule = Callable[[Recipe, Situation], tuple[Any, str]]


def rows_words(here: Situation) -> str:
    """How many rows are trained on, in words."""
    return f"{here.rows:,} row{'' if here.rows == 1 else 's'}"


def free_gib(here: Situation) -> float:
    """GiB."""
    return here.machine.free_bytes / GIB if here.machine is not None else 0.0


def needed_gib(recipe: Recipe, here: Situation, values: dict[str, Any]) -> float | None:
    """GiB that `recipe` with `values` would take."""
    changed = with_values(recipe, values)
    estimate = memory_estimate(changed, here) if changed is not None else None
    return estimate.total_bytes / GIB if estimate is not None else None


def steps_of(recipe: Recipe, here: Situation) -> int | None:
    """Of the whole run; None where the rows are not counted."""
    return training.plan(recipe, here.rows).steps if here.rows else None


def nice(number: float) -> int:
    """The nearest of 1, 2, 5, 10, 20, 50, … that is not above `number`."""
    best = 1
    for power in range(7):
        for head in (1, 2, 5):
            if head * 10**power <= number:
                best = max(best, head * 10**power)
    return best
