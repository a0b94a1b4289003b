"""Whether a model can be trained in the memory that is free now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .model_facts import ModelFacts
from .recipe import Recipe
from .system import Machine

Level = Literal["fits", "tight", "no"]


@dataclass(frozen=True)
class Fit:
    """A verdict and its words, such as `fits: 6.1 of 22.4 GiB free`. `bytes` is what training would take."""

    level: Level
    words: str
    bytes: int | None = None


def fit(
    model: int | ModelFacts | None,
    precision: Literal["16bit", "4bit"],
    machine: Machine,
    recipe: Recipe | None = None,
) -> Fit | None:
    """Whether training `model` (its facts, or only its number of parameters) in `precision` fits in the free memory of
    `machine`, its GPU's or else the host's. `recipe` gives the other settings, the defaults without one. None where the
    size is not known."""
    raise NotImplementedError
