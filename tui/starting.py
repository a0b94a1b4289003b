"""Starting runs: the draft as one, and any in its turn, where another is at work already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..core.check import Check
from ..core.errors import FinetuiError
from ..core.recipe import STEPS, Recipe
from ..core.runs.store import RunFolder
from ..core.text import one_line
from .modals.confirm import ConfirmModal
from .wizard import STEP_NAMES

if TYPE_CHECKING:
    from .app import FinetuiApp

T = TypeVar("T")

ANSWERS = (("queue", "Wait in the queue"), ("now", "Start anyway"), ("cancel", "Cancel"))


def start_draft(app: FinetuiApp) -> None:
    """Starts the training of the draft and opens its run; where something is wrong with it, shows that."""
    wizard = app.wizard
    for step in STEPS:
        wrong = wizard.problems(step)
        if wrong:
            app.notify(wizard.sentence(*wrong[0]), title=STEP_NAMES[step], severity="error", markup=False)
            wizard.focused[step] = wrong[0][0]
            app.go(step)
            return
        trouble = wizard.trouble(step)
        if trouble is not None:
            app.show_error(trouble, lambda step=step: app.go(step))
            return
    recipe, warm, origin = wizard.draft.recipe(), app.warming.worker, wizard.origin
    facts = wizard.model_facts if not wizard.model_busy else None
    rows = wizard.dataset_facts if not wizard.dataset_busy else None

    def prepare() -> Recipe:
        from ..core.runs import launch, preflight

        return preflight.ready(launch.resolved(recipe, Path.cwd()), facts, rows)

    def start(ready: Recipe, queued: bool) -> RunFolder:
        from ..core.runs import launch, lineage

        run = launch.new(ready, warm=None if queued else warm, queued=queued)
        if origin is not None:
            lineage.sign(run, origin)
        return run

    in_turn(app, prepare, start, app.started)


def in_turn(
    app: FinetuiApp,
    prepare: Callable[[], T],
    start: Callable[[T, bool], RunFolder],
    done: Callable[[RunFolder], object],
    failed: Callable[[FinetuiError], object] | None = None,
) -> None:
    """Calls `start(prepared, queued)` in a thread, then `done`. Where all GPUs (or the CPU) are in use, asks first whether it waits in
    the queue; where another one is free than it would take, it goes through the queue, which gives it that one at once.

    `prepare` is called, in a thread too, before anything is asked; what it and `start` raise goes to `failed` (a card by
    default).
    """

    def begin(prepared: T, queued: bool) -> None:
        def work() -> tuple[RunFolder, Check]:
            from ..core.terminal_checks import log_out_check

            return start(prepared, queued), log_out_check()

        def begun(found: tuple[RunFolder, Check]) -> None:
            run, check = found
            done(run)
            if check.status == "warn":  # the system ends runs as soon as their user logs out
                words = f"{check.detail}. {check.fix}"
                app.notify(words, title="Logging out", severity="warning", timeout=20, markup=False)

        app.in_background("start", work, begun, failed)

    def look() -> tuple[T, str, str]:
        from ..core.runs import turns

        prepared, outlook = prepare(), turns.outlook()
        return prepared, outlook, what_is_at_work() if outlook == "busy" else ""

    def seen(found: tuple[T, str, str]) -> None:
        prepared, outlook, words = found
        if outlook != "busy":
            begin(prepared, outlook == "another")
            return

        def answered(answer: str | None) -> None:
            if answer in ("queue", "now"):
                begin(prepared, answer == "queue")

        app.push_screen(ConfirmModal("Another run is at work", words, ANSWERS), answered)

    app.in_background("start", look, seen, failed)


def what_is_at_work() -> str:
    """What is at work and what waits, and what follows from that, in words. Blocking."""
    from ..core.runs import queue
    from ..core.runs.at_work import at_work

    waiting = len(queue.places())
    found = next(((run, now) for run, now in at_work() if now.state != "queued"), None)
    words = "It takes what this machine has to train on."
    if found is not None:
        run, now = found
        where = f" at step {now.step:,} of {now.total_steps:,}" if now.total_steps else ""
        words = f"{one_line(now.name or run.id, 60)} is{where or ' getting ready'}."
    queued = f" {waiting} {'run waits' if waiting == 1 else 'runs wait'} in the queue." if waiting else ""
    return f"{words}{queued} In the queue this one starts by itself, also without this window. Both at once are slower, and may not fit in memory."
