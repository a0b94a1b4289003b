"""Where the libraries' own output goes: `worker.log`, with tokens taken out of what we write ourselves."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import secrets


class _Forgiving(io.RawIOBase):
    """A file descriptor whose refusals (no space, a limit, an I/O error) are nobody's failure."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, content: Any, /) -> int:
        left = memoryview(content).cast("B")
        size = len(left)
        with contextlib.suppress(OSError):
            while left:
                left = left[os.write(self._descriptor, left) :]
        return size


def forgive() -> None:
    """From here on a log that cannot be written fails no run: what is printed is lost instead."""
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.BufferedWriter(_Forgiving(descriptor)), "utf-8", "backslashreplace", line_buffering=True
        )
        for descriptor in (1, 2)
    )


def redirect(log: Path) -> None:
    """Sends file descriptors 1 and 2 to `log` (appended, 0600) from here on."""
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


def keep_last_words(file: Path) -> None:
    """From here on `file` (emptied, 0600) gets what this process says as it dies: where native code crashed, or the traceback
    of what nobody caught. One that cannot be opened fails no run."""
    try:
        target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    except OSError:
        return
    faulthandler.enable(target, all_threads=False)

    def uncaught(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        write_traceback(error)
        with contextlib.suppress(OSError):
            os.write(target, _redacted(error).encode("utf-8", "backslashreplace"))

    sys.excepthook = uncaught


def write_traceback(error: BaseException) -> None:
    """The whole traceback, redacted, to the log. People see a card instead."""
    print(_redacted(error), file=sys.stderr, flush=True)


def _redacted(error: BaseException) -> str:
    return secrets.redact("".join(traceback.format_exception(error)))
