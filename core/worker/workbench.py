"""Where exports are made: a folder under RUN/exports that outlives the worker, and holds only what is whole or is taken up.

Its name is the key of what the exports are made from (`export_record.key`). A worker that takes up the same key goes on
with what it finds: whole shards of a merge, the merged model, the F16 file. Any other folder of this kind goes. What is
whole is moved to RUN/exports/<format> in one step.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

PREFIX: Final = ".work-"
_MAKING: Final = ".making"
_OLD: Final = "old-"
_SHARDED: Final = (f"merged{_MAKING}", f"merged_4bit{_MAKING}")
"""The parts that are taken up in the middle: their shards are whole, one by one."""


class Workbench:
    """The work folder for one key. Between `open` and `close` it belongs to this worker."""

    def __init__(self, exports: Path, key: str) -> None:
        self.exports = exports
        self.folder = exports / f"{PREFIX}{key[:16]}"

    def open(self) -> None:
        """Makes the folder, or takes it up; puts back an export that a killed worker had moved aside. Raises OSError."""
        self.exports.mkdir(mode=0o700, exist_ok=True)
        for left in self.exports.glob(f"{PREFIX}*"):
            for aside in left.glob(f"{_OLD}*"):
                place = self.exports / aside.name.removeprefix(_OLD)
                if not place.exists():
                    aside.rename(place)
        for left in self.exports.glob(".*"):
            if left != self.folder:
                shutil.rmtree(left, ignore_errors=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._tidy()

    def close(self, *, done: bool) -> None:
        """Removes the folder: all of it where everything is `done`, else all but what can be taken up."""
        if not done:
            self._tidy()
        if done or not any(self.folder.iterdir()):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _tidy(self) -> None:
        for left in self.folder.iterdir():
            if left.name in _SHARDED and any(left.glob("model*.safetensors")):
                for half in left.glob("*.part"):
                    half.unlink()
            elif left.name.endswith(_MAKING) or left.name.startswith(_OLD):
                shutil.rmtree(left, ignore_errors=True)

    def part(self, name: str) -> Path | None:
        """The part `name` of this key, if it is there and whole."""
        return self.folder / name if (self.folder / name).is_dir() else None

    def begin(self, name: str) -> Path:
        """The folder in which the part `name` is made, or is gone on with."""
        making = self.folder / (name + _MAKING)
        making.mkdir(mode=0o700, exist_ok=True)
        return making

    def drop(self, name: str) -> None:
        """Throws away what was made of the part `name`."""
        shutil.rmtree(self.folder / (name + _MAKING), ignore_errors=True)

    def finish(self, name: str) -> Path:
        """The part `name` is whole: it gets its name once it is on the disk. Raises OSError."""
        making, whole = self.folder / (name + _MAKING), self.folder / name
        settle(making)
        making.rename(whole)
        return whole

    def place(self, part: Path, format: str) -> Path:
        """Moves a whole part to RUN/exports/<format>. An older export there goes, once the new one stands. Raises OSError."""
        target, aside = self.exports / format, self.folder / f"{_OLD}{format}"
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
            target.rename(aside)
        part.rename(target)
        _sync(self.exports)
        shutil.rmtree(aside, ignore_errors=True)
        return target


def settle(folder: Path) -> None:
    """Waits until every file of `folder` is on the disk, so that a power cut after a rename loses nothing. Raises OSError."""
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            _sync(file)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
