"""The adapter on disk: saved whole or not at all, and loaded back onto a model that has one of the same shape."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from .. import atomic
from ..errors import FinetuiError
from ..recipe import DEMO, Recipe
from ..runs import checkpoints, chosen
from ..runs.store import RunFolder
from ..text import one_line
from . import loftq

WEIGHTS = "adapter_model.safetensors"


def save(model: Any, tokenizer: Any, recipe: Recipe, run: RunFolder) -> Path:
    """RUN/adapter (RUN/model after full fine-tuning) with the weights, the tokenizer and its chat template. An older one is replaced at the end."""
    temporary = run.path / chosen.NEW
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700)
    model.save_pretrained(str(temporary), safe_serialization=True)
    tokenizer.save_pretrained(str(temporary))
    loftq.leave(temporary, recipe, run)
    _tidy(temporary, recipe)
    target = chosen.result_folder(recipe, run)
    chosen.replace(target, temporary)
    return target


def _tidy(folder: Path, recipe: Recipe) -> None:
    """Lets the adapter in `folder` name the hub model that it belongs to, not where that is cached here, and puts its layers in
    order: PEFT keeps them in a set, so that the same adapter is another file each time."""
    source, file = recipe.model.source, folder / "adapter_config.json"
    if not file.is_file():
        return
    settings = json.loads(file.read_bytes())
    if isinstance(settings.get("target_modules"), list):
        settings["target_modules"].sort()
    if source != DEMO and not Path(source).expanduser().exists():
        settings |= {"base_model_name_or_path": source, "revision": recipe.model.revision}
    atomic.write_text(file, json.dumps(settings, indent=2))


def copy(source: Path, target: Path, recipe: Recipe, suffixes: tuple[str, ...]) -> None:
    """Copies an adapter, the run's own or a checkpoint's, to the folder `target`: its files that end in `suffixes`, but not
    what only a resume needs. Raises OSError."""
    for file in sorted(source.iterdir()):
        wanted = file.is_file() and not file.is_symlink() and file.suffix in suffixes
        if wanted and file.name not in (checkpoints.SEAL, checkpoints.COUNTS, "trainer_state.json"):
            shutil.copyfile(file, target / file.name)
    _tidy(target, recipe)


def state_scale(folder: Path) -> None:
    """Writes the scale of the adapter in `folder` as alpha over rank, the only one that llama.cpp knows (src/llama-adapter.h);
    rsLoRA's is alpha over the root of the rank. Raises FinetuiError (adapter-gguf) where one alpha does not say it, and OSError."""
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_bytes())
    rooted = bool(settings.get("use_rslora"))
    if settings.get("alpha_pattern") or (rooted and settings.get("rank_pattern")):
        raise FinetuiError(
            "llama.cpp takes one scale for a whole adapter.",
            "This one has layers with scales of their own.",
            "Take a GGUF of the whole model, such as gguf_q8_0, in place of adapter_gguf.",
            code="adapter-gguf",
        )
    if rooted:
        settings |= {"lora_alpha": settings["lora_alpha"] * math.sqrt(settings["r"]), "use_rslora": False}
    atomic.write_text(file, json.dumps(settings, indent=2))


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
