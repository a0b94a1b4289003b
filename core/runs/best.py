"""Going back to a better checkpoint: it becomes what a run exports, talks with, and hands on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from .. import atomic, paths, recipe_file
from ..errors import FinetuiError
from . import checkpoints, chosen, store
from .store import RunFolder


def clearly_above(loss: float, best: float) -> bool:
    """Whether a held-out loss lies above the `best` by more than the noise of such losses."""
    return not loss < 1.02 * best + 0.002


def nearest(saved: Sequence[int], best: float) -> int | None:
    """The last of the `saved` steps at or before `best`, but not from the first half of the way there."""
    usable = [step for step in saved if best / 2 <= step <= best]
    return max(usable, default=None)


def step_of(run: RunFolder) -> int:
    """The step to go back to: that of the lowest held-out loss, or the nearest before it whose checkpoint is whole.

    Raises FinetuiError: best-unknown where no held-out loss was measured or nothing near its lowest was saved.
    """
    _, losses = chosen.told(run)
    lowest = min(losses, key=lambda step: losses[step], default=None)
    folders = (run.checkpoints, run.path / checkpoints.LEFT)
    saved = [
        checkpoints.step_of(p)
        for f in folders
        for p in checkpoints.newest_first(f)
        if (p / checkpoints.SEAL).is_file()
    ]
    step = None if lowest is None else nearest(saved, lowest)
    if step is not None:
        return step
    steps = ", ".join(f"{step:,}" for step in sorted(set(saved)))
    raise FinetuiError(
        f"{run.id} has no best checkpoint to go back to.",
        "No held-out loss was measured."
        if lowest is None
        else f"It was best at step {lowest:,}, and nothing near it was saved.",
        f"Name one with --step; saved are {steps}." if steps else "Train again with Keep best on.",
        code="best-unknown",
    )


def go_back(run: RunFolder, step: int) -> str:
    """Puts the weights of the checkpoint of `step` in the place of what the run saved at its end, which is kept beside it
    under the name `adapter-last` (`model-last`). A training that goes on does so from there: later checkpoints are set aside,
    in `checkpoints-last`. What was exported before stays as it is. Returns what was done, in words.

    Raises FinetuiError: run-busy, checkpoint-damaged where it is gone or not as it was sealed, run-folder.
    """
    recipe = recipe_file.load(run.recipe)
    target = chosen.result_folder(recipe, run)
    temporary, last = run.path / chosen.NEW, target.with_name(f"{target.name}-last")
    left = run.path / checkpoints.LEFT
    try:
        with store.alone(run):
            chosen.settle(run, held=True)
            found = [place / f"checkpoint-{step}" for place in (run.checkpoints, left)]
            checkpoint = next((path for path in found if path.is_dir()), found[0])
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
            atomic.write_text(temporary / chosen.STEP, str(step))
            if (target / chosen.STEP).is_file():  # those of the end are kept already
                chosen.replace(target, temporary)
            else:
                shutil.rmtree(last, ignore_errors=True)
                if target.exists():
                    target.rename(last)
                temporary.rename(target)
            _leave(run.checkpoints, left, step)
    except OSError as error:
        raise FinetuiError(
            f"Step {step:,} cannot be gone back to.",
            f"{error.filename or run.path}: {error.strerror or error}.",
            "Make room on the disk, or check who owns the folder.",
            code="run-folder",
        ) from error
    return f"The run is at step {step:,} again; what it ended with is in {last.name}. Export again to use it."


def _leave(folder: Path, left: Path, step: int) -> None:
    """Sets the checkpoints in `folder` after `step` aside, and brings those up to it back from `left`."""
    paths.private_dir(left)
    for checkpoint in checkpoints.newest_first(folder):
        if checkpoints.step_of(checkpoint) > step:
            shutil.rmtree(left / checkpoint.name, ignore_errors=True)
            checkpoint.rename(left / checkpoint.name)
    for checkpoint in checkpoints.newest_first(left):
        if checkpoints.step_of(checkpoint) <= step and not (folder / checkpoint.name).exists():
            checkpoint.rename(folder / checkpoint.name)
