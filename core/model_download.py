"""A hub model downloaded in the background, by a process of its own, while the person goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from . import hub, paths
from .errors import FinetuiError
from .runs import launch, manifest, state
from .text import clean, one_line

MODULE = "finetui.core.worker.fetch"

State = Literal["checking", "running", "done", "cancelled", "failed"]


@dataclass(frozen=True)
class DownloadState:
    """A download at one moment. Bytes are counted on the disk."""

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


@dataclass(frozen=True)
class Download:
    """A download that was started, here or by another wizard."""

    repo: str
    revision: str | None
    pid: int
    create_time: float
    folder: Path
    """Where its process writes how it stands."""

    @classmethod
    def start(cls, repo: str, revision: str | None = None, remote_code: str | None = None) -> Download:
        """Starts to download `repo`, or follows the download of it that is under way. Returns within milliseconds.

        `remote_code` brings the Python files of exactly that commit along. Raises FinetuiError (worker-start) where no
        process can be started, and hub-not-found for what is no hub id.
        """
        if not hub.is_id(repo):
            raise hub.not_found_card(repo, "model")
        revision = remote_code or revision
        folder = paths.cache() / "downloads" / repo.replace("/", "--")
        try:
            paths.private_dir(folder)
            for other in cls._known(folder):
                if other.revision == revision and _alive(other.pid, other.create_time):
                    if other.poll().live:
                        return other
                else:
                    other._file.unlink(missing_ok=True)
            pid = _spawn(folder, repo, revision, bool(remote_code))
        except OSError as error:
            raise FinetuiError(
                "The download cannot be started.",
                f"{error.strerror or error}.",
                "finetui doctor looks for the cause.",
                code="worker-start",
            ) from error
        return cls(repo, revision, pid, launch.create_time(pid), folder)

    @classmethod
    def under_way(cls) -> tuple[Download, ...]:
        """The downloads at work now, whichever wizard started them."""
        found: list[Download] = []
        with contextlib.suppress(OSError):
            for folder in (paths.cache() / "downloads").iterdir():
                found += [d for d in cls._known(folder) if _alive(d.pid, d.create_time) and d.poll().live]
        return tuple(found)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.pid}.json"

    def poll(self) -> DownloadState:
        """Where it stands: one small file is read."""
        alive = _alive(self.pid, self.create_time)  # asked first: its last word may come in between
        told = _read(self._file)
        state = DownloadState() if told is None else _state(told)
        if state.live and not alive:
            return replace(
                state,
                state="failed",
                bytes_per_second=0.0,
                eta_seconds=None,
                error=FinetuiError(
                    f"The download of {one_line(self.repo, 100)} ended before its end.",
                    "Its process is gone.",
                    "Start it again: it goes on from where it was.",
                    code="download-ended",
                ),
            )
        return state

    def cancel(self) -> None:
        """Ends it. What was fetched stays, and the next start goes on from there."""
        if _alive(self.pid, self.create_time):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGTERM)

    @classmethod
    def _known(cls, folder: Path) -> list[Download]:
        found: list[Download] = []
        for file in folder.glob("*.json"):
            told = _read(file)
            if told is None:
                continue
            with contextlib.suppress(KeyError, TypeError, ValueError):
                revision = told["revision"]
                found.append(
                    cls(
                        str(told["repo"]),
                        None if revision is None else str(revision),
                        int(told["pid"]),
                        float(told["create_time"]),
                        folder,
                    )
                )
        return found


def _spawn(folder: Path, repo: str, revision: str | None, code: bool) -> int:
    """The pid of a new download process, in a session of its own so that no key pressed here reaches it."""
    me = os.getpid()
    arguments = [str(folder), repo, revision or "-", "code" if code else "-", str(me)]
    log = os.open(folder / "fetch.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, *arguments, repr(launch.create_time(me))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=launch.worker_environment(),
            start_new_session=True,
        )
    finally:
        os.close(log)
    threading.Thread(target=process.wait, name=f"reap-{process.pid}", daemon=True).start()
    return process.pid


def _alive(pid: int, create_time: float) -> bool:
    return bool(state.worker_alive(pid, create_time, manifest.this_host()))


def _read(file: Path) -> dict[str, Any] | None:
    try:
        with file.open("rb") as stream:
            told = json.loads(stream.read(64 * 1024))
        return told if isinstance(told, dict) else None
    except (OSError, ValueError, RecursionError):
        return None


def _state(told: dict[str, Any]) -> DownloadState:
    def number(name: str) -> float:
        value = told.get(name)
        return float(value) if isinstance(value, (int, float)) and value >= 0 else 0.0

    named: State = next((name for name in get_args(State) if name == told.get("state")), "checking")
    card = told.get("error")
    error = None
    if isinstance(card, dict):
        what, why, fix = (clean(str(card.get(part, "")), 1000) for part in ("what", "why", "fix"))
        error = FinetuiError(what, why, fix, code=str(card.get("code", "error")))
    return DownloadState(
        done_bytes=int(number("done_bytes")),
        total_bytes=int(number("total_bytes")),
        bytes_per_second=number("bytes_per_second"),
        eta_seconds=number("eta_seconds") if told.get("eta_seconds") is not None else None,
        state=named,
        error=error,
    )
