"""What a run at work is asked for: to pause and go on, to save, evaluate or sample now, to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..core.runs import control
from ..core.runs.control import Request, refused, saves
from ..core.runs.state import Card
from ..core.runs.store import RunFolder
from .modals.confirm import ConfirmModal

if TYPE_CHECKING:
    from ..core.runs.state import RunStatus
    from .app import FinetuiApp


class Changed(Protocol):
    """Called once something about the run has changed, with words for the person where there are some."""

    def __call__(self, words: str = "", /) -> object: ...


Do = Callable[["FinetuiApp", RunFolder, Changed], object]


AT_WORK = ("starting", "running")
LIVE = ("queued", *AT_WORK)


class Seen(control.Seen, Protocol):
    """What allows an action or not: a run's status, or its summary."""

    @property
    def card(self) -> Card | None: ...
    @property
    def adapter(self) -> bool: ...


@dataclass(frozen=True)
class Action:
    """One thing to do with a run. `states` are those of a run that allow it, and whether it has to be paused; empty and None
    allow all. `asks` is what its worker is asked for, which not every stage allows."""

    name: str
    key: str
    title: str
    words: str
    do: Do
    states: tuple[str, ...] = ()
    asks: Request | None = None
    paused: bool | None = None
    resumable: bool = False
    """Only of a run that has a checkpoint to go on from."""
    adapter: bool = False
    """Only of a run that has left an adapter."""
    failed: bool = False
    """Only where the newest job ended badly."""

    def allowed(self, of: Seen) -> bool:
        return (
            (not self.states or of.standing in self.states)
            and (self.asks is None or not refused(self.asks, of))
            and self.paused in (None, of.paused)
            and (of.resumable or not self.resumable)
            and (of.adapter or not self.adapter)
            and (not self.failed or of.card is not None)
        )


class Ask:
    """Asks the run's worker for `name`, and says what follows."""

    def __init__(self, name: Request) -> None:
        self._name: Request = name

    def __call__(self, app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
        from ..core.runs import control

        app.in_background(
            f"ask {run.id}",
            lambda: control.request(run, self._name),
            changed,
        )


def stop(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """Asks whether to save where there is something to save, then the worker to stop."""
    from ..core.runs import state

    def answered(answer: str | None) -> None:
        if answer == "stop" or answer == "stop-now":
            Ask(answer)(app, run, changed)

    def ask(seen: RunStatus) -> None:
        if saves(seen):
            question = "Save and stop keeps a checkpoint and the adapter: the run can be resumed, or exported as it is."
            answers = [("stop", "Save and stop"), ("stop-now", "Stop, save nothing")]
        else:
            question = stopping(seen)
            answers = [("stop", "Stop")]
        app.push_screen(
            ConfirmModal("Stop this run?", question, [*answers, ("cancel", "Leave it")]), answered
        )

    app.in_background(f"look at {run.id}", lambda: state.status(run), ask)


def stopping(seen: Seen) -> str:
    """What a stop means where nothing is to be saved."""
    if seen.standing == "queued":
        return "It leaves the queue; nothing of it has begun."
    if refused("save", seen):
        return "What is done is kept; the rest is left out."
    return "It has not come to its first step: there is nothing new to save."


REQUESTS = (
    Action("stop", "s", "Stop", "asks first, and what to keep", stop, LIVE),
    Action(
        "pause", "p", "Pause", "after this step; all stays in memory", Ask("pause"), AT_WORK, "pause", False
    ),
    Action("continue", "p", "Go on", "from the pause", Ask("continue"), AT_WORK, "continue", True),
    Action("save", "S", "Save now", "a checkpoint after this step", Ask("save"), AT_WORK, "save"),
    Action(
        "evaluate",
        "v",
        "Evaluate now",
        "on the held-out rows, after this step",
        Ask("evaluate"),
        AT_WORK,
        "evaluate",
    ),
    Action(
        "sample",
        "w",
        "Sample now",
        "it answers its prompts after this step",
        Ask("sample"),
        AT_WORK,
        "sample",
    ),
)
"""What a run at work can be asked for: on its dashboard each has a key of its own."""
