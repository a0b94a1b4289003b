"""Waiting in the queue: one small process for each run that waits, which becomes the run's worker when its turn comes.

There is no server. Each waiting process looks for its own turn, and starts again the others' that were killed; so do a
worker that ends, `finetui queue` and the wizard. After a reboot the first of these brings the queue back to life.
"""

from __future__ import annotations

import subprocess
import time
from typing import Literal

from .. import paths
from ..errors import FinetuiError
from . import control, launch, manifest, queue, state
from .queue import Place, Slot
from .store import RunFolder

MOST_TRIES = 4
"""A run whose waiting process dies this often is taken out, so that it does not hold up the rest."""

HOW = "queued"
"""What the manifest says of how such a worker was started."""


def outlook() -> Literal["free", "another", "busy"]:
    """What a run that starts now would meet: a `free` device; `another` that is free while the one it would take is in use
    (the queue gives it that one at once); or all of them `busy`, or waited for. Blocking for some milliseconds."""
    devices = queue.devices()
    taken = [device for device in devices if queue.in_use(device)]
    if queue.places() or len(taken) == len(devices):
        return "busy"
    return "another" if devices[0] in taken else "free"


def join(
    run: RunFolder,
    job: Literal["train", "resume"] = "train",
    devices: tuple[str, ...] = (),
    *,
    anyway: bool = False,
) -> int:
    """Puts the run at the end of the queue and starts its waiting process. Returns its place; 1 is the next.

    Raises FinetuiError: run-busy where it is at work or waits already, run-folder, worker-start.
    """
    now = state.status(run)
    if now.live and (now.pid is not None or now.state == "queued"):
        raise launch.busy(run, now)
    control.clear(run)
    before, waiting = manifest.read(run), None
    try:
        with queue.changing() as places:
            place = Place(str(run.path.absolute()), job, devices or queue.devices(), tries=1, anyway=anyway)
            waiting = _start(place)
            places.append(place)
            return len(places)
    except OSError as error:
        if waiting is None:
            raise launch.not_started(error) from error
        launch.take_back(run, waiting, before)  # its turn would never come
        raise FinetuiError(
            f"{run.id} cannot be put in the queue.",
            f"{error.filename or paths.data()}: {error.strerror or error}.",
            "Free some space, or set FINETUI_HOME to a folder that you can write to.",
            code="run-folder",
        ) from error


def _start(place: Place) -> subprocess.Popen[bytes]:
    """Starts the waiting process of `place`. Raises OSError."""
    run = place.run
    before = manifest.read(run)
    launched = time.time()
    process = launch.spawn(["queued", place.job, str(run.path)], run.log, run.path)
    launch.sign(run, place.job, process.pid, launched, HOW, before, anyway=place.anyway)
    return process


def tend() -> None:
    """Starts again the waiting processes that have gone, and takes out runs that wait no more. Raises nothing."""
    if not queue.places():
        return
    try:
        with queue.changing() as places:
            places[:] = [kept for kept in map(_tended, places) if kept is not None]
    except (OSError, FinetuiError):
        return  # whoever looks next tries again


def _tended(place: Place) -> Place | None:
    run = place.run
    if not run.recipe.is_file():
        return None
    told = manifest.read(run)
    if told is not None and state.worker_alive(told.pid, told.create_time, told.host):
        return place if told.how == HOW else None  # somebody started it by hand
    if state.status(run).state != "queued" or place.tries >= MOST_TRIES:
        return None
    _start(place)
    return queue.tried(place)


def take(run: RunFolder) -> Slot | None:
    """The device whose turn it is for `run`, which leaves the queue with it; None while it has to wait.

    A run may pass another only on a device that the other may not use. Raises FinetuiError (not-queued) where it was taken
    out of the queue, and OSError.
    """
    path = str(run.path.absolute())
    slot: Slot | None = None
    try:
        with queue.changing() as places:
            at = next((n for n, place in enumerate(places) if place.path == path), None)
            if at is None:
                raise queue.not_queued(run)
            for device in places[at].devices:
                if any(device in ahead.devices for ahead in places[:at]):
                    continue
                slot = queue.use_if_free(device)
                if slot is not None:
                    del places[at]
                    break
    except OSError:  # it is still in the queue
        if slot is not None:
            slot.close()
        raise
    return slot
