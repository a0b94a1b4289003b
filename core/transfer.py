"""Downloads and uploads: each a process of its own, followed through one small file that it writes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from . import atomic
from .errors import FinetuiError
from .runs import launch, manifest, state
from .text import clean

_ASKED = ".ended"

State = Literal["checking", "running", "done", "cancelled", "failed"]


@dataclass(frozen=True)
class TransferState:
    """A transfer at one moment."""

    done_bytes: int = 0
    total_bytes: int = 0
    """0 while it is not known."""
    bytes_per_second: float = 0.0
    eta_seconds: float | None = None
    state: State = "checking"
    error: FinetuiError | None = None

    @property
    def live(self) -> bool:
        return self.state in ("checking", "running")


def spawn(module: str, arguments: Sequence[str], log: Path, folder: Path, without: Sequence[str] = ()) -> int:
    """The pid of a new process of `module`, in a session of its own so that no key pressed here reaches it.

    It stands in `folder`, and what it prints goes to `log` (0600), which begins anew. Its environment is a worker's
    but for the variables of `without`. Raises OSError.
    """
    environment = launch.worker_environment()
    for name in without:
        environment.pop(name, None)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    threading.Thread(target=process.wait, name=f"reap-{process.pid}", daemon=True).start()
    return process.pid


def sign(file: Path, pid: int, create_time: float, repo: str) -> None:
    """Writes the first report of a process that was just started, for whoever looks before it has said anything itself.

    What it has said stands. Raises OSError.
    """
    first = file.with_suffix(".first")
    atomic.write_text(
        first, json.dumps({"pid": pid, "create_time": create_time, "repo": repo, "state": "checking"})
    )
    with contextlib.suppress(FileExistsError):
        os.link(first, file)
    first.unlink()


def alive(pid: int, create_time: float) -> bool:
    """Whether the process still works on this machine."""
    return bool(state.worker_alive(pid, create_time, manifest.this_host()))


def end(file: Path, pid: int, create_time: float) -> None:
    """Asks the process that reports in `file` to end; nothing where it has ended already.

    That it was asked is kept beside: one that is just beginning ends without a word.
    """
    if alive(pid, create_time):
        with contextlib.suppress(OSError):
            file.with_suffix(_ASKED).touch(0o600)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)


def forget(file: Path) -> None:
    """Removes what a process that has ended said of itself. Raises OSError."""
    file.unlink(missing_ok=True)
    file.with_suffix(_ASKED).unlink(missing_ok=True)


def poll(file: Path, pid: int, create_time: float, vanished: FinetuiError) -> TransferState:
    """What the process says of itself in `file`; failed with `vanished` where it is gone without a last word."""
    lives = alive(pid, create_time)  # asked first: its last word may come in between
    told = _read(file)
    found = TransferState() if told is None else _state(told)
    if found.live and not lives:
        ended = replace(found, bytes_per_second=0.0, eta_seconds=None)
        if file.with_suffix(_ASKED).exists():
            return replace(ended, state="cancelled")
        return replace(ended, state="failed", error=vanished)
    return found


def known(folder: Path) -> Iterator[dict[str, Any]]:
    """What the processes that ever wrote into `folder` say, live or not."""
    for file in folder.glob("*.json"):
        told = _read(file)
        if told is not None and isinstance(told.get("pid"), int):
            yield told


def not_started(what: str, error: OSError) -> FinetuiError:
    """The card for a process that the system did not start."""
    return FinetuiError(
        what, f"{error.strerror or error}.", "finetui doctor looks for the cause.", code="worker-start"
    )


def _read(file: Path) -> dict[str, Any] | None:
    try:
        with file.open("rb") as stream:
            told = json.loads(stream.read(64 * 1024))
        return told if isinstance(told, dict) else None
    except (OSError, ValueError, RecursionError):
        return None


def _state(told: dict[str, Any]) -> TransferState:
    def number(name: str) -> float:
        value = told.get(name)
        return float(value) if isinstance(value, (int, float)) and value >= 0 else 0.0

    named: State = next((name for name in get_args(State) if name == told.get("state")), "checking")
    card = told.get("error")
    error = None
    if isinstance(card, dict):
        what, why, fix = (clean(str(card.get(part, "")), 1000) for part in ("what", "why", "fix"))
        error = FinetuiError(what, why, fix, code=str(card.get("code", "error")))
    return TransferState(
        done_bytes=int(number("done_bytes")),
        total_bytes=int(number("total_bytes")),
        bytes_per_second=number("bytes_per_second"),
        eta_seconds=number("eta_seconds") if told.get("eta_seconds") is not None else None,
        state=named,
        error=error,
    )
