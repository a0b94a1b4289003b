"""`finetui runs`: all runs and where they stand."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from . import output
from .recipes import JsonOption

if TYPE_CHECKING:
    from ...core.runs.state import RunStatus


def runs(as_json: JsonOption = False) -> None:
    """List the runs, newest first."""
    from ...core.runs import state, store

    found = [(run, state.status(run)) for run in store.all_runs()]
    if as_json:
        output.data([{"run": run.id, "path": str(run.path), **_fields(status)} for run, status in found])
        return
    if not found:
        output.line("No run has been started yet. Try: finetui demo")
        return
    wide = max(len(run.id) for run, _ in found)
    for run, status in found:
        output.line(f"{run.id:<{wide}}  {status.state:<9}  {summary(status)}".rstrip())


def summary(status: RunStatus) -> str:
    """Where a run stands, in a line."""
    from ...core.text import duration_words, one_line
    from ..plain import number

    parts = []
    if status.total_steps:
        parts.append(f"step {status.step:,}/{status.total_steps:,}")
    if status.loss is not None:
        parts.append(f"loss {number(status.loss)}")
    if status.evaluation_loss is not None:
        parts.append(f"held-out {number(status.evaluation_loss)}")
    if status.state == "running" and status.stage not in ("", "train"):
        parts.append(one_line(status.stage, 20))
    if status.eta_seconds is not None:
        parts.append(f"{duration_words(status.eta_seconds)} left")
    elif not status.live and status.seconds:
        parts.append(f"took {duration_words(status.seconds)}")
    if status.elsewhere:
        parts.append(f"on {one_line(status.host, 60)}")
    if status.card:
        parts.append(one_line(f"{status.card.what} {status.card.why}", 160))
    return " · ".join(parts)


def _fields(status: RunStatus) -> dict[str, object]:
    values = asdict(status)
    if values.get("score"):
        values["score"].pop("examples", None)
    return values
