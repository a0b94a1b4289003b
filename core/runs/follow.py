"""Follows a run: its events as they come, and its status at any moment."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from . import events, state
from .store import RunFolder

THIN_BYTES = 8 * 1024 * 1024
"""An events file beyond this is caught up with thinned: of the dense kinds one here and there, the rest whole."""
TAIL_BYTES = 1024 * 1024
"""The end of the file that is always read whole."""
CHUNK_BYTES = 4 * 1024 * 1024
DENSE_RECORDS = 4000
"""At most about so many records of each dense kind are kept of what lies before the tail."""

_DENSE = (b'"kind":"step"', b'"kind":"device"', b'"kind":"progress"', b'"kind":"sample"')
_RARE = re.compile(rb'"kind":"(?!(?:step|device|progress|sample)")')
"""Inside a text the quotes are escaped, so that this is found nowhere else."""


@dataclass
class Follower:
    """One reader of one run. Any number of them may follow; none disturbs the worker.

    `poll` and `status` read files: call them off the event loop, from one thread at a time.
    """

    run: RunFolder
    reducer: state.Reducer = field(default_factory=state.Reducer)
    _reader: events.EventReader | None = None
    _held: list[events.Record] = field(default_factory=list)

    def poll(self) -> list[events.Record]:
        """The records that are new since the last call, oldest first.

        The first call catches up. Of a very long run it leaves out most steps and readings (the last stretch is whole),
        so that a million steps open in about a second and in bounded memory.
        """
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

    def _pull(self) -> None:
        if self._reader is None:
            self._reader = events.EventReader(self.run.events)
            self._catch_up()
        while records := self._reader.read():
            self._take(records)

    def _take(self, records: list[events.Record]) -> None:
        self._held += [record for record in records if self.reducer.add(record)]

    def _catch_up(self) -> None:
        assert self._reader is not None
        try:
            with self.run.events.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size <= THIN_BYTES:
                    return
                stride = size // DENSE_RECORDS
                rest = b""
                while file.tell() < size - TAIL_BYTES:
                    chunk = file.read(min(CHUNK_BYTES, size - TAIL_BYTES - file.tell()))
                    if not chunk:
                        break
                    whole, newline, rest = (rest + chunk).rpartition(b"\n")
                    if len(rest) > events.MAX_LINE_BYTES:
                        rest = rest[: events.MAX_LINE_BYTES + 1]
                    self._take(_thinned(whole + newline, stride))
                self._reader.offset = file.tell()
                self._reader._rest = rest
        except FileNotFoundError:
            return


def _thinned(chunk: bytes, stride: int) -> list[events.Record]:
    """The records of whole lines that are worth keeping: all of the rare kinds, and of each dense kind one every
    `stride` bytes and the last."""
    places = {chunk.rfind(b"\n", 0, found.start()) + 1 for found in _RARE.finditer(chunk)}
    for kind in _DENSE:
        at = chunk.find(kind)
        while at >= 0:
            places.add(chunk.rfind(b"\n", 0, at) + 1)
            at = chunk.find(kind, at + stride)
        last = chunk.rfind(kind)
        if last >= 0:
            places.add(chunk.rfind(b"\n", 0, last) + 1)
    lines = (chunk[place : chunk.index(b"\n", place)] for place in sorted(places))
    return [record for record in map(events.decode, lines) if record is not None]
