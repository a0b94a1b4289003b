"""The part of a long run that lies before its tail: read behind the first picture, in a thread, at a steady cost of memory."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import event_log, events
from .curves import Curves
from .reduce import Reducer

CHUNK_BYTES = 256 * 1024
BREATH_SECONDS = 0.001
"""Between chunks others have the interpreter."""
WHOLE_BYTES = 8 * 1024 * 1024
"""Of a file up to this size every record is taken."""
SPARSE_RECORDS = 4000
"""Of readings, progress and samples about so many records each are taken from a longer one."""
TAIL_BYTES = 32 * 1024
"""Of the end of a file `fold` takes every record."""
SKIM = 64
"""One step of so many goes to the reducer, and every one that goes back."""

_STEP = re.compile(
    rb'\{"v":\d+,"seq":(\d+),"ts":([-+.\deE]+),"kind":"step","step":(?P<step>\d+),"total_steps":(\d+),"epoch":([^,]+),'
    rb'"loss":([^,]+),"learning_rate":([^,]+),"grad_norm":([^,]+),"tokens":(\d+),"trained_tokens":\d+,'
    rb'"tokens_per_second":([^,]+),'
)
"""A step as `event_log.encode` writes it. A line of any other shape is decoded in full."""
_STEP_ALONE = re.compile(rb'\{"v":\d+,"seq":\d+,"ts":[-+.\deE]+,"kind":"step","step":(?P<step>\d{1,15}),')
_KIND = re.compile(rb'"kind":"([a-z_]+)"')
_SPARSE = (b"device", b"progress", b"sample")


@dataclass
class History:
    """Folds the first `end` bytes of an events file, in order, into `reducer`, `curves` and `take`.

    Every step goes to the curves; every record of the other kinds goes to `take`, which may belong to the same story, and to
    the reducer, save that of readings, progress and samples a few thousand evenly spread ones do. Without curves, readings and
    samples are left out altogether. `share` tells how far it is.
    """

    path: Path
    end: int
    curves: Curves | None = None
    take: Callable[[event_log.Record], object] = lambda _: None
    reducer: Reducer = field(default_factory=Reducer)
    share: float = 0.0
    skipped: int = 0
    _last: bytes = b""
    _step: int = 0
    _since: int = 0
    _group: bytes = b""
    """The kind of the record before, where it was one of many and taken: samples come in groups."""

    def read(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Reads it all. False where `stopping` said so before the end. Raises as `event_log.opened`."""
        stride = self.end // SPARSE_RECORDS if self.end > WHOLE_BYTES else 0
        next_at: dict[bytes, int] = dict.fromkeys(_SPARSE, 0)
        if self.curves is None:
            next_at = {b"device": self.end, b"sample": self.end}
        with event_log.opened(self.path) as file:
            at, rest = 0, b""
            while at < self.end:
                if stopping():
                    return False
                chunk = file.read(min(CHUNK_BYTES, self.end - at))
                if not chunk:
                    break
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                at += len(chunk)
                where = at - len(rest) - sum(map(len, lines)) - len(lines)
                if len(rest) > event_log.MAX_LINE_BYTES:
                    rest = rest[: event_log.MAX_LINE_BYTES + 1]
                self._fold(lines, where, stride, next_at)
                self.share = at / self.end
                time.sleep(BREATH_SECONDS)
        self._settle()
        return True

    def _fold(self, lines: list[bytes], at: int, stride: int, next_at: dict[bytes, int]) -> None:
        add, pattern = (self.curves.add, _STEP) if self.curves is not None else (None, _STEP_ALONE)
        for line in lines:
            at += len(line) + 1
            found = pattern.match(line)
            if found is not None:
                number = int(found["step"])
                back = number <= self._step
                self._step, self._last = number, line
                self._since += 1
                if back or self._since >= SKIM:
                    self._settle()
                if add is None:
                    continue
                _, ts, _, _, epoch, loss, rate, norm, tokens, speed = found.groups()
                add(
                    float(ts),
                    number,
                    float(epoch.strip(b'"')),
                    float(loss.strip(b'"')),
                    float(rate.strip(b'"')),
                    None if norm == b"null" else float(norm.strip(b'"')),
                    int(tokens),
                    None if speed == b"null" else float(speed.strip(b'"')),
                )
                continue
            kind = _KIND.search(line, 0, 200)
            name = kind.group(1) if kind else b""
            grouped, self._group = name == self._group == b"sample", b""
            if name in next_at:
                if at < next_at[name] and not grouped:
                    continue
                next_at[name], self._group = at + stride, name
            record = event_log.decode(line) if line else None
            if record is None:
                self.skipped += bool(line.strip())
                continue
            self._settle()
            event = record.event
            if not self.reducer.add(record):
                continue
            if isinstance(event, events.Step):
                self._step = event.step
            elif isinstance(event, events.Started):
                self._step = 0 if event.job == "train" else self._step
            self.take(record)

    def _settle(self) -> None:
        """Gives the reducer the newest step that was skimmed."""
        if not self._last:
            return
        record = event_log.decode(self._last + b"\n")
        self._last = b""
        if record is not None:
            self.reducer.add(record)
            self.reducer.counted(max(0, self._since - 1))
        self._since = 0


def fold(path: Path) -> tuple[Reducer, event_log.EventReader]:
    """All of an events file, its steps skimmed but for those at the end; and the reader that goes on from there.

    Blocking: about ten milliseconds for a thousand steps. A missing file is empty. Raises FinetuiError: run-unreadable.
    """
    at = 0
    with contextlib.suppress(FileNotFoundError), event_log.opened(path) as file:
        end = file.seek(0, os.SEEK_END)
        if end > TAIL_BYTES:
            file.seek(end - TAIL_BYTES)
            file.readline()
            at = file.tell()
    past, reader = History(path, at), event_log.EventReader(path, at)
    if at:
        past.read()
    while records := reader.read():
        for record in records:
            past.reducer.add(record)
    return past.reducer, reader
