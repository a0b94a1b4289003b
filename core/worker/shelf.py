"""Finished inspections kept on disk, so that a second look at the same file is instant. Bounded; the oldest go first."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import secrets
import shutil
import socket
import zipfile
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import TypeAdapter

from .. import paths
from ..dataset_ledger import Ledger
from ..recipe import Recipe
from .columns import Columns
from .spool import Spool

MOST_BYTES = 1024**3
"""All kept inspections together."""

MOST_BYTES_OF_ONE = 512 * 1024**2
"""A larger one is not kept: its file is read again."""

MOST_ENTRIES = 32

_END_BYTES = 1024 * 1024
_CODE = (
    "conversation.py", "dataset_*.py", "personal_data.py", "text.py",
    "worker/chat.py", "worker/spans.py", "worker/dataset.py", "worker/account.py",
    "worker/columns.py", "worker/spool.py", "worker/shelf.py",
)  # fmt: skip


def root() -> Path:
    return paths.private_dir(paths.cache() / "ledgers")


def workplace() -> Path:
    """A new folder for an inspection under way. Folders that dead processes left are removed."""
    here = root()
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    for left in here.glob(f".work-{host}-*"):
        pid = left.name.split("-")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    made = here / f".work-{host}-{os.getpid()}-{secrets.token_hex(4)}"
    made.mkdir(mode=0o700)
    return made


def key(recipe: Recipe, files: tuple[Path | str, ...], tokenizer: str, template: str) -> str | None:
    """What stands for everything that the inspection depends on; None where that cannot be told (a hub dataset)."""
    seen: list[list[object]] = []
    try:
        for file in files:
            if not isinstance(file, Path):
                return None
            facts = file.stat()
            seen.append([str(file.absolute()), facts.st_size, facts.st_mtime_ns, _ends(file, facts.st_size)])
    except OSError:
        return None
    depends = {
        "code": _code(),
        "dataset": recipe.dataset.model_dump(mode="json"),
        "seed": recipe.training.seed,
        "max_length": recipe.model.max_length,
        "tokenizer": tokenizer,
        "day": datetime.date.today().isoformat() if "strftime_now" in template else "",
        "files": seen,
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:40]


def _ends(file: Path, size: int) -> str:
    with file.open("rb") as opened:
        digest = hashlib.sha256(opened.read(_END_BYTES))
        if size > _END_BYTES:
            opened.seek(max(_END_BYTES, size - _END_BYTES))
            digest.update(opened.read(_END_BYTES))
    return digest.hexdigest()


def _code() -> str:
    digest = hashlib.sha256()
    core = Path(__file__).parent.parent
    for pattern in _CODE:
        for file in sorted(core.glob(pattern)):
            digest.update(file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Found:
    ledger: Ledger
    columns: Columns
    spool: Spool
    files: tuple[str, ...]


def find(name: str) -> Found | None:
    """The inspection kept under `name`, or None; a damaged one is removed."""
    folder = root() / name
    try:
        head = json.loads((folder / "ledger.json").read_bytes())
        ledger = TypeAdapter(Ledger).validate_python(head["ledger"])
        columns = Columns.load(folder / "columns.npz", head["reasons"])
        spool = Spool(folder / "rows", [(a, b, c) for a, b, c in head["pieces"]])
        if head["rows"] != len(columns) or spool.path.stat().st_size != spool.bytes:
            raise ValueError("not whole")
        os.utime(folder / "ledger.json")
        return Found(ledger, columns, spool, tuple(head["files"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def keep(
    name: str, work: Path, ledger: Ledger, columns: Columns, spool: Spool, files: tuple[str, ...]
) -> Path | None:
    """Keeps the finished inspection whose rows lie in `work`; the folder that it moved to, None where it was too large or
    the disk takes no more."""
    if spool.full or spool.bytes > MOST_BYTES_OF_ONE:
        return None
    target = root() / name
    try:
        columns.save(work / "columns.npz")
        head = {
            "ledger": TypeAdapter(Ledger).dump_python(ledger, mode="json"),
            "reasons": columns.reasons,
            "pieces": spool.pieces,
            "rows": len(columns),
            "files": files,
        }
        (work / "ledger.json").write_text(json.dumps(head), encoding="ascii")
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    except OSError:
        return None
    _prune(target)
    return target


def _prune(newest: Path) -> None:
    entries: list[tuple[float, int, Path]] = []
    for folder in root().iterdir():
        if folder.name.startswith(".") or folder == newest:
            continue
        with contextlib.suppress(OSError):
            size = sum(file.stat().st_size for file in folder.iterdir())
            entries.append(((folder / "ledger.json").stat().st_mtime, size, folder))
    total = sum(file.stat().st_size for file in newest.iterdir())
    for count, (_, size, folder) in enumerate(sorted(entries, reverse=True), 2):
        total += size
        if total > MOST_BYTES or count > MOST_ENTRIES:
            total -= size
            shutil.rmtree(folder, ignore_errors=True)
