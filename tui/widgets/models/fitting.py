"""Whether models fit, worked out once for each state of the machine and the recipe."""

from __future__ import annotations

from ....core.model_facts import ModelFacts
from ....core.model_fit import fit
from ....core.recipe import Recipe
from ....core.system import Machine
from .listing import Fits

STEP_BYTES = 256 * 1024**2
"""Free memory that differs by less changes no verdict, so that the lists stand still."""


class Fitting:
    """Remembers verdicts until the free memory or the recipe changes."""

    def __init__(self) -> None:
        self._state: object = None
        self._known: dict[ModelFacts | int, Fits] = {}
        self._machine: Machine | None = None

    def of(self, model: ModelFacts | int | None, machine: Machine | None, recipe: Recipe | None) -> Fits:
        """For 4-bit and 16-bit; None where it cannot be told."""
        if machine is None or model is None:
            return (None, None)
        state = (round(machine.free_bytes / STEP_BYTES), machine.has_gpu, recipe)
        if state != self._state:
            self._state, self._machine = state, machine
            self._known = {}
        if model not in self._known:
            now = self._machine or machine
            self._known[model] = (fit(model, "4bit", now, recipe), fit(model, "16bit", now, recipe))
        return self._known[model]
