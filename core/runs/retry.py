"""Trying a failed run again: what its failure asks to change of the recipe, and the run made of that. The old one stays.

`remedies` knows the changes; this module decides what is started: a new run from the beginning, a new one from the last
checkpoint where the change leaves the training what it was, or the same run where nothing needs to change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .. import recipe_file
from ..draft import Draft
from ..errors import FinetuiError
from ..fields import field, fields, get
from ..recipe import ExportFormat, Recipe
from . import checkpoints, launch, lineage, manifest, preflight, remedies, state, turns
from .state import Card
from .store import RunFolder

_SAME_TRAINING = (
    "training.batch_size",
    "training.gradient_accumulation_steps",
    "training.evaluation_batch_size",
    "lora.gradient_checkpointing",
)
"""At the same effective batch these change how a step is computed and not what comes of it."""


@dataclass(frozen=True)
class Change:
    """A field of the recipe, and its values before and after."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Retry:
    """What a retry of `run` does. `new` makes a run of its own, which leaves the old one as it is."""

    run: RunFolder
    card: Card
    recipe: Recipe
    changes: tuple[Change, ...]
    why: str
    """Why these changes, in a sentence; empty where there are none."""
    first: str
    """What the person has to do before it can succeed; empty where there is nothing."""
    job: Literal["train", "resume", "export", "verify"]
    new: bool
    checkpoint: Path | None = None
    """The one that it goes on from."""

    @property
    def step(self) -> int:
        """The step that it goes on after; 0 for one from the beginning."""
        return checkpoints.step_of(self.checkpoint) if self.checkpoint is not None else 0

    @property
    def words(self) -> str:
        """What is started, in a sentence."""
        if self.job in ("export", "verify"):
            return f"Nothing is trained again: only the {self.job} is done once more."
        where = f"from the checkpoint of step {self.step:,}" if self.step else "from the beginning"
        if not self.new:
            return f"The same run goes on {where}."
        how = "with this change" if len(self.changes) == 1 else "with these changes" if self.changes else ""
        return (
            f"A new run starts {where}{f', {how}' if how else ', with the same recipe'}; the old one is kept."
        )

    def diff(self) -> list[str]:
        """The changes of the recipe as a diff, two lines for each."""
        return [
            f"{sign} {change.path}: {_yaml(value)}"
            for change in self.changes
            for sign, value in (("-", change.before), ("+", change.after))
        ]


def _yaml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return " ".join(recipe_file.written({"x": value}).removeprefix("x:").split())


def plan(run: RunFolder) -> Retry:
    """What a retry of `run` would do. Starts nothing. Blocking: it reads the newest checkpoint through, and may look at
    the base model.

    Raises FinetuiError: not-failed where it has not failed or crashed, recipe.
    """
    now = state.status(run)
    if now.card is None:
        raise FinetuiError(
            f"{run.id} has not failed.",
            f"It is {now.standing}; there is nothing to mend.",
            f"finetui duplicate {run.id} starts it again with changes.",
            code="not-failed",
        )
    recipe, card = lineage.copied(run), now.card
    if now.job in ("export", "verify") or (_has_result(run) and _over_exports(card.code, now.stage)):
        told = manifest.read(run)
        if now.job == "export" and told is not None and told.formats:
            recipe, _ = _changed(recipe, {"export.formats": told.formats})
        found = remedies.of(card.code, recipe, run)
        mended, changes = _changed(recipe, found.values)
        job: Literal["export", "verify"] = "verify" if now.job == "verify" else "export"
        return Retry(run, card, mended, changes, found.why, "" if changes else card.fix, job, False)
    found = remedies.of(card.code, recipe, run)
    mended, changes = _changed(recipe, found.values)
    first = card.fix if found.by_hand and not changes else ""
    checkpoint = None
    if not found.anew and not now.trained:
        checkpoint, _ = checkpoints.choose(run.checkpoints)
    if not changes and checkpoint is not None:
        return Retry(run, card, recipe, (), "", first, "resume", False, checkpoint)
    if checkpoint is not None and _same_training(recipe, mended, changes):
        return Retry(run, card, mended, changes, found.why, first, "resume", True, checkpoint)
    return Retry(run, card, mended, changes, found.why, first, "train", True)


def with_recipe(plan: Retry, recipe: Recipe) -> Retry:
    """`plan` with more changes: it begins from the start then, unless they leave the training what it was."""
    before = lineage.copied(plan.run)
    changes = tuple(
        Change(spec.path, get(before, spec.path), get(recipe, spec.path))
        for spec in fields()
        if get(before, spec.path) != get(recipe, spec.path)
    )
    if plan.job in ("export", "verify") and all(c.path == "export.formats" for c in changes):
        return replace(plan, recipe=recipe, changes=changes)
    kept = plan.checkpoint if _same_training(before, recipe, changes) else None
    job: Literal["train", "resume"] = "resume" if kept is not None else "train"
    return replace(plan, recipe=recipe, changes=changes, checkpoint=kept, job=job, new=True)


def formats(plan: Retry) -> tuple[ExportFormat, ...]:
    """What the retried job is started with: the formats of an export, nothing otherwise."""
    return plan.recipe.export.formats if plan.job == "export" else ()


def start(plan: Retry, *, queued: bool = False, anyway: bool = False) -> RunFolder:
    """Starts what `plan` says, or puts it in the queue. Returns its run. `anyway`: the person agreed to go on although
    something has changed since.

    Raises what `preflight.ready`, `launch.new`, `launch.check_resumable` and `lineage.go_on_from` raise.
    """
    run = plan.run
    if plan.job in ("export", "verify"):
        launch.start(run, plan.job, formats(plan))
        return run
    if not plan.new:
        return resume(run, queued=queued, anyway=anyway)
    of = lineage.Origin(run.id, "retry", plan.step)
    if plan.checkpoint is not None:
        return lineage.go_on_from(run, plan.checkpoint, plan.recipe, of, queued=queued)
    made = launch.new(preflight.ready(plan.recipe), queued=queued)
    lineage.sign(made, of)
    return made


def resume(run: RunFolder, *, queued: bool = False, anyway: bool = False) -> RunFolder:
    """Goes on with `run` from its newest checkpoint, now or in its turn. Returns it. Raises as `launch.check_resumable`."""
    launch.check_resumable(run, anyway=anyway)
    if queued:
        turns.join(run, "resume", anyway=anyway)
    else:
        launch.start(run, "resume", anyway=anyway)
    return run


def _over_exports(code: str, stage: str) -> bool:
    """Whether the training itself was done, and what came after it failed."""
    return stage in ("export", "score") or code.startswith(("export", "gguf", "merge", "llama-cpp"))


def _same_training(before: Recipe, after: Recipe, changes: tuple[Change, ...]) -> bool:
    same = before.effective_batch_size == after.effective_batch_size
    return same and all(change.path in _SAME_TRAINING for change in changes)


def _has_result(run: RunFolder) -> bool:
    return run.adapter.is_dir() or run.model.is_dir()


def _changed(recipe: Recipe, values: dict[str, Any]) -> tuple[Recipe, tuple[Change, ...]]:
    """`recipe` with `values`, and what of it is different then."""
    draft = Draft(recipe)
    for path, value in values.items():
        draft.set(field(path).path, value)
    mended = draft.recipe()
    changes = tuple(
        Change(path, get(recipe, path), get(mended, path))
        for path in values
        if get(recipe, path) != get(mended, path)
    )
    return mended, changes
