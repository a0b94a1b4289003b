"""Going back to a better checkpoint: it becomes what a run exports, talks with, and hands on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence

from .. import recipe_file
from ..errors import FinetuiError
from . import checkpoints
from .store import RunFolder


def nearest(saved: Sequence[int], best: float) -> int | None:
    """The last of the `saved` steps at or before `best`, but not from the first half of the way there."""
    usable = [step for step in saved if best / 2 <= step <= best]
    return max(usable, default=None)


@contextlib.contextmanager
def _alone(run: RunFolder) -> Iterator[None]:
    descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FinetuiError(
                f"{run.id} is at work.", "A worker holds the run.", "Stop it first.", code="run-busy"
            ) from None
        yield
    finally:
        os.close(descriptor)


def go_back(run: RunFolder, step: int) -> str:
    """Puts the weights of the checkpoint of `step` in the place of what the run saved at its end, which is kept beside it
    under the name `adapter-last` (`model-last`). What was exported before stays as it is. Returns what was done, in words.

    Raises FinetuiError: run-busy, checkpoint-damaged where it is gone or not as it was sealed, run-folder.
    """
    recipe = recipe_file.load(run.recipe)
    target = run.model if recipe.lora.method == "full" else run.adapter
    checkpoint = run.checkpoints / f"checkpoint-{step}"
    temporary, last = run.path / ".adapter.new", target.with_name(f"{target.name}-last")
    try:
        with _alone(run):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(mode=0o700)
            if not checkpoints.copy_model(checkpoint, temporary):
                raise FinetuiError(
                    f"Step {step:,} cannot be gone back to.",
                    "Its checkpoint is gone, or a file in it has changed.",
                    "Train again with Keep best on.",
                    code="checkpoint-damaged",
                )
            (temporary / "trainer_state.json").unlink(missing_ok=True)
            if (target / "adapter_config.json").is_file():  # which names the base as others can find it
                shutil.copy2(target / "adapter_config.json", temporary / "adapter_config.json")
            if target.exists():
                target.rename(last) if not last.exists() else shutil.rmtree(target)
            temporary.rename(target)
    except OSError as error:
        raise FinetuiError(
            f"Step {step:,} cannot be gone back to.",
            f"{error.filename or run.path}: {error.strerror or error}.",
            "Make room on the disk, or check who owns the folder.",
            code="run-folder",
        ) from error
    return f"The run is at step {step:,} again; its last weights are in {last.name}. Export again to use it."
