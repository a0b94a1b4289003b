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
    sort: Annotated[
        str,
        typer.Option(
            "--sort", metavar="COLUMN", help="newest, name, state, loss, best, time, model, data or size."
        ),
    ] = "newest",
    words: Annotated[
        str,
        typer.Option("--filter", metavar="WORDS", help="Only runs with all of these words; also best<0.5."),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List the runs, newest first."""
    from ...core.runs import care, state, store

    if sort != "newest" or words:
        _chosen(sort, words, everything, tag, as_json)
        return
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
        output.line(f"{run.id:<{wide}}  {status.standing:<9}  {summary(status)}".rstrip())
        about = " ".join([labels.title, *(f"#{one}" for one in labels.tags)]).strip()
        if about:
            output.line(f"{'':<{wide}}  {one_line(about, 160)}")


def _chosen(sort: str, words: str, everything: bool, tag: str | None, as_json: bool) -> None:
    """The runs that match, in an order: from their summaries, so that a thousand are listed at once."""
    from ...core.runs import summary as summaries
    from ...core.text import bytes_words, duration_words
    from ..plain import number
    from .recipes import usage

    if sort not in summaries.COLUMNS:
        raise usage(
            f"Runs cannot be sorted by {sort!r}.",
            f"Columns: {', '.join(summaries.COLUMNS)}.",
            "Name one of them.",
        )
    found = [
        one
        for one in summaries.matching(summaries.Summaries().read(), words)
        if (everything or not one.archived) and (tag is None or tag in one.tags)
    ]
    found = summaries.ordered(found, sort)  # type: ignore[arg-type]
    if as_json:
        output.data([{**asdict(one), "path": str(summaries.folder_of(one))} for one in found])
        return
    if not found:
        output.line("No run matches.")
    for one in found:
        best = f"best {number(one.best)}" if one.best is not None else "best —"
        loss = f"loss {number(one.loss)}" if one.loss is not None else "loss —"
        about = (
            f"{one.step:,}/{one.total_steps:,}",
            loss,
            best,
            duration_words(one.seconds),
            bytes_words(one.bytes),
        )
        output.line(f"{one.run:<34}  {one.state:<9}  {' · '.join(about)} · {one_line(one.model, 40)}")


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
    if status.unwritten:
        parts.append(one_line(status.unwritten, 160))
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
