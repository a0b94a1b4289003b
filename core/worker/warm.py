"""A worker that has done its imports and waits for a job, so that training starts at once."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from .. import atomic
from . import environment

SECONDS = 0.2


@dataclass(frozen=True)
class Order:
    """What a warm worker is told to do."""

    job: str
    run: Path
    formats: tuple[str, ...]
    asked_at: float
    """Seconds since the epoch."""


def wait(folder: Path) -> Order | None:
    """Imports Unsloth, says so in FOLDER/ready, and waits for FOLDER/go.

    None where nobody will ask any more: the parent process has gone, or the folder has.
    """
    parent = os.getppid()
    environment.import_unsloth()
    import datasets  # pyright: ignore[reportUnusedImport]  # noqa: F401
    import trl  # pyright: ignore[reportUnusedImport]  # noqa: F401

    try:
        atomic.write_text(folder / "ready", f"{os.getpid()}\n")
    except OSError:
        return None
    while True:
        order = _read(folder / "go")
        if order is not None:
            return order
        if os.getppid() != parent or not folder.is_dir():
            return None
        time.sleep(SECONDS)


def _read(path: Path) -> Order | None:
    try:
        asked = json.loads(path.read_bytes())
        asked_at = path.stat().st_mtime
    except FileNotFoundError:
        return None
    return Order(str(asked["job"]), Path(asked["run"]), tuple(map(str, asked["formats"])), asked_at)
