"""The runs at work, or in the queue, found among thousands: of a run that is over only its last word is read."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..errors import FinetuiError
from . import event_log, events, manifest, state, store
from .state import RunStatus
from .store import RunFolder

LAST_BYTES = 8 * 1024
"""The end of an events file that holds its last word; of a longer one the run's status is read as of one at work."""


def at_work() -> Iterator[tuple[RunFolder, RunStatus]]:
    """Each run that a worker is at, or that waits for its turn, with its status; newest first. Blocking."""
    for run in store.all_runs():
        if not _over(run) and (seen := state.status(run)).live:
            yield run, seen


def _over(run: RunFolder) -> bool:
    """Whether its last word is that its job ended, and no worker was started since."""
    try:
        with event_log.opened(run.events) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
            tail = file.read()
    except (OSError, FinetuiError):
        return False
    last = event_log.decode(tail[:-1].rpartition(b"\n")[2]) if tail.endswith(b"\n") else None
    if last is None or not isinstance(last.event, events.Ended):
        return False
    started = manifest.read(run)
    return started is None or started.launched_ts < last.ts
