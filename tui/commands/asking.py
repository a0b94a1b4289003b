"""`finetui pause`, `continue`, `save`, `evaluate` and `sample`: what a run at work can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import output
from .recipes import JsonOption
from .training import RunArgument

if TYPE_CHECKING:
    from ...core.runs.control import Request


def _ask(run: str, name: Request, as_json: bool) -> None:
    from ...core.runs import control, store

    folder = store.find(run)
    words = control.request(folder, name)
    if as_json:
        output.data({"run": folder.id, "path": str(folder.path), "request": name})
    else:
        output.line(f"{folder.id}: {words}")


def pause(run: RunArgument, as_json: JsonOption = False) -> None:
    """Let a run wait after its step, with everything kept in memory. finetui continue goes on."""
    _ask(run, "pause", as_json)


def go_on(run: RunArgument, as_json: JsonOption = False) -> None:
    """Go on with a paused run."""
    _ask(run, "continue", as_json)


def save(run: RunArgument, as_json: JsonOption = False) -> None:
    """Save a checkpoint now."""
    _ask(run, "save", as_json)


def evaluate(run: RunArgument, as_json: JsonOption = False) -> None:
    """Check on the held-out rows now."""
    _ask(run, "evaluate", as_json)


def sample(run: RunArgument, as_json: JsonOption = False) -> None:
    """Let the model answer the run's prompts now."""
    _ask(run, "sample", as_json)
