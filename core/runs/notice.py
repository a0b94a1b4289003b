"""Tells a program of the person's that a run has ended, or needs them, also when nobody looks: the command in `FINETUI_NOTIFY`.

The worker runs it at its end; of a worker that was killed, whoever follows the run does. It is run once for each job, and
once for each kind of trouble that a job meets and cannot mend by itself.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from pathlib import Path

from .. import secrets
from ..text import one_line
from .state import RunStatus
from .store import RunFolder

VARIABLE = "FINETUI_NOTIFY"

NEEDS_YOU = ("stop-unsaved", "result-waiting", "checkpoint-skipped", "rows-left-out")
"""The codes of warnings that ask for a person: a run waits, or something is lost if nobody acts."""


def command() -> list[str]:
    """The person's command, split as a shell would; empty where there is none, or where its quotes are not closed."""
    try:
        return shlex.split(os.environ.get(VARIABLE, ""))
    except ValueError:
        return []


def claim(run: RunFolder, pid: int | None, create_time: float | None) -> bool:
    """Whether this process is the one to tell the end of the job that this worker did; at most one ever is. Where nothing can
    be noted down (no room for a file, read-only), the worker itself is."""
    if not command() or pid is None or create_time is None:
        return False
    try:
        os.close(
            os.open(run.path / f".told-{pid}-{create_time:.0f}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        )
    except FileExistsError:
        return False
    except OSError:
        return pid == os.getpid()
    return True


def tell(run: RunFolder, *, name: str, job: str, state: str, what: str = "") -> str:
    """Starts the command, without a shell and without anything that is named like a secret, in a session of its own, and does
    not wait for it. Returns in words why it could not be started, or nothing.

    It gets `FINETUI_RUN` (the id), `FINETUI_RUN_NAME`, `FINETUI_RUN_FOLDER`, `FINETUI_RUN_JOB` (train, resume, export, verify),
    `FINETUI_RUN_STATE` (completed, stopped, failed, crashed, trouble) and `FINETUI_RUN_MESSAGE` (what happened, in a line).
    """
    argv = command()
    if not argv:
        return ""
    title = one_line(name or run.id, 120)
    told = {
        "FINETUI_RUN": run.id,
        "FINETUI_RUN_NAME": title,
        "FINETUI_RUN_FOLDER": str(run.path),
        "FINETUI_RUN_JOB": job,
        "FINETUI_RUN_STATE": state,
        "FINETUI_RUN_MESSAGE": secrets.redact(one_line(what or f"{title}: {state}", 300)),
    }
    try:
        home = Path.home()
        process = subprocess.Popen(
            [os.path.expanduser(argv[0]), *argv[1:]],
            env={**secrets.without(os.environ), **told},
            cwd=home if home.is_dir() else "/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        return f"{VARIABLE} could not be run: {error}"
    threading.Thread(target=process.wait, name="notice", daemon=True).start()  # no zombie of a wizard
    return ""


def of_status(run: RunFolder, status: RunStatus) -> str:
    """Tells the end of a run that is followed, where its worker vanished before it could. Returns what `tell` does."""
    if status.state != "crashed" or not claim(run, status.pid, status.create_time):
        return ""
    what = status.card.what if status.card is not None else ""
    return tell(run, name=status.name, job=status.job, state=status.state, what=what)
