"""Waiting for a condition, and for the end of a process, however long a busy machine takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

PATIENCE_SECONDS = 600.0
"""A condition that never holds fails after this."""


def until(condition: Callable[[], object], what: str = "") -> None:
    """Waits until `condition()` is true; `what` is said where it never is."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited in vain {what}"
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Whether the process `pid` has ended. One that nobody has waited for yet, a zombie, has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
