"""The state of every source of random numbers that training draws from: kept, set back, and left alone."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any


def states() -> Any:
    """What `restore` takes: Python's, NumPy's, torch's, and each GPU's."""
    import numpy
    import torch

    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    return random.getstate(), numpy.random.get_state(), torch.random.get_rng_state(), gpus


def restore(states: Any) -> None:
    """Sets all of them back to what `states` gave."""
    import numpy
    import torch

    python, numbers, cpu, gpus = states
    random.setstate(python)
    numpy.random.set_state(numbers)
    torch.random.set_rng_state(cpu)
    if gpus is not None:
        torch.cuda.set_rng_state_all(gpus)


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Whatever happens inside, the random numbers outside go on as if it had not.

    So an evaluation or a sample that was asked for, or left out at a stop, changes nothing of what is learned.
    """
    before = states()
    try:
        yield
    finally:
        restore(before)
