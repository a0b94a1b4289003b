"""Reads a run's files in a thread of its own and hands over what is new, in slices that the screen can take."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from ....core.errors import FinetuiError
from ....core.runs import output, state
from ....core.runs.event_log import Record
from ....core.runs.follow import Follower
from ....core.runs.history import History
from ....core.runs.store import RunFolder
from .story import Story

POLL_SECONDS = 0.25
SLICE = 5000
"""Records taken into the screen at once: about fifteen milliseconds of work."""


@dataclass(frozen=True)
class News:
    """What is new of a run. `status` and `log` are the newest known; None where nothing changed."""

    records: tuple[Record, ...] = ()
    status: state.RunStatus | None = None
    log: output.Piece | None = None
    more: bool = False
    """Records are waiting, or the history has not been read yet; take again soon."""
    trouble: str = ""
    """Why the files could not be read, this time."""
    story: Story | None = None
    """The whole story of a long run, in place of what was known: its beginning has been read."""
    history: float | None = None
    """How much of a long run's beginning has been read; None where nothing is left to read."""
    skipped: int = 0
    """Lines of events.jsonl that were damaged, and so left out."""


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
        self._log: output.Piece | None = None
        self._trouble = ""
        self._polled = False
        self._story: Story | None = None
        self._history: History | None = None
        self._past: Story | None = None
        self._read = False
        self._skipped = self._skipped_before = 0
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
                records,
                self._status,
                self._log,
                bool(self._records) or not self._polled,
                self._trouble,
                self._story,
                self._history.share if self._history is not None else None,
                self._skipped_before + self._skipped,
            )
            self._status = self._log = self._story = None
            return news

    def _put(
        self,
        records: list[Record],
        status: state.RunStatus | None,
        log: output.Piece | None,
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
        follower = Follower(self.run, keep=True)
        log: output.Piece | None = None
        log_size = -1
        first = True
        while not self._stopping.is_set():
            try:
                if first:
                    self._put([], state.status(self.run), None, polled=False)
                    first = False
                records = follower.poll()
                self._skipped = follower.skipped
                if follower.gap is not None and self._history is None:
                    self._read_past(follower.gap)
                elif follower.gap is None:
                    follower.keep = False
                try:
                    size = self.run.log.stat().st_size
                except OSError:
                    size = 0
                if size != log_size:
                    log, log_size = output.before(self.run.log), size
                else:
                    log = None
                if self._read:
                    self._join(follower, log)
                else:
                    self._put(records, follower.status, log)
            except (OSError, FinetuiError) as error:  # a network file system may come back
                self._put([], None, None, error.why if isinstance(error, FinetuiError) else str(error))
            self._nudge.wait(POLL_SECONDS)
            self._nudge.clear()

    def _read_past(self, end: int) -> None:
        """Reads what lies before the tail in another thread, so that what is new is never late."""
        past = self._past = Story()
        history = History(self.run.events, end, past.curves, past.add)
        with self._lock:
            self._history = history

        def read() -> None:
            try:
                self._read = history.read(self._stopping.is_set)
            except (OSError, FinetuiError):
                self._read = False  # the tail stays what is known

        threading.Thread(target=read, name="history", daemon=True).start()

    def _join(self, follower: Follower, log: output.Piece | None) -> None:
        """The whole story, in place of the tail's."""
        assert self._history is not None and self._past is not None
        past, history = self._past, self._history
        past.extend(follower.adopt(history.reducer))
        self._read = False
        status = follower.status
        with self._lock:
            self._records.clear()
            self._story, self._history, self._past = past, None, None
            self._skipped_before = history.skipped
            self._status = status
            self._log = log if log is not None else self._log
