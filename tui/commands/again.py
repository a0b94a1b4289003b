"""`finetui longer`, `duplicate` and `retry`: runs made from runs. `finetui back`: a run at an earlier step."""

from __future__ import annotations

from typing import Annotated

import typer

from . import output
from .care import YesOption, confirmed
from .recipes import JsonOption, SetOption, changed, usage
from .training import DetachOption, QueueOption, RunArgument, began, detached, start


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
    from ...core.runs import launch, lineage, preflight, store

    old = store.find(run)
    recipe = changed(lineage.onward(old) if from_adapter else lineage.copied(old), settings)
    made = launch.new(preflight.ready(recipe), queued=queued)
    lineage.sign(made, lineage.Origin(old.id, "adapter" if from_adapter else "copy"))
    began(made, detach or queued, as_json)


def back(
    run: RunArgument,
    step: Annotated[
        int | None,
        typer.Option("--step", min=1, help="Of a checkpoint; that of the best held-out loss otherwise."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to the best checkpoint of a run: it exports, talks with and goes on from that one.

    What it ended with is kept beside it, later checkpoints are set aside, and exports stay as they are.
    """
    from ...core.runs import best, store

    folder = store.find(run)
    chosen = best.step_of(folder) if step is None else step
    words = best.go_back(folder, chosen)
    if as_json:
        output.data({"run": folder.id, "path": str(folder.path), "step": chosen})
    else:
        output.line(f"{folder.id}: {words}")


def retry(
    run: RunArgument,
    yes: YesOption = False,
    settings: SetOption = None,
    queued: QueueOption = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
) -> None:
    """Try a failed run again with what mends it, as a new run. The old one stays as it is.

    Says why it failed and shows the change of the recipe as a diff; asks before it starts. --set changes more.
    """
    from ...core.runs import launch, store
    from ...core.runs import retry as again

    plan = again.plan(store.find(run))
    if settings:
        plan = again.with_recipe(plan, changed(plan.recipe, settings))
    if not as_json:
        for part in (plan.card.what, plan.card.why):
            if part:
                output.line(part)
        output.line("")
        for row in plan.diff():
            output.line(row)
        for part in (plan.why, plan.first, plan.words):
            if part:
                output.line(part)
    if not confirmed("Start it?", yes, default=True):
        return
    if plan.job in ("export", "verify"):
        raise typer.Exit(start(plan.run, plan.job, detach, as_json, formats=again.formats(plan)))
    elif plan.new:
        began(again.start(plan, queued=queued), detach or queued, as_json)
    elif queued:
        detached(again.resume(plan.run, queued=True), as_json)
    else:
        launch.check_resumable(plan.run)
        raise typer.Exit(start(plan.run, "resume", detach, as_json))
