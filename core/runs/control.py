"""Requests to a worker: one file each, made atomically, deleted by the worker once it has acted."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Literal, Protocol, get_args

from .. import atomic, paths
from ..errors import FinetuiError
from . import manifest, queue, state
from .events import AFTER_TRAINING
from .store import RunFolder

Request = Literal["stop", "stop-now", "pause", "continue", "save", "sample", "evaluate"]

REQUESTS: tuple[Request, ...] = get_args(Request)

BEFORE = ("start", "download", "load", "dataset", "tokenize", "tools", "baseline", "probe")
"""The stages of a training before its first step."""

_OTHER_JOBS = ("export", "verify", "probe")

_WORDS: dict[Request, str] = {
    "stop": "Stopping: the worker saves after this step, then ends.",
    "stop-now": "Stopping: the worker ends after this step, without saving.",
    "pause": "Pausing after this step; everything stays in memory.",
    "continue": "It goes on, without a pause.",
    "save": "A checkpoint is saved after this step.",
    "evaluate": "An evaluation follows this step.",
    "sample": "Samples follow this step.",
}
"""What follows from each request, in words, where the run is at a step."""

_FIRST: dict[Request, str] = {
    "stop": "Stopping before the first step: nothing was learned that could be saved.",
    "stop-now": "Stopping before the first step.",
    "pause": "Pausing after the first step; everything stays in memory.",
    "save": "A checkpoint is saved after the first step.",
    "evaluate": "An evaluation follows the first step.",
    "sample": "Samples follow the first step.",
}

_IN_PAUSE: dict[Request, str] = {
    "stop": "Stopping: the worker saves, then ends.",
    "stop-now": "Stopping: the worker ends without saving.",
    "pause": "It is paused already; everything stays in memory.",
    "continue": "Going on.",
    "save": "A checkpoint is saved now.",
    "evaluate": "An evaluation begins now.",
    "sample": "Samples are made now.",
}


def _between(what: str) -> dict[Request, str]:
    return {
        "stop": f"Stopping: the worker breaks the {what} off, saves, then ends.",
        "stop-now": f"Stopping: the worker breaks the {what} off, then ends without saving.",
        "pause": f"Pausing after the {what}; everything stays in memory.",
        "save": "A checkpoint is saved after the next step.",
        "evaluate": "An evaluation follows the next step.",
        "sample": "Samples follow the next step.",
    }


_BETWEEN = {"evaluate": _between("evaluation"), "sample": _between("samples")}
"""Where the held-out rows are evaluated, or samples made, between two steps."""

PAUSING = tuple(words["pause"] for words in (_WORDS, _FIRST, *_BETWEEN.values()))


class Seen(Protocol):
    """What decides what a run can be asked for: its status, or its summary."""

    @property
    def standing(self) -> str: ...
    @property
    def job(self) -> str: ...
    @property
    def stage(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def total_steps(self) -> int: ...
    @property
    def paused(self) -> bool: ...
    @property
    def resumable(self) -> bool: ...


def refused(name: Request, of: Seen) -> str:
    """Why a live run cannot be asked for `name`, in a sentence; empty where it can."""
    if name in ("stop", "stop-now") or (name == "continue" and of.paused):
        return ""
    if of.standing == "queued":
        return "It waits in the queue, and no step is made yet."
    if of.job in _OTHER_JOBS:
        return f"It is at the job {of.job}, which has no steps."
    over = of.total_steps > 0 and of.step >= of.total_steps and of.stage not in BEFORE
    return "The training is over, and no step follows." if over or of.stage in AFTER_TRAINING else ""


def saves(of: Seen) -> bool:
    """Whether a live run that is asked to stop has something of its training to save first."""
    at_work = of.standing != "queued" and of.job not in _OTHER_JOBS
    return at_work and not _at_no_step(of) and of.stage not in AFTER_TRAINING


def way_back(run: RunFolder, of: state.RunStatus, *, saved: bool) -> str:
    """How the training of `run`, seen as `of`, goes on once it has ended, in a sentence; empty where it is another job that
    ends. `saved`: it saves at its end."""
    if of.job in _OTHER_JOBS:
        return ""
    if saved or of.checkpoint_step is not None:
        return f"finetui resume {run.id} goes on with it."
    return f"finetui train {run.recipe} starts it again from the beginning."


def _at_no_step(of: Seen) -> bool:
    """Whether this attempt has not come to its first step."""
    return of.stage in BEFORE or (of.stage == "sample" and not of.step)


def _answer(name: Request, of: state.RunStatus) -> str:
    """What follows from `name`, in words."""
    if name in ("stop", "stop-now"):
        if of.standing == "queued":
            return "Taken out of the queue."
        if of.stage == "save" and of.paused:
            return "Stopping: the result, which waits for room, is given up."
        if of.job in _OTHER_JOBS or refused("save", of):
            return "Stopping: what is done is kept, and the rest is left out."
    if of.paused:
        return _IN_PAUSE.get(name, _WORDS[name])
    if _at_no_step(of):
        return _FIRST.get(name, _WORDS[name])
    return _BETWEEN.get(_between_steps(of), _WORDS).get(name, _WORDS[name])


def _between_steps(of: state.RunStatus) -> str:
    """The stage that lasts between two steps; empty where a step is under way."""
    return of.stage if of.stage in _BETWEEN and of.stage_done < of.stage_total else ""


_TAKEN_BACK: dict[Request, Request] = {"pause": "continue", "continue": "pause"}


def request(run: RunFolder, name: Request) -> str:
    """Asks the run's worker for `name`. Asking twice is asking once; anybody may ask. `pause` and `continue` take each
    other back. Returns what follows, in words.

    Raises FinetuiError: run-not-running where no worker lives (a reused pid is none), no-steps where the worker would not
    come to it, run-folder where the request cannot be written.
    """
    if name not in REQUESTS:
        raise ValueError(name)
    now = state.status(run)
    if not now.live:
        raise _not_running(run, now)
    why = refused(name, now)
    at_step = not (now.paused or _at_no_step(now) or _between_steps(now))
    if not why and name == "pause" and at_step and now.step == now.total_steps - 1:
        why = "Its last step is under way."
    if why:
        raise FinetuiError(
            f"{run.id} cannot be asked to {name} now.",
            why,
            f"finetui attach {run.id} shows what it does; finetui stop {run.id} ends it.",
            code="no-steps",
        )
    try:
        paths.private_dir(run.control)
        if name in _TAKEN_BACK:
            (run.control / _TAKEN_BACK[name]).unlink(missing_ok=True)
        atomic.write_text(run.control / name, "")
    except OSError as error:
        raise FinetuiError(
            f"{run.id} cannot be asked to {name}.",
            f"{run.control}: {error.strerror or error}.",
            "Make room on the disk, or check who owns the folder.",
            code="run-folder",
        ) from error
    return _answer(name, now)


def pending(run: RunFolder) -> tuple[Request, ...]:
    """The requests that the worker has not yet acted on."""
    return tuple(name for name in REQUESTS if (run.control / name).exists())


def clear(run: RunFolder) -> None:
    """Removes requests that were meant for an earlier worker."""
    for name in REQUESTS:
        with contextlib.suppress(OSError):
            (run.control / name).unlink()


def kill(run: RunFolder) -> None:
    """Kills the run's worker and what it started, after pid, create time, host and command line all agree.

    Nothing is saved. Raises FinetuiError: run-not-running, run-elsewhere, not-a-worker.
    """
    import psutil

    with contextlib.suppress(OSError):
        queue.leave(run)  # or another one would take its place
    now = state.status(run)
    if not now.live or now.pid is None or now.create_time is None:
        raise _not_running(run, now)
    if now.host != manifest.this_host():
        raise FinetuiError(
            f"{run.id} cannot be killed from here.",
            f"Its worker runs on {now.host}.",
            f"Do it on {now.host}, or use finetui stop {run.id}, which reaches it through its folder.",
            code="run-elsewhere",
        )
    try:
        process = psutil.Process(now.pid)
        words = process.cmdline()
    except psutil.Error:
        raise _not_running(run, now) from None
    if not any("finetui.core.worker" in word for word in words):
        raise FinetuiError(
            f"{run.id} is not killed.",
            f"Process {now.pid} is none of finetui's workers.",
            "Look at it with ps, and end it yourself if it is to end.",
            code="not-a-worker",
        )
    if not state.worker_alive(now.pid, now.create_time, now.host):
        raise _not_running(run, now)
    try:
        if os.getpgid(now.pid) == now.pid:
            os.killpg(now.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, psutil.NoSuchProcess):
        raise _not_running(run, now) from None
    except (PermissionError, psutil.AccessDenied):
        raise FinetuiError(
            f"{run.id} cannot be killed.",
            f"Process {now.pid} belongs to somebody else.",
            "Ask its owner.",
            code="not-allowed",
        ) from None


def _not_running(run: RunFolder, now: state.RunStatus) -> FinetuiError:
    fix = ""
    if now.state in ("stopped", "crashed") and not now.trained:
        fix = way_back(run, now, saved=False)
    return FinetuiError(
        f"{run.id} is not running.",
        f"It is {now.state}; no worker of its own is alive.",
        fix or "finetui runs lists what runs.",
        code="run-not-running",
    )
