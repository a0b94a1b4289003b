"""The adapter on disk: saved whole or not at all, and loaded back onto a model that has one of the same shape."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from .. import atomic
from ..errors import FinetuiError
from ..recipe import DEMO, Recipe
from ..runs import checkpoints
from ..runs.store import RunFolder
from ..text import one_line
from . import loftq

WEIGHTS = "adapter_model.safetensors"


def folder(recipe: Recipe, run: RunFolder) -> Path:
    """Where the run keeps what it learned: RUN/adapter, or RUN/model after full fine-tuning."""
    return run.model if recipe.lora.method == "full" else run.adapter


def is_saved(recipe: Recipe, run: RunFolder) -> bool:
    """Whether the run has saved what it learned."""
    name = "config.json" if recipe.lora.method == "full" else WEIGHTS
    return (folder(recipe, run) / name).is_file()


def save(model: Any, tokenizer: Any, recipe: Recipe, run: RunFolder) -> Path:
    """RUN/adapter (RUN/model after full fine-tuning) with the weights, the tokenizer and its chat template. An older one is replaced at the end."""
    temporary = run.path / ".adapter.new"
    old = run.path / ".adapter.old"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    temporary.mkdir(mode=0o700)
    model.save_pretrained(str(temporary), safe_serialization=True)
    tokenizer.save_pretrained(str(temporary))
    loftq.leave(temporary, recipe, run)
    source = recipe.model.source
    target = folder(recipe, run)
    if recipe.lora.method == "lora" and source != DEMO and not Path(source).expanduser().exists():
        settings = json.loads((temporary / "adapter_config.json").read_bytes())
        settings |= {"base_model_name_or_path": source, "revision": recipe.model.revision}
        atomic.write_text(temporary / "adapter_config.json", json.dumps(settings, indent=2))
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def settle(recipe: Recipe, run: RunFolder) -> None:
    """Ends what a worker that was killed between the two renames of `save` had begun: the new one was whole by then."""
    target, temporary = folder(recipe, run), run.path / ".adapter.new"
    if not target.exists() and (run.path / ".adapter.old").exists() and temporary.exists():
        temporary.rename(target)


def adopt_checkpoint(recipe: Recipe, run: RunFolder) -> int | None:
    """Gives a run that was cut short the adapter of its newest whole checkpoint. Returns that one's step; None where
    the run has saved its adapter itself.

    Raises FinetuiError (adapter-missing) where there is neither.
    """
    settle(recipe, run)
    if is_saved(recipe, run):
        return None
    checkpoint, _damaged = checkpoints.choose(run.checkpoints)
    if checkpoint is None:
        raise FinetuiError(
            "There is nothing to export yet.",
            "This run has saved no adapter and no checkpoint.",
            "Resume it, or start it again.",
            code="adapter-missing",
        )
    temporary = run.path / ".adapter.new"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700)
    for file in checkpoint.iterdir():
        if file.is_file() and file.suffix in (".json", ".jinja", ".safetensors", ".model"):
            if file.name not in (checkpoints.SEAL, checkpoints.COUNTS, "trainer_state.json"):
                shutil.copy2(file, temporary / file.name)
    loftq.leave(temporary, recipe, run)
    temporary.rename(folder(recipe, run))
    return checkpoints.step_of(checkpoint)


def load(model: Any, folder: Path) -> None:
    """Puts the weights in `folder` into the adapter that `model` has, which has the same shape; where it has none, into the
    model itself.

    Raises FinetuiError: adapter-broken where they cannot be read, adapter-shape where they do not fit.
    """
    from peft import set_peft_model_state_dict

    if not hasattr(model, "peft_config"):
        _load_whole(model, folder)
        return
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    shown = one_line(str(folder), 160)
    try:
        weights = load_file(str(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise FinetuiError(
            "The adapter cannot be read.",
            f"{WEIGHTS} in {shown}: {one_line(str(error), 160)}.",
            "Name the adapter of another run, or a checkpoint of this one.",
            code="adapter-broken",
        ) from error
    try:
        result = set_peft_model_state_dict(model, weights)
    except RuntimeError as error:  # sizes that differ
        raise _misfit(shown, one_line(str(error), 200)) from error
    missing = [name for name in result.missing_keys if "lora_" in name or ".modules_to_save." in name]
    if missing or result.unexpected_keys:
        odd = [*missing, *result.unexpected_keys]
        raise _misfit(shown, f"{len(odd)} of its parts have no counterpart, such as {one_line(odd[0], 120)}.")


def _load_whole(model: Any, folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_model
    from transformers.trainer_utils import load_sharded_checkpoint

    try:
        if (folder / "model.safetensors").is_file():
            load_model(model, str(folder / "model.safetensors"), strict=False)
        else:
            load_sharded_checkpoint(model, str(folder), strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        shown = one_line(str(folder), 160)
        raise FinetuiError(
            "The checkpoint cannot be read.",
            f"{shown}: {one_line(str(error), 160)}.",
            "Resume from an older one: move this one away.",
            code="adapter-broken",
        ) from error


def _misfit(shown: str, why: str) -> FinetuiError:
    return FinetuiError(
        f"The adapter in {shown} does not fit this model.",
        why,
        "Choose the model that it was trained on as the base.",
        code="adapter-shape",
    )
