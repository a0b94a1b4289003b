"""Exports copied to a folder that can be carried elsewhere, with their SHA-256 sums, the card, and the commands to use them.

The copy is made under another name beside its place, read back, and only then given its name: what stands there is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from . import leaving, model_card, recipe_file, system_prompt
from .errors import FinetuiError
from .runs.store import RunFolder
from .text import bytes_words, one_line

SUMS = "SHA256SUMS"
"""As `sha256sum -c` reads it."""
COMMANDS = "commands.txt"

SPARE_BYTES: Final = 64 * 1024**2
"""Left free on the disk beside what is copied."""

_CHUNK: Final = 4 * 1024**2
_LINE = re.compile(r"^[0-9a-f]{64}  (?P<name>[^\n]+)$")
_HALF = ".finetui-copy-"
_OLD = ".finetui-old-"

Tell = Callable[[int, int], None]
"""Called with the bytes that are done and those that there are; may raise to stop."""


@dataclass(frozen=True)
class Plan:
    """What a copy would write, and where."""

    run: RunFolder
    target: Path
    formats: tuple[str, ...]
    items: tuple[leaving.Item, ...]
    replaces: bool = False
    """An earlier copy stands there and goes."""

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    def lines(self) -> list[str]:
        """The plan for a person, a line each."""
        return [
            f"To        {self.target}" + (" (the earlier copy there goes)" if self.replaces else ""),
            f"Files     {len(self.items) + 1}, {bytes_words(self.bytes)}",
            *(f"          {item.name}  {bytes_words(item.bytes)}" for item in self.items),
            f"          {SUMS}",
        ]

    def as_json(self) -> dict[str, Any]:
        """The plan for a program."""
        return {
            "run": self.run.id,
            "path": str(self.target),
            "replaces": self.replaces,
            "formats": list(self.formats),
            "bytes": self.bytes,
            "files": [{"name": item.name, "bytes": item.bytes} for item in self.items],
        }


def plan(run: RunFolder, target: Path, formats: Sequence[str] = ()) -> Plan:
    """What a copy of `formats` (all that are exported by default) to the folder `target` would do.

    Raises FinetuiError: export-missing, copy-target (it cannot be the place, or holds other things), no-space.
    """
    recipe = system_prompt.trained(run)
    exports = leaving.chosen(run, formats)
    place = _place(run, target)
    _put_back(place)
    items = leaving.items(
        recipe, exports, model_card.write(run, exports, model_card.base_license(recipe)), here=True
    )
    commands = "".join(f"# {title}\n{command}\n\n" for title, command in model_card.usage(recipe, exports))
    note = f"# Check the copy first: sha256sum -c {SUMS}\n\n"
    made = Plan(
        run=run,
        target=place,
        formats=tuple(done.format for done in exports),
        items=(*items, leaving.Item(COMMANDS, Path(COMMANDS), (note + commands).encode("utf-8", "replace"))),
        replaces=_is_copy(place),
    )
    _need_space(made)
    return made


def copy(made: Plan, tell: Tell = lambda _done, _total: None) -> None:
    """Copies, reads back and compares, then gives it its name. Blocking.

    Raises FinetuiError (no-space, copy-failed, copy-damaged) and what `tell` raises; nothing half-made stays then.
    """
    half = made.target.with_name(f"{_HALF}{made.target.name}-{os.getpid()}-{time.time_ns()}")
    try:
        made.target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(made.target)
        half.mkdir(mode=0o755)
        _fill(made, half, tell)
        _name(made, half)
    except OSError as error:
        raise _card(error, made) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _fill(made: Plan, half: Path, tell: Tell) -> None:
    total, done = 2 * made.bytes, 0  # once to write, once to read back
    sums: dict[str, str] = {}

    def count(part: int) -> None:
        nonlocal done
        done += part
        tell(min(done, total), total)

    tell(0, total)
    for item in made.items:
        file = half / item.name
        file.parent.mkdir(exist_ok=True)
        sums[item.name] = _write(item, file, count)
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    _write(leaving.Item(SUMS, Path(SUMS), lines.encode()), half / SUMS, lambda _part: None)
    for name, sum_ in sums.items():
        if _read_back(half / name, count) != sum_:
            raise FinetuiError(
                f"{one_line(name, 100)} arrived damaged.",
                f"What was read back from {one_line(str(made.target.parent), 100)} is not what was written.",
                "The disk or its cable may be failing: copy to another one.",
                code="copy-damaged",
            )


def _write(item: leaving.Item, file: Path, count: Callable[[int], None]) -> str:
    """Copies one file to the disk, and its SHA-256."""
    found = hashlib.sha256()
    with file.open("xb") as out:
        if item.content is not None:
            out.write(item.content)
            found.update(item.content)
            count(len(item.content))
        else:
            with item.source.open("rb") as source:
                while part := source.read(_CHUNK):
                    out.write(part)
                    found.update(part)
                    count(len(part))
        out.flush()
        os.fsync(out.fileno())
    return found.hexdigest()


def _read_back(file: Path, count: Callable[[int], None]) -> str:
    """The SHA-256 of what the disk has, not of what the system still holds in memory."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        with contextlib.suppress(OSError):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while part := stream.read(_CHUNK):
            found.update(part)
            count(len(part))
    return found.hexdigest()


