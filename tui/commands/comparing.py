"""`finetui compare`: runs side by side, in lines."""

from __future__ import annotations

from typing import Annotated

import typer

from ...core.text import duration_words, one_line
from . import output
from .recipes import JsonOption


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN …", help="Two to six runs, as for the other commands.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Show where runs differ: their recipes, their losses, their answers."""
    from dataclasses import asdict

    from ...core.runs import compare as comparing
    from ...core.runs import store
    from ..plain import number

    folders = list({run.path: run for run in (store.find(text) for text in runs)}.values())
    comparing.check(len(folders))
    found = [comparing.read(run) for run in folders]
    different = comparing.differences(found)
    if as_json:
        output.data(
            {
                "runs": [
                    {
                        **asdict(one.summary),
                        "curve": one.curves.average.view(0, max(1, one.curves.newest), 50),
                    }
                    for one in found
                ],
                "differences": [asdict(one) for one in different],
            }
        )
        return
    for place, one in enumerate(found, 1):
        told = one.summary
        best = f", best held-out {number(told.best)}" if told.best is not None else ""
        at = f" at step {told.best_evaluation_step:,}" if told.best_evaluation_step else ""
        loss = f"loss {number(told.loss)}" if told.loss is not None else "no step"
        output.line(f"{place}  {told.run}  {told.state}, {loss}{best}{at}, {duration_words(told.seconds)}")
    output.line("")
    if not different:
        output.line("Their recipes are the same.")
    for one in different:
        output.line(
            f"{one.title:<22}" + "  ".join(f"{i}: {one_line(v, 60)}" for i, v in enumerate(one.values, 1))
        )
    shared = [p for p in found[0].answers if all(p in other.answers for other in found)]
    for prompt in shared[:3]:
        output.line("")
        output.line(one_line(prompt, 160))
        for place, one in enumerate(found, 1):
            output.line(f"  {place}  {one_line(one.answers[prompt], 160)}")
