"""Checkpoints: sealed with the size and SHA-256 of every file, and believed only while the seal holds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

from .. import atomic

SEAL = "finetui-seal.json"
"""Written last: a checkpoint without it was never finished."""

LEFT = "checkpoints-last"
"""The run's folder of checkpoints that it was gone back from."""

COUNTS = "finetui-counts.json"
"""In each checkpoint: the tokens seen so far, so that a resumed run goes on counting."""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(checkpoint: Path) -> None:
    """Marks `checkpoint` as whole. Raises OSError."""
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != SEAL)
    content = {str(p.relative_to(checkpoint)): [p.stat().st_size, _sha256(p)] for p in files}
    atomic.write_text(checkpoint / SEAL, json.dumps({"files": content}, indent=1))


def damage(checkpoint: Path) -> str | None:
    """What is wrong with `checkpoint`, in a few words; None where every file is as it was sealed."""
    try:
        files = json.loads((checkpoint / SEAL).read_bytes())["files"]
        for name, (size, digest) in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has another size"
            if _sha256(path) != digest:
                return f"{name} has changed"
    except FileNotFoundError:
        return "it was never finished"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its seal cannot be read"
    return None


def copy_model(checkpoint: Path, into: Path) -> bool:
    """Copies the adapter (or whole model) and the tokenizer of `checkpoint`, not the optimizer, to `into`, and checks the
    copies by the seal.

    False where one is not as it was sealed, or gone: a run that goes on removes its older checkpoints. Raises OSError
    where `into` cannot be written.
    """
    try:
        files = json.loads((checkpoint / SEAL).read_bytes())["files"]
        digests = {
            name: files[name][1]
            for name in files
            if name.endswith((".json", ".jinja", ".safetensors", ".model"))
            and "/" not in name
            and name not in (COUNTS, SEAL)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    for name, digest in digests.items():
        try:
            source = (checkpoint / name).open("rb")
        except OSError:
            return False
        with source, (into / name).open("wb") as copy:  # a model's file may be larger than the memory
            shutil.copyfileobj(source, copy, 1024**2)
        if _sha256(into / name) != digest:
            return False
    return bool(digests)


def step_of(checkpoint: Path) -> int:
    """The step in the folder's name; -1 where it is no checkpoint."""
    tail = checkpoint.name.removeprefix("checkpoint-")
    return int(tail) if tail != checkpoint.name and tail.isdecimal() else -1


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, whole or not."""
    try:
        found = [p for p in folder.iterdir() if p.is_dir() and not p.is_symlink() and step_of(p) >= 0]
    except OSError:
        return []
    return sorted(found, key=step_of, reverse=True)


def choose(folder: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint, and the newer ones that are not, each with its damage."""
    damaged: list[tuple[Path, str]] = []
    for checkpoint in newest_first(folder):
        reason = damage(checkpoint)
        if reason is None:
            return checkpoint, damaged
        damaged.append((checkpoint, reason))
    return None, damaged


def discard(checkpoints: list[Path]) -> None:
    """Removes checkpoints that nobody can resume from, so that they do not crowd out whole ones."""
    for checkpoint in checkpoints:
        with contextlib.suppress(OSError):
            (checkpoint / SEAL).unlink(missing_ok=True)  # one that is half gone says so at a glance
        shutil.rmtree(checkpoint, ignore_errors=True)
