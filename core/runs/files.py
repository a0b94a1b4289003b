"""The files of a run: what lies in its folder, how large, how old."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .store import RunFolder

MOST_FILES = 20_000
"""More are not counted."""
OPENED = ("checkpoints", "exports")
"""Folders whose entries are shown one by one."""


@dataclass(frozen=True)
class Entry:
    """One file, or one folder with all that is in it. `name` is relative to the run's folder and may hold anything."""

    name: str
    bytes: int
    modified_ts: float
    files: int = 1
    folder: bool = False


def listing(run: RunFolder) -> list[Entry]:
    """What lies in the run's folder, by name; links are not followed, what cannot be read is left out. Blocking."""
    left = [MOST_FILES]
    found: list[Entry] = []
    for item in _items(run.path):
        if item.name in OPENED and item.is_dir(follow_symlinks=False):
            found += [_entry(inner, f"{item.name}/{inner.name}", left) for inner in _items(Path(item.path))]
        else:
            found.append(_entry(item, item.name, left))
    return found


def _items(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return sorted(items, key=lambda item: item.name)
    except OSError:
        return []


def _entry(item: os.DirEntry[str], name: str, left: list[int]) -> Entry:
    if not item.is_dir(follow_symlinks=False):
        told = _stat(item)
        return Entry(name, told.st_size if told else 0, told.st_mtime if told else 0.0)
    size, newest, files = 0, 0.0, 0
    for inner in _walk(Path(item.path), left):
        told = _stat(inner)
        if told is not None:
            size, newest, files = size + told.st_size, max(newest, told.st_mtime), files + 1
    return Entry(name, size, newest, files, True)


def _walk(folder: Path, left: list[int]) -> Iterator[os.DirEntry[str]]:
    for item in _items(folder):
        if left[0] <= 0:
            return
        if item.is_dir(follow_symlinks=False):
            yield from _walk(Path(item.path), left)
        else:
            left[0] -= 1
            yield item


def _stat(item: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return item.stat(follow_symlinks=False)
    except OSError:
        return None
