"""One question to a process of its own, and its answer: killed when it takes too long, or when nobody waits any more."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# Asks Linux to end the child when the worker ends, then becomes the program itself.
_TIED_TO_PARENT = (
    "import ctypes, os, sys\n"
    "try: ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)\n"
    "except (OSError, AttributeError): pass\n"
    "os.getppid() == int(sys.argv[1]) or os._exit(143)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


def tied(argv: Sequence[str]) -> list[str]:
    """`argv` as a command that ends when this process ends, whichever way that is."""
    return [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *argv]


@dataclass(frozen=True)
class Answer:
    """What the process wrote on its two outputs, and its exit code; negative where a signal ended it."""

    output: bytes
    errors: str
    code: int

    @property
    def last_words(self) -> str:
        """The last line on its standard error; nothing where it wrote none."""
        return next(iter(self.errors.strip().splitlines()[-1:]), "")


def ask(
    argv: Sequence[str],
    question: bytes,
    env: Mapping[str, str],
    check: Callable[[], None],
    timeout_seconds: float,
) -> Answer:
    """Starts `argv` in a session of its own, writes `question` to it, and waits for its end. Blocking. It ends with this
    process too.

    `check` is called about four times a second and may raise to stop. Raises that, TimeoutError, and OSError where the
    process cannot be started; it and what it started have ended by then in each case.
    """
    process = subprocess.Popen(
        tied(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(env),
        start_new_session=True,
    )
    until = time.monotonic() + timeout_seconds
    unsent: bytes | None = question
    try:
        while True:
            try:
                output, errors = process.communicate(unsent, timeout=0.25)
                return Answer(output, errors.decode("utf-8", "replace")[-20_000:], process.returncode)
            except subprocess.TimeoutExpired:
                unsent = None
                check()
                if time.monotonic() > until:
                    raise TimeoutError(f"no answer within {timeout_seconds:.0f} seconds") from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
