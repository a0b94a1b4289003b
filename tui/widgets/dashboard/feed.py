"""Reads a run's files in a thread of its own and hands over what is new, in slices that the screen can take."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from ....core.runs import crash, state
from ....core.runs.events import Record
from ....core.runs.follow import Follower
from ....core.runs.store import RunFolder

POLL_SECONDS = 0.25
SLICE = 5000
"""Records taken into the screen at once: about fifteen milliseconds of work."""
LOG_BYTES = 16 * 1024


@dataclass(frozen=True)
class News:
    """What is new of a run. `status` and `log` are the newest known; None where nothing changed."""

    records: tuple[Record, ...] = ()
    status: state.RunStatus | None = None
    log: str | None = None
    more: bool = False
    """Records are waiting, or the history has not been read yet; take again soon."""
    trouble: str = ""
    """Why the files could not be read, this time."""


class Feed:
    """Follows one run about four times a second, off the event loop.

    The first news is the status alone, from the two ends of the file; the history follows behind. `take` never blocks
    longer than a moment. The thread is a daemon: a file system that hangs delays no exit.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._records: deque[Record] = deque()
        self._status: state.RunStatus | None = None
        self._log: str | None = None
        self._trouble = ""
        self._polled = False
        self._stopping = threading.Event()
        self._nudge = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="feed", daemon=True)

    def start(self) -> Feed:
        """Begins to follow."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends the thread soon; does not wait for it."""
        self._stopping.set()
        self._nudge.set()

    def look(self) -> None:
        """Look again now, as after a request."""
        self._nudge.set()

    def take(self) -> News:
        """What came since the last call, at most `SLICE` records of it."""
        with self._lock:
            count = min(SLICE, len(self._records))
            records = tuple(self._records.popleft() for _ in range(count))
            news = News(
                records, self._status, self._log, bool(self._records) or not self._polled, self._trouble
            )
            self._status = self._log = None
            return news

    def _put(
        self,
        records: list[Record],
        status: state.RunStatus | None,
        log: str | None,
        trouble: str = "",
        polled: bool = True,
    ) -> None:
        with self._lock:
            self._polled = polled
            self._records.extend(records)
            self._status = status or self._status
            self._log = log if log is not None else self._log
            self._trouble = trouble

    def _follow(self) -> None:
        follower = Follower(self.run)
        log: str | None = None
        log_size = -1
        first = True
        while not self._stopping.is_set():
            try:
                if first:
                    self._put([], state.status(self.run), None, polled=False)
                    first = False
                records = follower.poll()
                try:
                    size = self.run.log.stat().st_size
                except OSError:
                    size = 0
                if size != log_size:
                    log, log_size = crash.log_tail(self.run, LOG_BYTES), size
                else:
                    log = None
                self._put(records, follower.status, log)
            except OSError as error:  # a network file system may come back
                self._put([], None, None, f"{error.strerror or error}")
            self._nudge.wait(POLL_SECONDS)
            self._nudge.clear()
