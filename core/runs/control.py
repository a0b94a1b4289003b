"""Requests to a worker: one file each, made atomically, deleted by the worker once it has acted."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Literal, get_args

from .. import atomic, paths
from ..errors import FinetuiError
from . import manifest, queue, state
from .store import RunFolder

Request = Literal["stop", "stop-now", "pause", "continue", "save", "sample", "evaluate"]

REQUESTS: tuple[Request, ...] = get_args(Request)

WORDS: dict[Request, str] = {
    "stop": "Stopping: the worker saves after this step, then ends.",
    "stop-now": "Stopping: the worker ends after this step, without saving.",
    "pause": "Pausing after this step; everything stays in memory.",
    "continue": "Going on.",
    "save": "A checkpoint is saved after this step.",
    "evaluate": "An evaluation follows this step.",
    "sample": "Samples follow this step.",
}
"""What follows from each request, in words."""

IN_EVALUATION: dict[Request, str] = {
    "stop": "Stopping: the worker breaks the evaluation off, saves, then ends.",
    "stop-now": "Stopping: the worker breaks the evaluation off, then ends without saving.",
    "pause": "Pausing after the evaluation; everything stays in memory.",
}
"""The same where it is asked for while the held-out rows are evaluated."""

PAUSING = (WORDS["pause"], IN_EVALUATION["pause"])

_TAKEN_BACK: dict[Request, Request] = {"pause": "continue", "continue": "pause"}


def request(run: RunFolder, name: Request) -> str:
    """Asks the run's worker for `name`. Asking twice is asking once; anybody may ask. `pause` and `continue` take each
    other back. Returns what follows, in words.

    Raises FinetuiError: run-not-running where no worker lives (a reused pid is none), run-folder where the request
    cannot be written.
    """
    if name not in REQUESTS:
        raise ValueError(name)
    now = state.status(run)
    if not now.live:
        raise _not_running(run, now)
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
    words = WORDS[name]
    return IN_EVALUATION.get(name, words) if now.stage == "evaluate" and not now.paused else words


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
    fix = f"finetui resume {run.id} goes on with it." if now.state in ("stopped", "crashed") else ""
    return FinetuiError(
        f"{run.id} is not running.",
        f"It is {now.state}; no worker of its own is alive.",
        fix or "finetui runs lists what runs.",
        code="run-not-running",
    )
