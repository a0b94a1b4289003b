"""A larger model that answers exactly like a small one: the demo's, made four times as wide, has 1.8 billion weights.

Each vector of the small model stands `times` times in a row in the large one, so a linear layer is its matrix tiled and
divided by `times`, a norm is its weight repeated, and heads come in `times` groups. Random weights would do for sizes and
speed, but what they answer turns over at the least rounding; this model is as sure of its words as the small one.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from finetui.core import export_record, proof_file, recipe_file
from finetui.core.demo import heldout_path, train_path
from finetui.core.recipe import DEMO
from finetui.core.runs import store
from finetui.core.runs.store import RunFolder

_WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")


def make(small: Path, folder: Path, times: int, *, rough: bool = False) -> Path:
    """A model folder at `folder` (made when missing), `times` as wide as the Llama in `small`, with its tokenizer.

    `rough` moves each weight of a layer within its step of 4 bits, at random, which evens out over the copies. The demo's
    weights come from a 4-bit file: as they are, a quantization to 4 bits would give them back, and lose a small change.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in small.iterdir():
        if file.suffix != ".safetensors" and file.name != "model.safetensors.index.json":
            shutil.copy2(file, folder / file.name)
    config = json.loads((small / "config.json").read_bytes())
    for name in _WIDTHS:
        config[name] *= times
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    tied = bool(config.get("tie_word_embeddings"))
    wide: dict[str, Any] = {}
    for file in sorted(small.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  it is no mapping
                wide[name] = _widened(name, tensors.get_tensor(name), times, tied)
                if rough and name.endswith("proj.weight"):
                    wide[name] = _roughened(name, wide[name])
    save_file(wide, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _roughened(name: str, weights: Any) -> Any:
    import torch

    blocks = weights.float().view(-1, 32)
    step = (blocks.amax(1, keepdim=True) - blocks.amin(1, keepdim=True)) / 15
    chance = torch.rand(blocks.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    return (blocks + (chance - 0.5) * step).view(weights.shape).to(weights.dtype)


def _widened(name: str, tensor: Any, times: int, tied: bool) -> Any:
    if name.endswith("embed_tokens.weight"):
        return tensor.repeat(1, times)
    if name.endswith("lm_head.weight"):
        return tensor.repeat(1, times) / times
    if name == "model.norm.weight" and tied:  # the table is used as it is, and would give `times` the logits
        return tensor.repeat(times) / times
    if tensor.dim() == 1:
        return tensor.repeat(times)
    return tensor.repeat(times, times) / times


def widen_adapter(small: Path, folder: Path, model: Path, times: int) -> Path:
    """The LoRA adapter in `small` as one over the wide `model`, in `folder` (made when missing): it changes the same."""
    shutil.copytree(small, folder, dirs_exist_ok=True)
    config = json.loads((small / "adapter_config.json").read_bytes()) | {
        "base_model_name_or_path": str(model)
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    wide: dict[str, Any] = {}
    with safe_open(small / "adapter_model.safetensors", framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  it is no mapping
            side = tensors.get_tensor(name)
            wide[name] = side.repeat(1, times) / times if "lora_A" in name else side.repeat(times, 1)
    save_file(wide, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def widen_run(small: RunFolder, model: Path, times: int) -> RunFolder:
    """A finished run over the wide `model` that says what the run `small` says: nothing is trained again, and the
    answers to prove its exports by are those of `small`."""
    recipe = recipe_file.load(small.recipe)
    update: dict[str, object] = {
        "name": f"{recipe.name}-{times}-wide",
        "model": recipe.model.model_copy(update={"source": str(model)}),
    }
    if recipe.dataset.source == DEMO:  # it goes with the demo's own model only
        paths = {"source": str(train_path()), "evaluation_source": str(heldout_path())}
        update["dataset"] = recipe.dataset.model_copy(update=paths)
    wide = recipe.model_copy(update=update)
    run = store.create(wide.name)
    recipe_file.save(wide, run.recipe)
    widen_adapter(small.adapter, run.adapter, model, times)
    reference = proof_file.load_reference(small)
    if reference is not None:
        learned = export_record.learned_print(run.adapter)
        proof_file.save_reference(run, dataclasses.replace(reference, learned=learned))
    return run
