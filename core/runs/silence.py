"""Why a worker that lives writes no events, as far as that can be seen from outside."""

from __future__ import annotations

import os
import re
import shutil

from . import crash
from .store import RunFolder

AFTER_SECONDS = 15.0
"""A worker at work reads the machine about once a second; after so long without a word its files are looked at."""

LEAST_BYTES = 64 * 1024
"""With less room than this, events cannot be counted on to fit."""

UNWRITTEN, WRITTEN = "finetui: events cannot be written:", "finetui: events are written again"
"""What the worker prints about it into its log."""


def reason(run: RunFolder) -> str:
    """In a few sentences why events of `run` cannot be written: its disk is full, takes no files, or the worker said so.
    Empty where nothing of the kind is seen."""
    try:
        full = shutil.disk_usage(run.path).free < LEAST_BYTES
        closed = not os.access(run.events if run.events.exists() else run.path, os.W_OK)
    except OSError:
        return ""
    said = re.findall(rf"^(?:{UNWRITTEN}|{WRITTEN}).*$", crash.log_tail(run), re.MULTILINE)
    if full:
        why = "the disk is full. Free some space: what is held back is written then."
    elif closed:
        why = "its folder takes no files. Make it writable again: what is held back is written then."
    elif said and said[-1].startswith(UNWRITTEN):
        why = f"{said[-1].removeprefix(UNWRITTEN).strip()}."
    else:
        return ""
    return f"The worker is alive, but its events cannot be written: {why}"
