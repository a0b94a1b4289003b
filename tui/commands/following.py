"""Follows a run on the command line, in plain lines or as its raw events, until it ends or is left to itself."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...core.errors import FinetuiError
from ...core.runs import control, notice
from ...core.runs.event_log import MAX_LINE_BYTES
from ...core.runs.follow import Follower
from ...core.runs.store import RunFolder
from ..plain import Plain
from . import exits, output

POLL_SECONDS = 0.25
TICK_SECONDS = 2.0


@dataclass
class _Interrupts:
    """Counts Ctrl+C. SIGTERM and SIGHUP keep their way: they end this process, and the run goes on."""

    count: int = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[_Interrupts]:
        def note(*_: object) -> None:
            self.count += 1

        before = signal.signal(signal.SIGINT, note)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)


@dataclass
class RawEvents:
    """The lines of an events file as they stand, whole lines only, from `offset` on."""

    run: RunFolder
    offset: int = 0
    _rest: bytes = field(default=b"")

    @classmethod
    def from_now(cls, run: RunFolder) -> RawEvents:
        try:
            return cls(run, run.events.stat().st_size)
        except OSError:
            return cls(run)

    def write(self) -> None:
        """Writes what is new to stdout; what is no JSON object is left out."""
        while True:
            try:
                with self.run.events.open("rb") as file:
                    file.seek(self.offset)
                    chunk = file.read(4 * 1024 * 1024)
            except OSError:
                return
            if not chunk:
                return
            self.offset += len(chunk)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self._rest = self._rest[: MAX_LINE_BYTES + 1]
            for raw in lines:
                with contextlib.suppress(ValueError, RecursionError):
                    if isinstance(json.loads(raw), dict) and raw.isascii():
                        sys.stdout.write(raw.decode("ascii") + "\n")
            sys.stdout.flush()


def follow(
    run: RunFolder,
    *,
    as_json: bool = False,
    ask_to_stop: bool = False,
    follower: Follower | None = None,
    raw: RawEvents | None = None,
) -> int:
    """Follows `run` to its end and returns the exit code.

    Ctrl+C: with `ask_to_stop`, the first asks the worker to save and stop and the second leaves it to itself;
    otherwise the first leaves. `follower` and `raw` go on from where they stand.
    """
    follower = follower or Follower(run)
    raw = raw or RawEvents(run)
    plain = Plain(output.line, output.width())
    asked = False
    quiet_since = time.monotonic()
    with _Interrupts().counted() as interrupts:
        while True:
            records = follower.poll()
            if as_json:
                raw.write()
            else:
                for record in records:
                    plain.add(record)
                if records:
                    quiet_since = time.monotonic()
                elif time.monotonic() - quiet_since > TICK_SECONDS:
                    plain.tick()
            status = follower.status
            if not as_json:
                plain.silent(status)
            if not status.live:
                for record in follower.poll():
                    if not as_json:
                        plain.add(record)
                if as_json:
                    raw.write()
                    if status.state == "crashed" and status.card:
                        card = status.card
                        output.card(FinetuiError(card.what, card.why, card.fix, code=card.code), True)
                else:
                    plain.end(status, skipped=follower.skipped)
                wrong = notice.of_status(run, status)
                if wrong:
                    _note(wrong)
                return (
                    exits.INTERRUPTED if asked and status.state == "stopped" else exits.of_state(status.state)
                )
            if interrupts.count >= (2 if asked else 1):
                if asked or not ask_to_stop:
                    _note(f"The run goes on by itself. finetui attach {run.id} follows it again.")
                    return exits.INTERRUPTED
                asked = _ask(run)
                interrupts.count = 1 if asked else 0
            time.sleep(POLL_SECONDS)


def _ask(run: RunFolder) -> bool:
    try:
        words = control.request(run, "stop")
    except FinetuiError as error:
        if error.code != "run-not-running":  # it has just ended: the next look tells how
            output.card(error)
        return False
    _note(f"{words} Ctrl+C again leaves it to itself; it stops all the same.")
    return True


def _note(words: str) -> None:
    output.line(words, sys.stderr)
