"""Other programs, run so that they cannot ask, linger, or see a token.

Their stdin is closed, what they print goes to the log, they die with the worker, and they can be stopped.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..asking import tied
from ..secrets import redact, without

_TAIL_LINES = 30


Check = Callable[[], None]
"""Called a few times a second; raises to stop what is under way."""


def go_on() -> None:
    """A check that never stops anything."""


class ChildFailed(Exception):
    """A program ended with an error. `tail` is the end of what it printed."""

    def __init__(self, program: str, returncode: int, tail: str) -> None:
        super().__init__(f"{program} ended with {returncode}: {tail[-500:]}")
        self.program = program
        self.returncode = returncode
        self.tail = tail


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without anything that is named like a secret, and with `extra`."""
    kept = without(os.environ)
    kept.pop("PYTHONPATH", None)
    return {**kept, **(extra or {})}


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    check: Check = go_on,
) -> str:
    """Runs `argv` to its end and returns the end of what it printed (stdout and stderr together).

    Every line also goes to this process's stderr (the worker's log) and to `on_line`; a carriage return ends a line,
    so that progress bars are seen.

    Raises ChildFailed, whatever `check` raises, and OSError where
    the program cannot be started; the program has ended by then in each case.
    """
    program = Path(argv[0]).name
    tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
    process = subprocess.Popen(
        tied(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env) if env is not None else environment(),
        cwd=cwd,
        process_group=0,
    )
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    try:
        rest = b""
        ended = False
        while not ended:
            check()
            ended = process.poll() is not None
            chunk = _read(descriptor, 0.0 if ended else 0.2)
            *lines, rest = re.split(rb"[\r\n]", rest + chunk)
            if ended and rest:
                lines, rest = [*lines, rest], b""
            for raw in lines:
                line = redact(raw.decode("utf-8", "replace").rstrip())
                if line:
                    tail.append(line)
                    print(line, file=sys.stderr)
                    if on_line:
                        on_line(line)
            if len(rest) > 1_000_000:
                rest = b""
    finally:
        _end(process)
        process.stdout.close()
    text = "\n".join(tail)
    if process.returncode != 0:
        raise ChildFailed(program, process.returncode, text)
    return text


def _read(descriptor: int, seconds: float) -> bytes:
    import select

    select.select([descriptor], [], [], seconds)
    parts: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(descriptor, 65536):
            parts.append(part)
            if len(parts) > 64:
                break
    return b"".join(parts)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends `process` and what it started, politely, then not."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            return
