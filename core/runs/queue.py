"""The queue: runs that wait for a GPU (or for the CPU), in order, and the slots by which everybody sees what is in use.

One small file names the runs in order; it is read by anybody and changed under a lock. A slot is an empty file for each
GPU (or the CPU), locked by every worker that uses it for as long as that process lives, so that not even `kill -9` leaves
one taken. Both belong to one machine: homes that several machines share hold one of each for each of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .. import atomic, paths
from ..errors import FinetuiError
from . import manifest
from .store import RunFolder

CPU = "cpu"
MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Place:
    """One run in the queue. `devices` are those it may run on: GPUs as CUDA_VISIBLE_DEVICES names them, or the CPU."""

    path: str
    job: str = "train"
    devices: tuple[str, ...] = (CPU,)
    asked_ts: float = field(default_factory=time.time)
    tries: int = 0
    """How often its waiting process had to be started."""
    anyway: bool = False
    """It may be resumed although something has changed since."""

    @property
    def run(self) -> RunFolder:
        return RunFolder(Path(self.path))


def _file(ending: str) -> Path:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", manifest.this_host()) or "host"
    return paths.data() / "queue" / f"{host}{ending}"


def places() -> tuple[Place, ...]:
    """The queue of this machine, the next run first. Empty where there is none, or none that can be read."""
    try:
        with _file(".json").open("rb") as file:
            told = json.loads(file.read(MAX_BYTES))
        return tuple(
            Place(
                path=str(one["path"]),
                job="resume" if one.get("job") == "resume" else "train",
                devices=tuple(str(device) for device in one["devices"]),
                asked_ts=float(one["asked_ts"]),
                tries=int(one.get("tries", 0)),
                anyway=one.get("anyway") is True,
            )
            for one in told["places"]
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ()


def position(run: RunFolder) -> int | None:
    """The run's place in the queue; 1 is the next. None where it does not wait."""
    path = str(run.path.absolute())
    return next((n for n, place in enumerate(places(), 1) if place.path == path), None)


@contextlib.contextmanager
def changing() -> Iterator[list[Place]]:
    """The queue, to be changed in place: nobody else changes it meanwhile. Raises OSError."""
    paths.private_dir(_file("").parent)
    descriptor = os.open(_file(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        before = places()
        now = list(before)
        yield now
        if tuple(now) != before:
            body = {"v": 1, "places": [asdict(place) for place in now]}
            atomic.write_text(_file(".json"), json.dumps(body, indent=1))
    finally:
        os.close(descriptor)


def leave(run: RunFolder) -> bool:
    """Takes the run out of the queue. False where it was not in it. Raises OSError."""
    if position(run) is None:
        return False
    with changing() as now:
        path = str(run.path.absolute())
        kept = [place for place in now if place.path != path]
        found = len(kept) < len(now)
        now[:] = kept
    return found


def move(run: RunFolder, to: int) -> int:
    """Puts the run at place `to` (1 is the next; beyond the end is the end). Returns its place.

    Raises FinetuiError (not-queued) and OSError.
    """
    path = str(run.path.absolute())
    with changing() as now:
        mine = next((place for place in now if place.path == path), None)
        if mine is None:
            raise not_queued(run)
        now.remove(mine)
        at = max(0, min(len(now), to - 1))
        now.insert(at, mine)
    return at + 1


def not_queued(run: RunFolder) -> FinetuiError:
    return FinetuiError(
        f"{run.id} does not wait in the queue.",
        "It has started, has ended, or was never put there.",
        "finetui queue lists what waits.",
        code="not-queued",
    )


def tried(place: Place) -> Place:
    """`place` with one more start of its waiting process."""
    return replace(place, tries=place.tries + 1)


# ---- slots ---------------------------------------------------------------------------------------------------


def devices() -> tuple[str, ...]:
    """What runs can use here: each GPU that CUDA_VISIBLE_DEVICES lets through, else the CPU."""
    if os.environ.get("UNSLOTH_FORCE_CPU") == "1":
        return (CPU,)
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        found = [one.strip() for one in named.split(",")]
        until = next((n for n, one in enumerate(found) if not one or one == "-1"), len(found))
        return tuple(found[:until]) or (CPU,)
    from .. import system

    return tuple(str(gpu.index) for gpu in system.snapshot().gpus) or (CPU,)


@dataclass
class Slot:
    """One use of a device, as long as this process lives or until `close`."""

    device: str
    _descriptor: int

    def close(self) -> None:
        os.close(self._descriptor)


def _open(device: str) -> int:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", device)
    paths.private_dir(_file("").parent)
    return os.open(_file(f"-{name}.slot"), os.O_RDWR | os.O_CREAT, 0o600)


def use(device: str) -> Slot | None:
    """Marks `device` as in use, whoever else uses it. None where the slot cannot be written: then nobody waits for it."""
    try:
        descriptor = _open(device)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return Slot(device, descriptor)


def use_if_free(device: str) -> Slot | None:
    """`device` marked as in use, where nobody used it. Call it inside `changing`. Raises OSError."""
    descriptor = _open(device)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return Slot(device, descriptor)


def in_use(device: str) -> bool:
    """Whether a worker of finetui uses `device` now."""
    try:
        slot = use_if_free(device)
    except OSError:
        return False
    if slot is None:
        return True
    slot.close()
    return False
