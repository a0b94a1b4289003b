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
    from ...core.runs.summary import Summary


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
    from ...core.runs import care, follow, store
    from ...core.runs.summary import Summaries

    if sort != "newest" or words:
        _chosen(sort, words, everything, tag, as_json)
        return
    if as_json:
        labelled = [(run, care.labels(run)) for run in store.all_runs()]
        output.data(
            [
                {
                    "run": run.id,
                    "path": str(run.path),
                    **_fields(follow.whole_status(run)),
                    "labels": labels.model_dump(mode="json"),
                }
                for run, labels in labelled
                if (everything or not labels.archived) and (tag is None or tag in labels.tags)
            ]
        )
        return
    every = Summaries().read()
    found = [one for one in every if (everything or not one.archived) and (tag is None or tag in one.tags)]
    if not found and every:
        output.line("No run to show; finetui runs --all shows archived ones.")
        return
    if not found:
        output.line("No run has been started yet. Try: finetui demo")
        return
    wide = max(len(one.run) for one in found)
    for one in found:
        output.line(f"{one.run:<{wide}}  {one.state:<9}  {words_of(one)}".rstrip())
        about = " ".join([one.title, *(f"#{tag}" for tag in one.tags)]).strip()
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


def words_of(one: Summary) -> str:
    """Where a run stands, in a line."""
    from ...core.text import duration_words
    from ..plain import number

    parts = []
    if one.total_steps:
        parts.append(f"step {one.step:,}/{one.total_steps:,}")
    if one.loss is not None:
        parts.append(f"loss {number(one.loss)}")
    if one.evaluation_loss is not None:
        parts.append(f"held-out {number(one.evaluation_loss)}")
    if one.state == "running" and one.stage not in ("", "train"):
        parts.append(one_line(one.stage, 20))
    if one.eta_seconds is not None:
        parts.append(f"{duration_words(one.eta_seconds)} left")
    elif not one.live and one.seconds:
        parts.append(f"took {duration_words(one.seconds)}")
    if one.unwritten:
        parts.append(one_line(one.unwritten, 160))
    if one.host:
        parts.append(f"on {one_line(one.host, 60)}")
    if one.card:
        aside = f"{one.aside}: " if one.aside else ""
        parts.append(one_line(f"{aside}{one.card.what} {one.card.why}", 160))
    return " · ".join(parts)


def _fields(status: RunStatus) -> dict[str, object]:
    values = asdict(status)
    if values.get("score"):
        values["score"].pop("examples", None)
    return values
