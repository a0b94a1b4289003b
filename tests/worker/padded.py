"""The demo's model with rows as wide as the low-bit quantizations need (multiples of 256), filled up with zeros.

It says what the small model says: the added numbers meet zeros everywhere. llama.cpp would make a narrower row of another type
than it was asked for, and a stretched model (`stretched.py`) loses less than a real one, as each number stands in it many times.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from finetui.core import export_record, proof_file, recipe_file
from finetui.core.demo import heldout_path, train_path
from finetui.core.runs import store
from finetui.core.runs.store import RunFolder

BLOCK = 256


@dataclasses.dataclass(frozen=True)
class _Sizes:
    hidden: int
    query: int
    key: int
    inner: int


def _sizes(config: dict[str, Any]) -> tuple[_Sizes, _Sizes, dict[str, Any]]:
    """Those of the model, the padded ones, and the padded model's configuration: whole groups of heads are added."""
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    small = _Sizes(config["hidden_size"], heads * head, groups * head, config["intermediate_size"])
    more = groups
    while heads // groups * more * head % BLOCK:
        more += 1
    large = _Sizes(
        -(-small.hidden // BLOCK) * BLOCK,
        heads // groups * more * head,
        more * head,
        -(-small.inner // BLOCK) * BLOCK,
    )
    changed = {
        "hidden_size": large.hidden,
        "intermediate_size": large.inner,
        "num_attention_heads": heads // groups * more,
        "num_key_value_heads": more,
        "head_dim": head,
        "rms_norm_eps": config["rms_norm_eps"] * small.hidden / large.hidden,
    }
    return small, large, config | changed


def _shape(name: str, of: _Sizes, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the tensor `name`, of a model or an adapter, at the sizes `of`."""
    sides = {
        "q_proj": (of.query, of.hidden),
        "k_proj": (of.key, of.hidden),
        "v_proj": (of.key, of.hidden),
        "o_proj": (of.hidden, of.query),
        "gate_proj": (of.inner, of.hidden),
        "up_proj": (of.inner, of.hidden),
        "down_proj": (of.hidden, of.inner),
    }
    outputs, inputs = next((s for key, s in sides.items() if key in name), (shape[0], of.hidden))
    if "lora_A" in name:
        return shape[0], inputs
    if "lora_B" in name:
        return outputs, shape[1]
    return (of.hidden,) if len(shape) == 1 else (outputs, inputs)


def _pad(file: Path, target: Path, small: _Sizes, large: _Sizes) -> None:
    import torch

    padded: dict[str, Any] = {}
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  it is no mapping
            tensor = tensors.get_tensor(name)
            whole = torch.zeros(_shape(name, large, tuple(tensor.shape)), dtype=tensor.dtype)
            whole[tuple(slice(0, size) for size in tensor.shape)] = tensor
            if tensor.dim() == 1:  # a norm divides by the mean square of all numbers
                whole *= math.sqrt(small.hidden / large.hidden)
            padded[name] = whole
    save_file(padded, target, metadata={"format": "pt"})


def make(model: Path, folder: Path) -> Path:
    """The model in `model` (a Llama in one file) padded, in `folder` (made when missing), with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy2(file, folder / file.name)
    small, large, config = _sizes(json.loads((model / "config.json").read_bytes()))
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    _pad(model / "model.safetensors", folder / "model.safetensors", small, large)
    return folder


def pad_run(run: RunFolder, model: Path, folder: Path) -> RunFolder:
    """A finished run over the padded model in `folder` that says what `run`, of the demo, says over `model`."""
    recipe = recipe_file.load(run.recipe)
    source = recipe.model.model_copy(update={"source": str(folder)})
    paths = {"source": str(train_path()), "evaluation_source": str(heldout_path())}
    dataset = recipe.dataset.model_copy(update=paths)
    made = store.create(f"{recipe.name}-padded")
    recipe_file.save(recipe.model_copy(update={"model": source, "dataset": dataset}), made.recipe)
    shutil.copytree(run.adapter, made.adapter, dirs_exist_ok=True)
    small, large, _config = _sizes(json.loads((model / "config.json").read_bytes()))
    name = "adapter_model.safetensors"
    _pad(run.adapter / name, made.adapter / name, small, large)
    reference = proof_file.load_reference(run)
    assert reference is not None, "the run was asked nothing"
    learned = export_record.learned_print(made.adapter)
    proof_file.save_reference(made, dataclasses.replace(reference, learned=learned))
    return made
