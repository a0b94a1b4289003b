"""Why a worker that lives writes no events, as far as that can be seen from outside."""

from __future__ import annotations

import contextlib
import os
import shutil

from .store import RunFolder

AFTER_SECONDS = 15.0
"""A worker at work reads the machine about once a second; after so long without a word its files are looked at."""

LEAST_BYTES = 64 * 1024
"""With less room than this, events cannot be counted on to fit."""

_MARK = ".unwritten-"


def mark(run: RunFolder, number: int) -> None:
    """Leaves word that the system refused an event with the error `number`: an empty file, which a full disk takes. What is
    printed into the log is no such word: a library prints what it likes. Raises nothing."""
    unmark(run)
    with contextlib.suppress(OSError):
        os.close(os.open(run.path / f"{_MARK}{number}", os.O_WRONLY | os.O_CREAT, 0o600))


def unmark(run: RunFolder) -> None:
    """Takes that word back. Raises nothing."""
    with contextlib.suppress(OSError):
        for left in run.path.glob(f"{_MARK}*"):
            left.unlink()


def refusal(run: RunFolder) -> int | None:
    """The number of the error with which the newest events of `run` were refused; None where nothing says that they were."""
    with contextlib.suppress(OSError, ValueError):
        return next((int(left.name.removeprefix(_MARK)) for left in run.path.glob(f"{_MARK}*")), None)
    return None


def reason(run: RunFolder) -> str:
    """In a few sentences why events of `run` cannot be written: its disk is full, takes no files, or refused the last one.
    Empty where nothing of the kind is seen."""
    try:
        full = shutil.disk_usage(run.path).free < LEAST_BYTES
        closed = not os.access(run.events if run.events.exists() else run.path, os.W_OK)
    except OSError:
        return ""
    number = refusal(run)
    if full:
        why = "the disk is full. Free some space: what is held back is written then."
    elif closed:
        why = "its folder takes no files. Make it writable again: what is held back is written then."
    elif number is not None:
        why = f"{os.strerror(number)}. What is held back is written as soon as that is mended."
    else:
        return ""
    return f"The worker is alive, but its events cannot be written: {why}"
