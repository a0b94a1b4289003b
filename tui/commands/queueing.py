"""`finetui queue`: the runs that wait for a GPU or the CPU, and their order."""

from __future__ import annotations

from typing import Annotated

import typer

from . import output
from .recipes import JsonOption
from .training import RunArgument

app = typer.Typer(
    rich_markup_mode=None, help="The runs that wait their turn: show them, move them, take them out."
)


@app.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the runs that wait their turn; move one, or take it out."""
    if context.invoked_subcommand is not None:
        return
    from ...core.runs import queue, turns

    turns.tend()
    waiting, devices = queue.places(), queue.devices()
    if as_json:
        output.data(
            {
                "waiting": [
                    {
                        "place": n,
                        "run": one.run.id,
                        "path": one.path,
                        "job": one.job,
                        "devices": list(one.devices),
                    }
                    for n, one in enumerate(waiting, 1)
                ],
                "devices": [{"device": device, "in_use": queue.in_use(device)} for device in devices],
            }
        )
        return
    for device in devices:
        name = "CPU" if device == queue.CPU else f"GPU {device}"
        output.line(f"{name}: {'in use by a run' if queue.in_use(device) else 'free'}")
    for n, one in enumerate(waiting, 1):
        output.line(f"{n:>3}  {one.run.id}" + ("  (resumes)" if one.job == "resume" else ""))
    if not waiting:
        output.line("No run waits. finetui train RECIPE --queue puts one here.")


@app.command("move")
def move(
    run: RunArgument, place: Annotated[int, typer.Argument(min=1, help="Its new place; 1 is the next.")]
) -> None:
    """Give a run another place."""
    from ...core.runs import queue, store

    folder = store.find(run)
    output.line(f"{folder.id} has place {queue.move(folder, place)} now.")


@app.command("remove")
def remove(run: RunArgument) -> None:
    """Take a run out of the queue; its folder stays."""
    from ...core.runs import queue, store

    folder = store.find(run)
    if not queue.leave(folder):
        raise queue.not_queued(folder)
    output.line(f"{folder.id} waits no more. finetui train {folder.recipe} starts it.")
