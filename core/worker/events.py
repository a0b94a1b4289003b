"""The one writer of a run's `events.jsonl`. Training goes on when it cannot write."""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..runs import silence
from ..runs.event_log import EventReader, Record, encode
from ..runs.events import Event, Progress, Warned
from ..runs.store import RunFolder

PENDING = 10_000
"""Events kept in memory while the file cannot be written; older ones are lost first."""

PROGRESS_SECONDS = 0.2
"""At least this long between two progress events of one stage."""


class EventWriter:
    """Appends events, one line each, with `seq` going on from what the file holds. Safe from any thread.

    An OSError (no space, read-only, I/O) is told once on stderr and by a mark in the run's folder, and never raised: the
    events wait in memory and are written when that is possible again. `warned` hears of each kind of warning once, written
    or not.
    """

    def __init__(self, path: Path, warned: Callable[[Warned], object] = lambda _: None) -> None:
        self.path = path
        self._run = RunFolder(path.parent)
        silence.unmark(self._run)  # that of a worker that was killed
        self._warned, self._codes = warned, set[str]()
        self._lock = threading.Lock()
        self._pending: collections.deque[tuple[float, Event]] = collections.deque(maxlen=PENDING)
        self._seq = 0
        self._torn = False
        self._told = False
        self._stage = ""
        self._progress_at = 0.0
        reader = EventReader(path)
        while records := reader.read():
            self._seq = max(self._seq, max(record.seq for record in records))
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                self._torn = file.read(1) != b"\n"
        self._file: int | None = None

    def emit(self, event: Event) -> None:
        """Appends `event`, stamped with this moment."""
        with self._lock:
            self._pending.append((time.time(), event))
            self._flush()
            new = event if isinstance(event, Warned) and event.code not in self._codes else None
            if new is not None:
                self._codes.add(new.code)
        if new is not None:
            self._warned(new)

    def progress(self, stage: str, done: float = 0, total: float = 0, unit: str = "", text: str = "") -> None:
        """A progress event, unless the same stage had one within `PROGRESS_SECONDS`. First and last always go."""
        now = time.monotonic()
        last = total > 0 and done >= total
        if stage == self._stage and not last and now - self._progress_at < PROGRESS_SECONDS:
            return
        self._stage, self._progress_at = stage, now
        self.emit(Progress(stage, done, total, unit, text))

    def _flush(self) -> None:
        while self._pending:
            ts, event = self._pending[0]
            line = encode(Record(self._seq + 1, ts, event))
            try:
                if self._file is None:
                    self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                written = os.write(self._file, b"\n" + line if self._torn else line)
            except OSError as error:
                self._refused(error.errno or errno.EIO)
                return
            if written < len(line) + self._torn:
                self._torn = True
                self._refused(errno.ENOSPC)  # of the rest
                return
            if self._told:
                silence.unmark(self._run)
                print("finetui: events are written again", file=sys.stderr, flush=True)
            self._torn = self._told = False
            self._seq += 1
            self._pending.popleft()

    def _refused(self, number: int) -> None:
        if not self._told:
            self._told = True
            silence.mark(self._run, number)
            print(f"finetui: events cannot be written: {os.strerror(number)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        with self._lock:
            self._flush()
            if self._file is not None:
                os.close(self._file)
                self._file = None
