"""A hub model downloaded in the background, by a process of its own, while the person goes on."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from . import hub, paths, transfer
from .errors import FinetuiError
from .runs import launch
from .text import one_line
from .transfer import TransferState as DownloadState

__all__ = ["Download", "DownloadState"]

MODULE = "finetui.core.worker.fetch"


@dataclass(frozen=True)
class Download:
    """A download that was started, here or by another wizard. Its bytes are counted on the disk."""

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
                if other.revision == revision and transfer.alive(other.pid, other.create_time):
                    if other.poll().live:
                        return other
                else:
                    transfer.forget(other._file)
            me = os.getpid()
            arguments = [str(folder), repo, revision or "-", "code" if remote_code else "-"]
            arguments += [str(me), repr(launch.create_time(me))]
            pid = transfer.spawn(MODULE, arguments, folder / "fetch.log", folder)
        except OSError as error:
            raise transfer.not_started("The download cannot be started.", error) from error
        return cls(repo, revision, pid, launch.create_time(pid), folder)

    @classmethod
    def under_way(cls) -> tuple[Download, ...]:
        """The downloads at work now, whichever wizard started them."""
        found: list[Download] = []
        with contextlib.suppress(OSError):
            for folder in (paths.cache() / "downloads").iterdir():
                found += [
                    d for d in cls._known(folder) if transfer.alive(d.pid, d.create_time) and d.poll().live
                ]
        return tuple(found)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.pid}.json"

    def poll(self) -> DownloadState:
        """Where it stands: one small file is read."""
        vanished = FinetuiError(
            f"The download of {one_line(self.repo, 100)} ended before its end.",
            "Its process is gone.",
            "Start it again: it goes on from where it was.",
            code="download-ended",
        )
        return transfer.poll(self._file, self.pid, self.create_time, vanished)

    def cancel(self) -> None:
        """Ends it. What was fetched stays, and the next start goes on from there."""
        transfer.end(self._file, self.pid, self.create_time)

    @classmethod
    def _known(cls, folder: Path) -> list[Download]:
        found: list[Download] = []
        for told in transfer.known(folder):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                revision = None if told["revision"] is None else str(told["revision"])
                found.append(
                    cls(str(told["repo"]), revision, told["pid"], float(told["create_time"]), folder)
                )
        return found