def _name(made: Plan, half: Path) -> None:
    old = made.target.with_name(f"{_OLD}{made.target.name}")
    if _is_copy(made.target) and made.replaces:
        made.target.rename(old)
    half.rename(made.target)  # takes the place of an empty folder, and of nothing else
    shutil.rmtree(old, ignore_errors=True)


def _put_back(place: Path) -> None:
    """Gives an earlier copy its name again where a killed process had set it aside and got no further."""
    old = place.with_name(f"{_OLD}{place.name}")
    if _is_copy(old) and not place.exists():
        with contextlib.suppress(OSError):
            old.rename(place)


def _sweep(target: Path) -> None:
    """Removes what killed copies to the same place left behind."""
    prefix = f"{_HALF}{target.name}-"
    for folder in target.parent.iterdir():
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        if folder.name.startswith(prefix) and pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _place(run: RunFolder, target: Path) -> Path:
    """`target` as an absolute path that a copy may take."""
    if "\0" in str(target):
        raise _no_place(target, "A path holds no NUL.", "Name another folder.")
    try:
        path = target.expanduser()
        place = path.parent.resolve() / path.name if path.name not in ("", ".", "..") else path.resolve()
        taken = place.is_symlink() or (place.exists() and not place.is_dir())
        full = place.is_dir() and not place.is_symlink() and any(place.iterdir()) and not _is_copy(place)
    except (OSError, RuntimeError, ValueError) as error:
        raise _no_place(
            target, str(getattr(error, "strerror", None) or error), "Name another folder."
        ) from error
    if not place.name or taken:
        raise _no_place(place, "It is no folder of its own.", "Name a folder that is not there yet.")
    if place.is_relative_to(run.path.resolve()):
        raise _no_place(place, "It lies in the run's own folder.", "Name a folder elsewhere.")
    if full:
        name = recipe_file.load(run.recipe).name
        raise _no_place(
            place,
            "It holds other files, which finetui did not put there.",
            f"Name a folder in it: {place / name}",
        )
    return place


def _no_place(target: Path, why: str, fix: str) -> FinetuiError:
    return FinetuiError(
        f"{one_line(str(target), 160)} cannot be the place of the copy.",
        one_line(why, 200),
        fix,
        code="copy-target",
    )


def _is_copy(folder: Path) -> bool:
    """Whether the folder is a copy of ours: it has sums, and nothing that they do not name."""
    if folder.is_symlink():
        return False
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        named = {found["name"] for line in lines if (found := _LINE.match(line))}
        there = {
            p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()
        }
    except (OSError, UnicodeDecodeError):
        return False
    return leaving.CARD in named and there <= {*named, SUMS}


def _need_space(made: Plan) -> None:
    folder = next(p for p in (made.target, *made.target.parents) if p.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _no_place(made.target, f"{folder} is not open to writing.", "Name a folder elsewhere.")
    free, need = shutil.disk_usage(folder).free, made.bytes + SPARE_BYTES
    if free < need:
        raise FinetuiError(
            "There is too little space for the copy.",
            f"It takes {bytes_words(need)}, and {one_line(str(folder), 100)} has {bytes_words(free)} free.",
            "Free some space, name another disk, or copy fewer formats with --format.",
            code="no-space",
        )


def _card(error: OSError, made: Plan) -> FinetuiError:
    if error.errno == errno.EFBIG:
        return FinetuiError(
            "The disk takes no file of this size.",
            f"The file system at {one_line(str(made.target.parent), 100)} has a limit; FAT32 ends at 4 GiB.",
            "Name another disk, or format that one as exFAT or ext4.",
            code="no-space",
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FinetuiError(
            "The disk is full.",
            f"The copy did not fit at {one_line(str(made.target.parent), 100)}. What was begun has been removed.",
            "Free some space, or name another disk.",
            code="no-space",
        )
    return FinetuiError(
        "The copy could not be written.",
        one_line(f"{error.filename or made.target}: {error.strerror or error}.", 300),
        "Put that right, then copy again. Nothing half-made was left.",
        code="copy-failed",
    )
