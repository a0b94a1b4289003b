"""The commands that start, follow and stop runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ...core.errors import FinetuiError
from . import output
from .recipes import JsonOption, SetOption, changed, read, usage

if TYPE_CHECKING:
    from ...core.runs.store import RunFolder
    from ...core.training import Plan

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, the start of one, its name, its folder, or: last")
]
PlainOption = Annotated[bool, typer.Option("--plain", help="Plain lines in place of the full screen.")]
QueueOption = Annotated[bool, typer.Option("--queue", help="Let it wait until the GPU (or the CPU) is free.")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Start it and return at once.")]

CTRL_C = "Ctrl+C asks the run to save and stop; a second one leaves it to itself."


def open_wizard(*, demo: bool = False, attach: RunFolder | None = None) -> int:
    """The wizard in this terminal; its exit code."""
    from ..app import run

    return run(demo=demo, attach=attach.path if attach else None, ascii=output.ascii_only)


def demo(plain: PlainOption = False, settings: SetOption = None) -> None:
    """Tune a small model in about three minutes and see what it learned.

    In a terminal the wizard opens with the demo filled in. With --plain or --set, or where there is no terminal, it
    runs to its end in plain lines.
    """
    from ...core.demo.recipe import demo_recipe

    recipe = changed(demo_recipe(), settings)
    if output.interactive() and not plain and not settings:
        raise typer.Exit(open_wizard(demo=True))
    from ...core.runs import launch

    _follow_new(launch.new(recipe))


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file; - is standard input.")],
    detach: DetachOption = False,
    queued: QueueOption = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe and follow it in plain lines or JSON.

    --json writes the run's events as they come, one JSON object a line.

    Ctrl+C asks the run to save and stop; a second one leaves it to itself. Closing the terminal leaves it to itself too.
    """
    from ...core.runs import launch, preflight

    read_recipe, folder = read(recipe)
    plans: list[Plan] = []
    ready = preflight.ready(
        launch.resolved(changed(read_recipe, settings), folder),
        tell=plans.append,
        warn=lambda said: output.line(f"Note: {said}", sys.stderr),
    )
    run = launch.new(ready, queued=queued)
    for plan in plans:
        output.line(f"{'plan':<11}{plan.words}", sys.stderr if as_json else sys.stdout)
    began(run, detach or queued, as_json)


def resume(
    run: RunArgument,
    detach: DetachOption = False,
    queued: QueueOption = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Even where data, model or libraries have changed since.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with a stopped or crashed run from its newest checkpoint."""
    from ...core.runs import launch, retry, store

    folder = store.find(run)
    if queued:
        detached(retry.resume(folder, queued=True, anyway=anyway), as_json)
        return
    launch.check_resumable(folder, anyway=anyway)
    raise typer.Exit(start(folder, "resume", detach, as_json, anyway=anyway))


def attach(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="As elsewhere; the newest that is at work otherwise."),
    ] = None,
    plain: PlainOption = False,
    as_json: JsonOption = False,
) -> None:
    """Follow a run on the dashboard or in plain lines; without a name, the newest that is at work.

    The dashboard opens in a terminal; elsewhere, or with --plain, lines are written. Ctrl+C leaves the run running.
    """
    from ...core.runs import store

    folder = store.find(run) if run is not None else _newest_at_work()
    if output.interactive() and not plain and not as_json:
        raise typer.Exit(open_wizard(attach=folder))
    from . import following

    raise typer.Exit(following.follow(folder, as_json=as_json))


def _newest_at_work() -> RunFolder:
    from ...core.runs.at_work import at_work

    waiting: RunFolder | None = None
    for folder, seen in at_work():
        if seen.state != "queued":
            return folder
        waiting = waiting or folder
    if waiting is not None:
        return waiting
    raise FinetuiError(
        "No run is at work.",
        "There is none to attach to.",
        "finetui attach last shows the newest one; finetui runs lists all.",
        code="run-not-found",
    )


def stop(
    run: RunArgument,
    now: Annotated[bool, typer.Option("--now", help="Stop at the next step and save nothing.")] = False,
    kill: Annotated[
        bool, typer.Option("--kill", help="Kill the worker, for one that no longer answers. Saves nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask a run to save and stop."""
    from ...core.runs import control, state, store

    folder = store.find(run)
    if now and kill:
        raise usage(
            "--now and --kill do not go together.", "One asks, the other does not.", "Give one of them."
        )
    name: Literal["kill", "stop", "stop-now"] = "kill" if kill else "stop-now" if now else "stop"
    before = state.status(folder)
    if name == "kill":
        control.kill(folder)
        words = f"Killed the worker of {folder.id}."
    else:
        words = f"{folder.id}: {control.request(folder, name)}"
    if as_json:
        output.data({"run": folder.id, "path": str(folder.path), "request": name})
        return
    saved = name == "stop" and control.saves(before)
    output.line(f"{words} {control.way_back(folder, before, saved=saved)}".rstrip())


def start(
    run: RunFolder,
    job: Literal["resume", "export", "verify"],
    detach: bool,
    as_json: bool,
    *,
    formats: tuple[str, ...] = (),
    anyway: bool = False,
    options: tuple[str, ...] = (),
) -> int:
    """Starts a job on `run` and follows it to its end. Returns the exit code. Raises FinetuiError."""
    from ...core.runs import launch
    from ...core.runs.follow import Follower
    from . import following

    follower, raw = Follower(run), following.RawEvents.from_now(run)
    follower.poll()
    launch.start(run, job, formats, anyway=anyway, options=options)
    if detach:
        detached(run, as_json)
        return 0
    _announce(run, as_json)
    return following.follow(run, as_json=as_json, ask_to_stop=True, follower=follower, raw=raw)


def began(run: RunFolder, detach: bool, as_json: bool) -> None:
    """Follows a run that was just started, or says how to come back to it."""
    if detach:
        detached(run, as_json)
    else:
        _follow_new(run, as_json)


def _follow_new(run: RunFolder, as_json: bool = False) -> None:
    from . import following

    _announce(run, as_json)
    raise typer.Exit(following.follow(run, as_json=as_json, ask_to_stop=True))


def _announce(run: RunFolder, as_json: bool) -> None:
    stream = sys.stderr if as_json else sys.stdout
    output.line(f"{'run':<11}{run.id}", stream)
    output.line(f"{'':<11}{run.path}", stream)
    if sys.stdin.isatty():
        output.line(f"{'':<11}{CTRL_C}", stream)
    _warn_of_log_out()


def detached(run: RunFolder, as_json: bool) -> None:
    """Says how to come back to a run that was started."""
    if as_json:
        output.data({"run": run.id, "path": str(run.path)})
        return
    from ...core.runs import queue

    place = queue.position(run)
    output.line(f"Started {run.id}." if place is None else f"{run.id} waits in the queue, at place {place}.")
    stops = "saves and stops it" if place is None else "takes it out"
    output.line(f"finetui attach {run.id} follows it; finetui stop {run.id} {stops}.")
    _warn_of_log_out()


def _warn_of_log_out() -> None:
    """Says so, beside the output, where the system ends runs as soon as their user logs out."""
    from ...core.terminal_checks import log_out_check

    check = log_out_check()
    if check.status == "warn":
        output.line(f"Note: {check.detail}. {check.fix}", sys.stderr)
