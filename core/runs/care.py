"""What a person does with a run that is over: names it, notes what it was for, tags, archives, cleans and deletes it.

What was written about a run stands in RUN/labels.json, beside the recipe and not in it, so that the run stays as it ran.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from .. import atomic
from ..errors import FinetuiError
from ..text import bytes_words, one_line
from . import checkpoints, event_log, history, state
from .chosen import half_made
from .store import RunFolder

FILE = "labels.json"
MAX_BYTES = 100_000

Tag = Annotated[str, StringConstraints(pattern=r"^[\w.:/+-]{1,40}$")]


class Labels(BaseModel):
    """What a person wrote about a run. `title` is shown in place of its name; empty shows the name."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    title: Annotated[str, Field(max_length=100)] = ""
    note: Annotated[str, Field(max_length=4000)] = ""
    tags: tuple[Tag, ...] = ()
    archived: bool = False


def labels(run: RunFolder) -> Labels:
    """What was written about `run`; nothing where the file is missing or damaged."""
    try:
        with (run.path / FILE).open("rb") as file:
            return Labels.model_validate_json(file.read(MAX_BYTES))
    except (OSError, ValidationError, ValueError):
        return Labels()


def label(
    run: RunFolder,
    *,
    title: str | None = None,
    note: str | None = None,
    add_tags: Iterable[str] = (),
    remove_tags: Iterable[str] = (),
    archived: bool | None = None,
) -> Labels:
    """Changes what is given, keeps the rest. Raises FinetuiError: label (not allowed), run-folder (cannot be written)."""
    now = labels(run)
    removed = set(remove_tags)
    tags = tuple(dict.fromkeys([*(t for t in now.tags if t not in removed), *add_tags]))
    try:
        changed = Labels(
            title=one_line(title, 100) if title is not None else now.title,
            note=note if note is not None else now.note,
            tags=tags,
            archived=now.archived if archived is None else archived,
        )
    except ValidationError as error:
        where = str(error.errors()[0]["loc"][0])
        raise FinetuiError(
            f"This cannot be the {where.removesuffix('s')} of a run.",
            "A tag is one word of at most 40 letters, digits and . : / + - _"
            if where == "tags"
            else "It is too long.",
            "Shorten it.",
            code="label",
        ) from error
    try:
        atomic.write_text(run.path / FILE, changed.model_dump_json(indent=1))
    except OSError as error:
        raise _unwritable(run, error) from error
    return changed


# ---- disk ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """Bytes on disk by part."""

    total: int
    checkpoints: int
    exports: int
    adapter: int


def size_of(path: Path) -> int:
    """Bytes of all files below `path`, links not followed."""
    total = 0
    for parent, _folders, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total


def sizes(run: RunFolder) -> Sizes:
    """What the run takes on the disk."""
    return Sizes(size_of(run.path), size_of(run.checkpoints), size_of(run.exports), size_of(run.adapter))


@dataclass(frozen=True)
class Cleaning:
    """What a cleaning of `run` removes, and what it keeps. Bytes."""

    run: RunFolder
    remove: tuple[Path, ...]
    kept: tuple[Path, ...]
    bytes: int

    @property
    def words(self) -> str:
        """What it frees, in a sentence."""
        if not self.remove:
            return f"{self.run.id}: nothing to clean."
        kept = " and ".join(path.name for path in self.kept) or "no checkpoint"
        count = len(self.remove)
        return f"{self.run.id}: {count} {'folder' if count == 1 else 'folders'}, {bytes_words(self.bytes)}; {kept} stay."


def cleaning(run: RunFolder) -> Cleaning:
    """What can go: all checkpoints but the newest whole one and the best, and what killed exports left behind.

    The best is the last checkpoint at or before the lowest held-out loss. Removes nothing.
    """
    now = state.status(run)
    if now.live or (now.card is not None and now.card.code == event_log.UNREADABLE):
        return Cleaning(run, (), (), 0)
    found = checkpoints.newest_first(run.checkpoints)[::-1]
    whole = [path for path in found if (path / checkpoints.SEAL).is_file()]
    kept = whole[-1:]
    best = _best_step(run)
    if best is not None:
        before = [path for path in whole if checkpoints.step_of(path) <= best]
        kept = list(dict.fromkeys([*before[-1:], *kept]))
    remove = [path for path in found if path not in kept]
    remove += _listed(run.path / checkpoints.LEFT)
    remove += sorted(path for path in _listed(run.exports) if path.name.startswith(".work-"))
    remove += half_made(run)
    return Cleaning(run, tuple(remove), tuple(kept), sum(map(size_of, remove)))


def clean(plan: Cleaning) -> int:
    """Removes what `plan` names, and returns how many bytes that freed. Raises FinetuiError: run-busy, run-folder."""
    _refuse_live(plan.run, "cleaned")
    freed = 0
    for path in plan.remove:
        size = size_of(path)
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise _unwritable(plan.run, error) from error
        freed += size
    return freed


def delete(run: RunFolder) -> int:
    """Deletes the run's folder with all that is in it, and returns how many bytes that freed.

    It leaves the list of runs first, in one move, so that a deletion that is cut off leaves no half run. Raises
    FinetuiError: run-busy, run-folder.
    """
    _refuse_live(run, "deleted")
    size = size_of(run.path)
    gone = run.path.with_name(f".deleted-{run.id}-{os.getpid()}")
    try:
        run.path.rename(gone)
        (gone / run.recipe.name).unlink(missing_ok=True)
        shutil.rmtree(gone)
    except OSError as error:
        raise _unwritable(run, error) from error
    return size


def _refuse_live(run: RunFolder, what: str) -> None:
    if state.status(run).live:
        raise FinetuiError(
            f"{run.id} is at work and cannot be {what}.",
            "Its worker writes into this folder.",
            f"Stop it first: finetui stop {run.id}",
            code="run-busy",
        )


def _unwritable(run: RunFolder, error: OSError) -> FinetuiError:
    return FinetuiError(
        f"{run.id} cannot be changed.",
        f"{error.filename or run.path}: {error.strerror or error}.",
        "Check who owns the folder, and whether the disk takes writes.",
        code="run-folder",
    )


def _listed(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _best_step(run: RunFolder) -> int | None:
    best = history.fold(run.events)[0].best
    return best.step if best is not None else None
