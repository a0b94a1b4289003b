"""Models that are on this machine: in the hub's cache, and in folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine, or what looks like one and cannot be tuned (`problem` says why)."""

    source: str
    """What to write as model.source: a hub id or a path."""
    title: str
    kind: Literal["cache", "folder"]
    bytes: int
    """On the disk, everything of it."""
    parameters: int | None = None
    revision: str | None = None
    whole: bool = True
    """False where weight files are missing: a download that was cut short."""
    problem: str = ""
    """Why it cannot be tuned, in a sentence; empty where it can."""


def local_models(extra_folders: Iterable[Path] = ()) -> tuple[LocalModel, ...]:
    """What stands in the hub's cache, among the working folder's children, in the models' folder, and in
    `extra_folders` (models themselves, or folders of them). Blocking; raises nothing."""
    raise NotImplementedError
