"""Follows a run: its events as they come, and its status at any moment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from . import events, state
from .store import RunFolder

THIN_BYTES = 8 * 1024 * 1024
"""An events file beyond this is caught up with thinned: dense kinds by every n-th line, the rest whole."""
TAIL_BYTES = 1024 * 1024
"""The end of the file that is always read whole."""
CHUNK_BYTES = 8 * 1024 * 1024
DENSE_RECORDS = 4000
"""About how many records of each dense kind are kept of what lies before the tail."""
LINE_BYTES = 220
"""About the length of a step's line, for choosing how much to leave out."""

_DENSE = (b"step", b"device", b"progress", b"sample")


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

        The first call catches up. Of a very long run it leaves out most steps and readings (every n-th is kept, and the
        last stretch whole), so that a million steps open in about a second and in bounded memory.
        """
        self._pull()
        records, self._held = self._held, []
        return records

    @property
    def status(self) -> state.RunStatus:
        """The run now, from the records that were polled."""
        seen = state.derive(self.reducer, self.run)
        if (
            seen.state == "crashed"
        ):  # its last word may have come in between; what is read here waits for `poll`
            self._pull()
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
                thinner = _Thinner(stride=max(1, size // LINE_BYTES // DENSE_RECORDS))
                rest = b""
                while file.tell() < size - TAIL_BYTES:
                    chunk = file.read(min(CHUNK_BYTES, size - TAIL_BYTES - file.tell()))
                    if not chunk:
                        break
                    lines = (rest + chunk).split(b"\n")
                    rest = lines.pop()
                    if len(rest) > events.MAX_LINE_BYTES:
                        rest = rest[: events.MAX_LINE_BYTES + 1]
                    self._take(thinner.keep(lines))
                self._reader.offset = file.tell()
                self._reader._rest = rest
        except FileNotFoundError:
            return


@dataclass
class _Thinner:
    """Decodes every line of the rare kinds and every `stride`-th of the dense ones."""

    stride: int
    counts: dict[bytes, int] = field(default_factory=dict)

    def keep(self, lines: list[bytes]) -> list[events.Record]:
        counts, stride = self.counts, self.stride
        kept: list[events.Record] = []
        for line in lines:
            at = line.find(b'"kind":"', 0, 96)
            if at >= 0:
                kind = line[at + 8 : line.find(b'"', at + 8)]
                if kind in _DENSE:
                    count = counts.get(kind, 0)
                    counts[kind] = count + 1
                    if count % stride:
                        continue
            record = events.decode(line) if line else None
            if record is not None:
                kept.append(record)
        return kept
