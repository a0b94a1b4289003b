"""A worker that waits in the queue. Nothing heavy is imported before its turn has come."""

from __future__ import annotations

import contextlib
import os
import time

from ..errors import FinetuiError
from ..runs import launch, manifest, queue, turns
from ..runs.store import RunFolder
from .control import Control, Stopped

POLL_SECONDS = 0.5
TEND_SECONDS = 3.0


def wait(run: RunFolder, job: str, control: Control) -> queue.Slot:
    """Waits for the run's turn and takes its device, which CUDA then shows alone.

    Raises Stopped where it was stopped or taken out of the queue meanwhile.
    """
    _sign(run, job)
    tended = time.monotonic()
    while True:
        try:
            control.check()
            slot = turns.take(run)
        except (Stopped, FinetuiError):
            with contextlib.suppress(OSError):
                queue.leave(run)
            raise Stopped from None
        except OSError:  # a full disk: the queue stands as it is, and is looked at again
            slot = None
        if slot is not None:
            if slot.device != queue.CPU:
                os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
                os.environ["CUDA_VISIBLE_DEVICES"] = slot.device
            return slot
        if time.monotonic() - tended > TEND_SECONDS:
            tended = time.monotonic()
            turns.tend()
        time.sleep(POLL_SECONDS)


def _sign(run: RunFolder, job: str) -> None:
    """Corrects the manifest where whoever started this process was killed before writing it, or another one lost to it."""
    with contextlib.suppress(OSError), queue.changing():
        told = manifest.read(run)
        if told is None or told.pid != os.getpid():
            launch.sign(run, job, os.getpid(), time.time(), turns.HOW, told)
