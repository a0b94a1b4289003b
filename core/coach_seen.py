"""What the coach's rules share: what is known of a run, the finding they make of it, and what can be done about one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .recipe import Recipe
from .runs import events
from .runs.curves import Curves
from .runs.series import Point

Level = Literal["trouble", "warning", "hint"]
Act = Literal["stop", "duplicate", "best"]

LEVELS: tuple[Level, ...] = ("trouble", "warning", "hint")


@dataclass(frozen=True)
class Action:
    """What the person can do about it. `stop` saves and stops the run; `duplicate` opens a new one with `changes`, pairs of a
    recipe's field and its value; `best` goes back to the checkpoint of `step`."""

    act: Act
    words: str
    changes: tuple[tuple[str, object], ...] = ()
    step: int = 0


@dataclass(frozen=True)
class Advice:
    """One finding: what it is, the figures that show it, and what to do."""

    rule: str
    level: Level
    sentence: str
    evidence: str
    action: Action | None = None


@dataclass(frozen=True)
class Seen:
    """What is known of a run. `readings` are the newest of the machine, oldest first, those of training alone; `memory` is
    (seconds, bytes held by the run) over the whole of it."""

    curves: Curves
    total_steps: int = 0
    recipe: Recipe | None = None
    model: events.ModelReady | None = None
    dataset: events.DatasetReady | None = None
    step: events.Step | None = None
    readings: Sequence[events.Device] = ()
    memory: Sequence[Point] = field(default=())
    live: bool = True
    checkpoints: Sequence[int] = ()
    """The steps after which one was saved."""
    ended_with_best: bool = False
    """It put the weights of its lowest held-out loss in the place of the last ones."""


Rule = Callable[[Seen], Advice | None]
"""What looks at one kind of trouble."""


def share(seen: Seen) -> float:
    """How much of the run is done, from 0 to 1; 0 where its end is not known."""
    return seen.curves.newest / seen.total_steps if seen.total_steps > 0 else 0.0


def stop(words: str = "save and stop") -> Action:
    """Ends the run, in `words`."""
    return Action("stop", words)
