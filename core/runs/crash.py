"""Why a worker vanished, as far as its own last words tell."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from .. import secrets, text
from . import silence
from .store import RunFolder

TAIL_BYTES = 32 * 1024

_CAUSES: tuple[tuple[str, str, str, str], ...] = (
    (
        r"CUDA out of memory|CUDA error: out of memory|torch\.OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "out-of-memory-gpu",
        "The GPU's memory ran out.",
        "Halve the batch size and double the accumulation, shorten the rows, or hold the model in 4-bit.",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "disk-full",
        "The disk is full.",
        "Free some space; what was saved before is whole.",
    ),
    (
        r"MemoryError|DefaultCPUAllocator: (?:can't|not enough)|Cannot allocate memory|std::bad_alloc",
        "out-of-memory-host",
        "This machine's memory ran out.",
        "Halve the batch size and double the accumulation, or shorten the rows.",
    ),
    (
        r"(?m)^Killed\b|oom-kill|Out of memory: Killed",
        "killed",
        "The system killed the worker, most likely because memory ran out.",
        "Close other programs, or halve the batch size and double the accumulation.",
    ),
    (
        r"Segmentation fault|Fatal Python error|Bus error|Illegal instruction",
        "native-crash",
        "A library crashed.",
        "crash.log and worker.log in the run's folder have its last words. Resume the run, or try another version of the library.",
    ),
)


def log_tail(run: RunFolder, limit_bytes: int = TAIL_BYTES) -> str:
    """The end of worker.log, cleaned for display and with tokens hidden; empty where there is none."""
    return _tail(run.log, limit_bytes) or ""


def own_words(run: RunFolder) -> str:
    """The end of crash.log, cleaned as `log_tail`; empty where there is none."""
    return _tail(run.last_words) or ""


def _last_words(run: RunFolder) -> str:
    """What the worker said of its own death. What libraries printed, rows among it, tells nothing of that, but for the line that
    C++ ends with before it aborts. A worker that never came so far as to keep its words apart has let no library print."""
    words = _tail(run.last_words)
    if words is None:
        return log_tail(run)
    if words.startswith("Fatal Python error: Aborted"):
        words += "\n".join(log_tail(run).splitlines()[-2:])
    return words


def _tail(path: Path, limit_bytes: int = TAIL_BYTES) -> str | None:
    """The end of the file, cleaned for display and with tokens hidden; None where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit_bytes))
            return secrets.redact(text.clean(file.read(limit_bytes).decode("utf-8", "replace"), limit_bytes))
    except OSError:
        return None


def reason(run: RunFolder) -> tuple[str, str, str, str]:
    """(what, why, fix, code) for a worker that is gone without an `ended` event.

    An exit by a signal leaves nothing behind that a stranger could read, so without a last word it is called what it
    is: ended without one.
    """
    words = _last_words(run)
    again = (
        f"finetui resume {run.id} goes on from the newest checkpoint."
        if _has_checkpoint(run)
        else "Nothing was saved yet: start it again."
    )
    newest: tuple[int, str, str, str] | None = None
    for pattern, code, why, advice in _CAUSES:
        found = list(re.finditer(pattern, words))
        if found and (newest is None or found[-1].start() > newest[0]):
            newest = (found[-1].start(), code, why, advice)
    if newest is not None:
        _, code, why, advice = newest
        return "The worker stopped.", why, f"{advice} {again}", code
    error = [
        line for line in words.splitlines() if re.match(r"[A-Za-z_][\w.]*(?:Error|Exception|Exit)\b", line)
    ]
    if error:
        why = text.one_line(error[-1], 300)
        return "The worker stopped over an error.", why, f"worker.log has the whole of it. {again}", "crashed"
    number = silence.refusal(run)
    if number is not None:
        full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "Free some space." if full else "See that its folder takes files."
        why = f"Its last events could not be written: {os.strerror(number)}."
        return "The worker stopped.", why, f"{advice} {again}", "disk-full" if full else "events-unwritten"
    return (
        "The worker ended without a word.",
        "It was killed, perhaps because memory ran out, or the machine went down.",
        again,
        "vanished",
    )


def _has_checkpoint(run: RunFolder) -> bool:
    try:
        return any(p.is_dir() and not p.name.startswith(".") for p in run.checkpoints.iterdir())
    except OSError:
        return False
