"""Which of a run's weights are exported: those that it ended with, or those of one of its checkpoints. No torch."""

from __future__ import annotations

import contextlib
import math
import shutil
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Literal

from ..errors import FinetuiError
from ..recipe import Recipe
from . import checkpoints, event_log, events, store
from .store import RunFolder

Wanted = Literal["result", "last", "best"] | int
"""`result`: what the run ended with (the weights of the lowest held-out loss, where the last are clearly worse); `last`: those of the
highest step that are still there; `best`: those of the lowest held-out loss that are; a number: those of that step."""

NEW, OLD = ".adapter.new", ".adapter.old"
"""In the run's folder, while what it ended with is written and put in its place."""

STEP = "finetui-step"
"""A file beside the weights that the run was gone back to: their step."""

WORDS: tuple[str, ...] = ("result", "last", "best")
"""The words for it, in the order in which a screen goes through them."""


@dataclass(frozen=True)
class Chosen:
    """Chosen that a run left behind. `folder` holds an adapter, or a whole model after full fine-tuning."""

    folder: Path
    step: int | None
    """None where the run does not tell."""
    result: bool
    """What the run ended with: the answers in reference.json are theirs."""
    loss: float | None = None
    """On the held-out rows, where it was measured at that step."""
    note: str = ""
    """What the person should know about the choice."""

    @property
    def words(self) -> str:
        """`step 40, what the run ended with (held-out loss 0.412)`."""
        step = "an unknown step" if self.step is None else f"step {self.step:,}"
        what = "what the run ended with" if self.result else "a checkpoint"
        loss = "" if self.loss is None else f" (held-out loss {self.loss:.4g})"
        return f"{step}, {what}{loss}"


def parse(text: str) -> Wanted:
    """`last`, `best`, `result` or a step as one types it. Raises FinetuiError (usage)."""
    word = text.strip().lower()
    if word == "last" or word == "best" or word == "result":
        return word
    if word.isascii() and word.isdecimal() and len(word) < 10:
        return int(word)
    raise FinetuiError(
        f"There is no checkpoint {text[:40]!r}.",
        "A checkpoint is named by its step, or as last, best or result (what the run ended with).",
        "For example: --checkpoint best",
        code="usage",
    )


def result_folder(recipe: Recipe, run: RunFolder) -> Path:
    """Where the run keeps what it ended with: RUN/adapter, or RUN/model after full fine-tuning."""
    return run.model if recipe.lora.method == "full" else run.adapter


def replace(target: Path, new: Path) -> None:
    """Puts the folder `new` in the place of `target`; what a death in between leaves, `settle` ends. Raises OSError."""
    old = target.with_name(OLD)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def settle(run: RunFolder, *, held: bool = False) -> None:
    """Ends what a process that was killed between the two renames of `replace` had begun: the new weights were whole by
    then. What one that made an importance matrix left goes. Nothing while a worker is at work, unless it is the caller,
    who holds the run (`held`)."""
    new, halves = run.path / NEW, half_made(run)
    if not new.is_dir() and not halves:
        return
    target = run.adapter if (new / "adapter_config.json").is_file() else run.model
    moved = (run.path / OLD, target.with_name(f"{target.name}-last"))
    with contextlib.suppress(OSError, FinetuiError), contextlib.nullcontext() if held else store.alone(run):
        for half in halves:
            shutil.rmtree(half, ignore_errors=True)
        if new.is_dir() and not target.exists() and any(path.exists() for path in moved):
            new.rename(target)


def half_made(run: RunFolder) -> list[Path]:
    """What is left of importance matrices whose making was killed, or is made just now."""
    return sorted(
        path for path in run.importance.glob(".making-*") if path.is_dir() and not path.is_symlink()
    )


def holds_weights(recipe: Recipe, folder: Path) -> bool:
    """Whether `folder` has what `recipe` trains: an adapter, or a whole model."""
    name = "config.json" if recipe.lora.method == "full" else "adapter_model.safetensors"
    return (folder / name).is_file()


