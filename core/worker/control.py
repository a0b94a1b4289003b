"""Requests to the worker: files in RUN/control, and SIGTERM, which means the same as `stop`."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from ..runs.control import REQUESTS as NAMES
from ..runs.control import Request as Name

ENDS: tuple[Name, ...] = ("stop", "stop-now")


class Left(Exception):
    """The loop is left between two steps; the reporter's outcome tells why."""


class Stopped(Exception):
    """The person asked to end."""


class Control:
    """Looks for requests and takes each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._terminated = False

    def clear(self, before: float) -> None:
        """Removes what was asked before the time `before` (seconds since the epoch): it was meant for an earlier job."""
        for name in NAMES:
            with contextlib.suppress(OSError):
                if (self._folder / name).stat().st_mtime < before:
                    (self._folder / name).unlink()

    def listen(self) -> None:
        """From here on SIGTERM and SIGINT ask to stop. A second one changes nothing."""

        def terminate(_number: int, _frame: object) -> None:
            self._terminated = True

        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, terminate)

    def take(self, *, ends: bool = True) -> set[Name]:
        """The requests made since the last call; their files are deleted. `ends=False` leaves those to end where they are."""
        taken: set[Name] = {"stop"} if self._terminated and ends else set()
        try:
            names = os.listdir(self._folder)
        except OSError:
            return taken
        for name in NAMES:
            if name in names and (ends or name not in ENDS):
                with contextlib.suppress(OSError):
                    (self._folder / name).unlink()
                taken.add(name)
        return taken

    @property
    def terminated(self) -> bool:
        """Whether the system asked for the end, by a signal: it will not wait."""
        return self._terminated

    def ending(self) -> bool:
        """Whether an end is asked for. Takes nothing: who can act on it still finds the request."""
        return self._terminated or any((self._folder / name).exists() for name in ENDS)

    def pausing(self) -> bool:
        """Whether a pause is asked for. Takes nothing either."""
        return (self._folder / "pause").exists()

    def check(self) -> None:
        """Raises Stopped when an end was asked for. For the stages around training, where nothing is there to save."""
        if self.ending():
            self.take()
            raise Stopped
