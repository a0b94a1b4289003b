"""`finetui longer` and `finetui duplicate`: runs made from runs."""

from __future__ import annotations

from typing import Annotated

import typer

from . import output
from .recipes import JsonOption, SetOption, changed, usage
from .training import DetachOption, QueueOption, RunArgument, _check_sources, began


def longer(
    run: RunArgument,
    epochs: Annotated[float | None, typer.Option("--epochs", min=0.0, help="So many epochs more.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="So many steps more.")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", help="The peak of the new schedule; the run's own otherwise."),
    ] = None,
    queued: QueueOption = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a finished run longer, from its last checkpoint, as a new run. The old one stays as it is.

    The optimizer and the order of the rows go on; the learning rate's schedule runs anew over the added steps.
    """
    from ...core.runs import lineage, store

    if epochs is not None and steps is not None:
        raise usage("--epochs and --steps do not go together.", "Both say how long.", "Give one of them.")
    plan = lineage.longer(store.find(run), epochs=epochs, steps=steps, learning_rate=learning_rate)
    if not as_json:
        output.line(plan.words)
    began(lineage.start_longer(plan, queued=queued), detach or queued, as_json)


def duplicate(
    run: RunArgument,
    settings: SetOption = None,
    from_adapter: Annotated[
        bool, typer.Option("--from-adapter", help="Start from what it learned, not from the base model.")
    ] = False,
    queued: QueueOption = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start a new run with the settings of another, changed with --set."""
    from ...core.runs import launch, lineage, store

    old = store.find(run)
    recipe = changed(lineage.onward(old) if from_adapter else lineage.copied(old), settings)
    _check_sources(recipe)
    made = launch.new(recipe, queued=queued)
    lineage.sign(made, lineage.Origin(old.id, "adapter" if from_adapter else "copy"))
    began(made, detach or queued, as_json)
