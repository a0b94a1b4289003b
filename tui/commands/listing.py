"""`finetui runs`: all runs and where they stand."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ...core.text import one_line
from . import output
from .recipes import JsonOption

if TYPE_CHECKING:
    from ...core.runs.state import RunStatus


def runs(
    everything: Annotated[bool, typer.Option("--all", help="Archived ones too.")] = False,
    tag: Annotated[str | None, typer.Option("--tag", help="Only those with this tag.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs, newest first."""
    from ...core.runs import care, state, store

    labelled = [(run, care.labels(run)) for run in store.all_runs()]
    shown = [
        (run, labels)
        for run, labels in labelled
        if (everything or not labels.archived) and (tag is None or tag in labels.tags)
    ]
    found = [(run, state.status(run), labels) for run, labels in shown]
    if as_json:
        output.data(
            [
                {
                    "run": run.id,
                    "path": str(run.path),
                    **_fields(status),
                    "labels": labels.model_dump(mode="json"),
                }
                for run, status, labels in found
            ]
        )
        return
    if not found and labelled:
        output.line("No run to show; finetui runs --all shows archived ones.")
        return
    if not found:
        output.line("No run has been started yet. Try: finetui demo")
        return
    wide = max(len(run.id) for run, _, _ in found)
    for run, status, labels in found:
        output.line(f"{run.id:<{wide}}  {status.state:<9}  {summary(status)}".rstrip())
        about = " ".join([labels.title, *(f"#{one}" for one in labels.tags)]).strip()
        if about:
            output.line(f"{'':<{wide}}  {one_line(about, 160)}")


def summary(status: RunStatus) -> str:
    """Where a run stands, in a line."""
    from ...core.text import duration_words
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
