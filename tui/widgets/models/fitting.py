"""Whether models fit, worked out in a thread, once for each state of the machine and the recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ....core.model_facts import ModelFacts
from ....core.model_fit import fit
from ....core.recipe import Recipe
from ....core.system import Machine
from .listing import Fits

STEP_BYTES = 256 * 1024**2
"""Free memory that differs by less changes no verdict, so that the lists stand still."""

Model = ModelFacts | int
Verdicts = dict[Model, Fits]


class Fitting:
    """The newest verdicts. Those of a state before stand until the new ones are there."""

    def __init__(self) -> None:
        self._state: object = None
        self._known: Verdicts = {}
        self._asked: object = None

    def of(self, model: Model | None) -> Fits:
        """For 4-bit and 16-bit; None where it is not known."""
        return (None, None) if model is None else self._known.get(model, (None, None))

    def work(
        self, models: Iterable[Model | None], machine: Machine | None, recipe: Recipe | None
    ) -> Callable[[], Verdicts] | None:
        """What to do in a thread so that `models` have verdicts, or None where there is nothing to do. Its result goes
        to `take`."""
        if machine is None:
            return None
        state = (round(machine.free_bytes / STEP_BYTES), machine.has_gpu, recipe)
        wanted = {model for model in models if model is not None}
        missing = wanted if state != self._state else wanted - self._known.keys()
        asked = (state, frozenset(missing))
        if not missing or asked == self._asked:
            return None
        self._asked = asked
        return lambda: {
            m: (fit(m, "4bit", machine, recipe), fit(m, "16bit", machine, recipe)) for m in missing
        }

    def take(self, verdicts: Verdicts) -> None:
        """Takes what the newest `work` found."""
        state = self._asked[0] if isinstance(self._asked, tuple) else None
        self._known = verdicts if state != self._state else {**self._known, **verdicts}
        self._state, self._asked = state, None
