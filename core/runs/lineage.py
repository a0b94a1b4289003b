"""Runs made from runs: trained longer, started from an adapter, or the same again with changes. The old one stays as it is."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from .. import atomic, model_adapter, recipe_file
from ..draft import Draft
from ..errors import FinetuiError
from ..recipe import Recipe
from . import checkpoints, event_log, events, launch, state, store, turns
from .chosen import settle
from .store import RunFolder

FILE = "origin.json"
MAX_BYTES = 64 * 1024
How = Literal["longer", "adapter", "copy", "retry"]

_HISTORY = (
    events.Started,
    events.ModelReady,
    events.DatasetReady,
    events.Step,
    events.Evaluation,
    events.Sample,
)
"""What a run that goes on from another takes over of the events before it, so that its curve begins where the training began."""


@dataclass(frozen=True)
class Origin:
    """Where a run comes from: the id of another, and the step that it goes on after; 0 where it begins anew."""

    run: str
    how: How
    step: int = 0


def origin(run: RunFolder) -> Origin | None:
    """Where `run` comes from; None where it comes from no other."""
    try:
        with (run.path / FILE).open("rb") as file:
            told = json.loads(file.read(MAX_BYTES))
        how: How = next((one for one in get_args(How) if one == told["how"]), "copy")
        return Origin(str(told["run"]), how, int(told.get("step", 0)))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def sign(run: RunFolder, of: Origin) -> None:
    """Notes in `run` where it comes from. Raises OSError."""
    atomic.write_text(run.path / FILE, json.dumps(asdict(of)))


# ---- the same again, and on from what was learned --------------------------------------------------------------


def copied(run: RunFolder) -> Recipe:
    """The recipe of `run`, to be changed and started as a run of its own. Raises RecipeError."""
    return recipe_file.load(run.recipe)


def onward(run: RunFolder) -> Recipe:
    """The recipe of `run` made to start from what it has learned: its adapter, with that one's shape.

    Raises FinetuiError: adapter-missing, adapter-broken.
    """
    recipe = copied(run)
    settle(run)
    return model_adapter.with_adapter(recipe, model_adapter.read_adapter(run.adapter), recipe.model.source)


# ---- longer ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Longer:
    """A training that goes on after its end. `recipe` counts all steps from the first one on."""

    run: RunFolder
    recipe: Recipe
    checkpoint: Path
    step: int
    total_steps: int
    passed_over: tuple[str, ...] = ()
    """Newer checkpoints that are damaged, in words."""

    @property
    def words(self) -> str:
        """What happens to the steps and to the learning rate, in two sentences."""
        training = self.recipe.training
        added = self.total_steps - self.step
        rate = f"{training.learning_rate:g}"
        if training.schedule == "constant":
            said = f"The learning rate stays at {rate}."
        else:
            warm = math.ceil(training.warmup_share * added)
            rise = f"rises again to {rate} over {warm} steps" if warm else f"starts again at {rate}"
            said = f"The learning rate had come to its end; it {rise}, and runs its {training.schedule} course anew."
        return f"From step {self.step:,} to {self.total_steps:,}, {added:,} more. {said}"


def longer(
    run: RunFolder,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
) -> Longer:
    """What it takes to train a finished `run` for so many more `epochs`, or `steps`. Changes nothing. Blocking: it reads
    the checkpoint through, to be sure of it.

    Raises FinetuiError: not-finished, nothing-to-resume, recipe.
    """
    now = state.status(run)
    if now.live or not now.trained:
        raise FinetuiError(
            f"{run.id} is not trained to its end.",
            f"It is {now.standing}; training longer goes on from a finished training.",
            f"finetui {'attach' if now.live else 'resume'} {run.id}",
            code="not-finished",
        )
    chosen, damaged = checkpoints.choose(run.checkpoints)
    if chosen is None:
        raise FinetuiError(
            f"{run.id} cannot be trained longer.",
            "Its last checkpoint is gone or damaged, and with it the state of the optimizer.",
            f"finetui duplicate {run.id} --from-adapter starts a new training from its adapter.",
            code="nothing-to-resume",
        )
    step = checkpoints.step_of(chosen)
    epoch = now.epoch * step / now.step if now.step else 0.0
    per_epoch = step / epoch if epoch > 0 else float(step)
    more = (
        steps
        if steps is not None
        else math.ceil(round((epochs if epochs is not None else 1.0) * per_epoch, 6))
    )
    total = step + max(1, more)
    draft = Draft(recipe_file.load(run.recipe))
    draft.set("training.max_steps", str(total))
    draft.set("training.epochs", str(float(math.ceil(total / per_epoch) + 1)))
    if learning_rate is not None:
        draft.set("training.learning_rate", repr(learning_rate))
    return Longer(
        run,
        draft.recipe(),
        chosen,
        step,
        total,
        tuple(f"that of step {checkpoints.step_of(path)}: {why}" for path, why in damaged),
    )


def start_longer(plan: Longer, *, queued: bool = False) -> RunFolder:
    """Makes the longer run and starts it, or puts it in the queue. Raises as `go_on_from`."""
    of = Origin(plan.run.id, "longer", plan.step)
    return go_on_from(plan.run, plan.checkpoint, plan.recipe, of, queued=queued)


# ---- on from a checkpoint of another run -----------------------------------------------------------------------


def go_on_from(
    old: RunFolder, checkpoint: Path, recipe: Recipe, of: Origin, *, queued: bool = False
) -> RunFolder:
    """Makes a run of `recipe` with a checkpoint of `old` and its curve up to there, and starts it from there, or puts it
    in the queue.

    Raises FinetuiError: disk-full, run-folder, worker-start.
    """
    launch.check_disk(old.path)
    run = store.create(recipe.name)
    try:
        sign(run, of)
        _take_over(old, checkpoint, of.step, run)
        recipe_file.save(recipe, run.recipe)
        if queued:
            turns.join(run, "resume")
        else:
            launch.start(run, "resume")
    except BaseException as error:
        if not run.manifest.exists():
            shutil.rmtree(run.path, ignore_errors=True)
        if isinstance(error, OSError):
            raise FinetuiError(
                "The new run cannot be written.",
                f"{error.filename or run.path}: {error.strerror or error}.",
                "Free some space, or set FINETUI_HOME to a folder that you can write to.",
                code="run-folder",
            ) from error
        raise
    return run


def _take_over(old: RunFolder, checkpoint: Path, step: int, run: RunFolder) -> None:
    """The checkpoint, as links where the file system has them (its files are never changed), and the curve up to it."""

    def link(source: str, target: str) -> str:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
        return target

    shutil.copytree(checkpoint, run.checkpoints / checkpoint.name, copy_function=link)
    if old.start.is_file():
        link(str(old.start), str(run.start))
    reader = event_log.EventReader(old.events)
    seq, last = 0, 0.0
    with os.fdopen(os.open(run.events, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while records := reader.read():
            for record in records:
                event = record.event
                if isinstance(event, events.Started) and event.job not in ("train", "resume"):
                    continue
                if isinstance(event, _HISTORY) and getattr(event, "step", 0) <= step:
                    seq, last = seq + 1, max(last, record.ts)
                    file.write(event_log.encode(event_log.Record(seq, record.ts, event)))
        path = f"{run.checkpoints.name}/{checkpoint.name}"
        file.write(event_log.encode(event_log.Record(seq + 1, last, events.Checkpoint(step, path))))