def choose(run: RunFolder, recipe: Recipe, wanted: Wanted) -> Chosen:
    """The weights that `wanted` names. A damaged checkpoint is passed over, or refused where it was named by its step.

    Reads the run's events, and the whole of the checkpoint that it chooses. Raises FinetuiError: export-nothing where
    the run has saved none, export-checkpoint where it has not those.
    """
    saved_step, losses = told(run)
    with contextlib.suppress(OSError, ValueError):
        saved_step = int((result_folder(recipe, run) / STEP).read_text())
    found = [
        Chosen(path, step, False, losses.get(step))
        for path in checkpoints.newest_first(run.checkpoints)
        if (path / checkpoints.SEAL).is_file() and holds_weights(recipe, path)
        for step in [checkpoints.step_of(path)]
    ]
    folder = result_folder(recipe, run)
    saved = holds_weights(recipe, folder)
    if saved:
        result = Chosen(folder, saved_step, True, None if saved_step is None else losses.get(saved_step))
        found = [result, *(weights for weights in found if weights.step != saved_step)]
    if not found:
        raise FinetuiError(
            "There is nothing to export yet.",
            "The run has saved nothing that it learned: no adapter and no checkpoint.",
            "Resume the run, or stop it with saving, then export.",
            code="export-nothing",
        )
    if isinstance(wanted, int):
        return _of_step(found, wanted)
    passed: list[str] = []
    for weights in _ordered(found, wanted, saved):
        reason = None if weights.result else checkpoints.damage(weights.folder)
        if reason is None:
            return changed(weights, note=_note(weights, wanted, saved, losses, passed))
        passed.append(f"The checkpoint of step {weights.step} is not whole: {reason}.")
    raise _refused("The run has no such checkpoint that is whole.", " ".join(passed), found)


def told(run: RunFolder) -> tuple[int | None, dict[int, float]]:
    """The step of the weights that the run ended with, and the held-out loss by step; the newest attempt counts."""
    last = saved = kept = None
    losses: dict[int, float] = {}
    for record in event_log.read_all(run.events):
        event = record.event
        if isinstance(event, events.Step):
            if last is not None and event.step <= last:  # it is done again
                losses = {step: loss for step, loss in losses.items() if step < event.step}
            last = event.step
        elif isinstance(event, events.Evaluation):
            losses[event.step] = event.loss
        elif isinstance(event, events.BestKept):
            kept = event.step
        elif isinstance(event, events.Warned) and event.code == "adapter-from-checkpoint":
            last = None  # an older finetui put a checkpoint's adapter there
        elif isinstance(event, events.Progress) and event.stage == "save" and event.unit == "adapter":
            if event.done >= event.total > 0:
                saved, kept = kept if kept is not None else last, None
    return (last if saved is None else saved), {s: v for s, v in losses.items() if math.isfinite(v)}


def _of_step(found: list[Chosen], step: int) -> Chosen:
    weights = next((w for w in found if w.step == step), None)
    if weights is None:
        raise _refused(f"There are no weights of step {step:,}.", "The run did not keep them.", found)
    if not weights.result and (reason := checkpoints.damage(weights.folder)):
        raise _refused(f"The checkpoint of step {step:,} is not whole.", f"Its files: {reason}.", found)
    return weights


def _ordered(found: list[Chosen], wanted: Literal["result", "last", "best"], saved: bool) -> list[Chosen]:
    """The weights in the order in which they answer to `wanted`."""
    if wanted == "result" and saved:
        return found[:1]
    if wanted == "best":
        judged = [w for w in found if w.loss is not None]
        if not judged:
            raise _refused(
                "Which checkpoint is best is not known.",
                "No held-out loss was measured at a step whose weights are still there.",
                found,
            )
        return sorted(judged, key=lambda w: (w.loss if w.loss is not None else math.inf, -(w.step or 0)))
    return sorted(found, key=lambda w: -math.inf if w.step is None else -w.step)


def _note(weights: Chosen, wanted: Wanted, saved: bool, losses: dict[int, float], passed: list[str]) -> str:
    said = list(passed)
    if wanted == "result" and not saved:
        said.append("The run ended before it saved what it learned; this is its newest checkpoint.")
    lowest = min(losses, key=lambda step: losses[step]) if losses else None
    if wanted == "best" and lowest is not None and weights.loss is not None and losses[lowest] < weights.loss:
        said.append(
            f"The held-out loss was lowest at step {lowest:,} ({losses[lowest]:.4g}), whose weights were not kept; "
            "Keep best on the training step keeps them."
        )
    return " ".join(said)


def _refused(what: str, why: str, found: list[Chosen]) -> FinetuiError:
    steps = ", ".join(f"{w.step:,}" for w in found if w.step is not None)
    there = f"There are those of the steps {steps}." if steps else "There is what the run ended with: result."
    return FinetuiError(what, why, f"{there} Name one with --checkpoint.", code="export-checkpoint")
