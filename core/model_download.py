"""A hub model downloaded in the background, by a process of its own, while the person goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .errors import FinetuiError

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

    @classmethod
    def start(cls, repo: str, revision: str | None = None, remote_code: str | None = None) -> Download:
        """Starts to download `repo`, or follows the download of it that is under way. Returns within milliseconds.

        Raises FinetuiError (worker-start) where no process can be started.
        """
        raise NotImplementedError

    def poll(self) -> DownloadState:
        """Where it stands: one small file is read."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Ends it. What was fetched stays, and the next start goes on from there."""
        raise NotImplementedError
