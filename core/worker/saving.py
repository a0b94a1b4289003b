"""Checkpoints of a run at work: each looked at for room first, sealed, and left out rather than fatal where it cannot be
written."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import atomic
from ..runs import checkpoints
from ..runs.care import size_of
from ..runs.events import Checkpoint, Continued, Paused, Warned
from ..text import bytes_words
from . import failures
from .control import Control
from .events import EventWriter

INSIST_SECONDS = 1800.0
RETRY_SECONDS = 5.0
POLL_SECONDS = 0.2

SPARE_BYTES = 64 * 1024 * 1024
"""What stays free beside a checkpoint: the events and the log go on growing."""


class Saving:
    """Watches over the checkpoints in `folder` while the run trains."""

    def __init__(self, folder: Path, writer: EventWriter, kept: int) -> None:
        self._folder, self._writer, self._kept = folder, writer, kept

    def path(self, step: int) -> Path:
        return self._folder / f"checkpoint-{step}"

    def whole(self, step: int) -> bool:
        """Whether the checkpoint of `step` was sealed."""
        return (self.path(step) / checkpoints.SEAL).is_file()

    def guard(self, trainer: Any) -> None:
        """From here on `trainer` looks for room before it saves, and goes on where it cannot."""
        save = trainer._save_checkpoint

        def guarded(model: Any, trial: Any = None) -> None:
            step = int(trainer.state.global_step)
            short = self.lacking(self._needed(trainer))
            if short is not None:
                self._skip(step, short)
                return
            try:
                save(model, trial)
            except Exception as error:  # the edge of the libraries that write
                if not failures.is_unwritable(error):
                    raise
                self._drop(step, error)

        trainer._save_checkpoint = guarded

    def lacking(self, needed_bytes: int) -> str | None:
        """Why `needed_bytes` do not fit on the disk; None where they do, or where nobody can tell."""
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError:
            return None
        if free >= needed_bytes + SPARE_BYTES:
            return None
        return f"It needs {bytes_words(needed_bytes)}, and {bytes_words(free)} are left on the disk."

    def _needed(self, trainer: Any) -> int:
        """Bytes of the next checkpoint: those of the newest, or the trained weights with Adam's two averages of each."""
        for newest in checkpoints.newest_first(self._folder):
            if (newest / checkpoints.SEAL).is_file():
                return size_of(newest)
        weights = sum(p.numel() * p.element_size() for p in trainer.model.parameters() if p.requires_grad)
        return 3 * weights

    def best(self, losses: Mapping[int, float]) -> int | None:
        """The step of the whole checkpoint with the lowest of `losses`, which are by step; None where there is none."""
        steps = [checkpoints.step_of(path) for path in checkpoints.newest_first(self._folder)]
        return min((s for s in steps if s in losses and self.whole(s)), key=lambda s: losses[s], default=None)

    def seal(self, step: int, counts: Mapping[str, int], losses: Mapping[int, float]) -> None:
        """Seals what was saved at `step`, with its counts, and reports it; nothing where it was left out. Only then older
        ones go, but for the best by `losses`: until now they were all that a killed run had."""
        checkpoint = self.path(step)
        if not checkpoint.is_dir():
            return
        try:
            atomic.write_text(checkpoint / checkpoints.COUNTS, json.dumps(dict(counts)))
            checkpoints.seal(checkpoint)
        except OSError as error:
            self._drop(step, error)
            return
        self._writer.emit(Checkpoint(step, f"{self._folder.name}/{checkpoint.name}"))
        older = [p for p in checkpoints.newest_first(self._folder) if p != checkpoint][self._kept - 1 :]
        best = self.best(losses)
        checkpoints.discard([p for p in older if checkpoints.step_of(p) != best])

    def _drop(self, step: int, error: Exception) -> None:
        """Takes back what was begun at `step`."""
        checkpoints.discard([self.path(step)])
        self._skip(step, failures.last_line(error))

    def _skip(self, step: int, why: str) -> None:
        kept = next(
            (p for p in checkpoints.newest_first(self._folder) if (p / checkpoints.SEAL).is_file()), None
        )
        older = f"That of step {checkpoints.step_of(kept)} is kept." if kept else "None was saved yet."
        self._writer.emit(
            Warned(
                "checkpoint-skipped",
                f"The checkpoint of step {step} was left out; the training goes on.",
                f"{why} {older}",
                "Free some space, then save: finetui save " + self._folder.parent.name,
            )
        )

    def insist(self, write: Callable[[], object], control: Control, step: int) -> None:
        """Writes the result; where the disk does not take it, waits for room (half an hour at most) and tries again.

        The result stands in memory meanwhile. `continue` tries at once; a stop gives up. Raises what `write` does then.
        """
        began = time.monotonic()
        told = False
        while True:
            try:
                write()
            except Exception as error:  # the edge of the libraries that write
                late = time.monotonic() - began > INSIST_SECONDS
                if not failures.is_unwritable(error) or late or control.terminated:
                    raise
                if not told:
                    told = True
                    self._tell_waiting(error)
                    self._writer.emit(Paused(step))
                again = time.monotonic() + RETRY_SECONDS
                while time.monotonic() < again:
                    asked = control.take()
                    if asked & {"stop", "stop-now"}:
                        raise
                    if "continue" in asked:
                        break
                    time.sleep(POLL_SECONDS)
            else:
                if told:
                    self._writer.emit(Continued(step, time.monotonic() - began))
                return

    def _tell_waiting(self, error: Exception) -> None:
        self._writer.emit(
            Warned(
                "result-waiting",
                "The result cannot be saved yet. It waits in memory and is tried again.",
                failures.last_line(error),
                "Free some space: it is saved as soon as there is room.",
            )
        )

    def tell_unsaved_stop(self, step: int) -> None:
        """Says that the run waits, since it could not save what a stop was to keep."""
        self._writer.emit(
            Warned(
                "stop-unsaved",
                f"The run waits at step {step}: it cannot be saved now, and so was not stopped.",
                "Its checkpoint could not be written.",
                "Free some space and stop it again, or let it go on, or stop it without saving.",
            )
        )
