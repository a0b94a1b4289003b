"""Follows a run: its events as they come, and its status at any moment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from ..errors import FinetuiError
from . import event_log, events, history, state
from .store import RunFolder

LONG_BYTES = 8 * 1024 * 1024
"""An events file beyond this is not read whole before the first picture: its two ends are."""
HEAD_BYTES = 64 * 1024
TAIL_BYTES = 1024 * 1024


@dataclass
class Follower:
    """One reader of one run. Any number of them may follow; none disturbs the worker.

    `poll` and `status` read files: call them off the event loop, from one thread at a time. They raise FinetuiError
    (run-unreadable). Of a very long run the first
    poll gives the two ends, and `gap` is the place where the tail begins: what lies before it is `history.History`'s to
    read, whose reducer `adopt` takes over.
    """

    run: RunFolder
    reducer: state.Reducer = field(default_factory=state.Reducer)
    whole: bool = False
    """Fold all of it at the first poll, whatever its length (`history.fold`); the records are not handed out then."""
    keep: bool = False
    """Keep what came since `gap`, for `adopt`."""
    gap: int | None = None
    since: list[event_log.Record] = field(default_factory=list)
    """With `keep`: the records that came after `gap`."""
    _reader: event_log.EventReader | None = None
    _held: list[event_log.Record] = field(default_factory=list)

    def poll(self) -> list[event_log.Record]:
        """The records that are new since the last call, oldest first."""
        self._pull()
        records, self._held = self._held, []
        return records

    @property
    def status(self) -> state.RunStatus:
        """The run now, from the records that were polled."""
        seen = state.derive(self.reducer, self.run)
        if seen.state == "crashed":
            self._pull()  # its last word may have come in between; what is read here waits for `poll`
            seen = state.derive(self.reducer, self.run)
        return seen

    @property
    def skipped(self) -> int:
        """Broken lines that were skipped so far."""
        return self._reader.skipped if self._reader else 0

    def adopt(self, reducer: state.Reducer) -> list[event_log.Record]:
        """Goes on with `reducer`, which has folded all that lies before `gap`. Returns what it took in since."""
        taken = [record for record in self.since if reducer.add(record)]
        self.reducer, self.gap, self.since, self.keep = reducer, None, [], False
        return taken

    def _pull(self) -> None:
        if self._reader is None and self.whole:
            self.reducer, self._reader = history.fold(self.run.events)
        elif self._reader is None:
            self._reader = event_log.EventReader(self.run.events)
            self._catch_up()
        while records := self._reader.read():
            if self.keep and self.gap is not None:
                self.since += records
            self._held += [record for record in records if self.reducer.add(record)]

    def _catch_up(self) -> None:
        assert self._reader is not None
        try:
            with event_log.opened(self.run.events) as file:
                size = os.fstat(file.fileno()).st_size
                if size <= LONG_BYTES:
                    return
                head = file.read(HEAD_BYTES).split(b"\n")[:-1]
                file.seek(size - TAIL_BYTES)
                cut = file.readline()
                self.gap = self._reader.offset = size - TAIL_BYTES + len(cut)
        except FileNotFoundError:
            return
        self.reducer.complete = False
        for record in map(event_log.decode, head):
            # the first steps would draw a line across all that lies between
            dense = record is None or isinstance(record.event, (events.Step, events.Evaluation))
            if record is not None and self.reducer.add(record) and not dense:
                self._held.append(record)


def whole_status(run: RunFolder, follower: Follower | None = None) -> state.RunStatus:
    """The run's status from all of its events, of which `follower` may have read some. Blocking, as `history.fold`."""
    follower = follower or Follower(run, whole=True)
    try:
        follower.poll()
        return follower.status
    except FinetuiError as error:
        return state.unreadable(run, error)
