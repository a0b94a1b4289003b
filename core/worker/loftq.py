"""LoftQ: an adapter that starts from what the base lost when it was packed into 4 bits, and leaves as an ordinary one.

The base stays packed as it is. Each adapted weight W is held as Q; the adapter starts as the best product of its rank for
W − Q, in place of zero, so training begins nearer to the whole model (arXiv 2310.08659, one round). PEFT's own
`init_lora_weights="loftq"` rewrites a 16-bit base, and its `replace_lora_weights_loftq` takes no notice of the
scale alpha ÷ rank, which would repair the loss twice over at a scale of 2.

What is saved is what was learned since: B·A − B₀·A₀, of twice the rank, as PEFT converts such adapters. It belongs over the
model in 16 bit like any other, so merging, chats and proofs need to know nothing of how it started. The start itself is
kept in the run's folder, and its checkpoints hold the adapter as it is trained.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from .. import atomic
from ..errors import FinetuiError
from ..recipe import Recipe
from ..runs.store import RunFolder
from . import base_weights

_WEIGHTS: Final = "adapter_model.safetensors"
_MORE: Final = 16
"""Directions looked at beyond the rank, and _ROUNDS of the power iteration: the losses' spectrum is nearly flat (Halko,
Martinsson, Tropp 2011). A whole decomposition takes minutes for an 8B model and gains next to nothing."""
_ROUNDS: Final = 4


def is_wanted(recipe: Recipe) -> bool:
    return recipe.lora.method == "lora" and recipe.lora.initialization == "loftq"


def begin(model: Any, base: Path, recipe: Recipe, run: RunFolder) -> None:
    """Gives the adapter of `model` its start where the recipe asks for one: that of the run, made the first time.

    `base` is the folder with the weights in 16 bit. Raises FinetuiError (loftq-names).
    """
    if not is_wanted(recipe):
        return
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    if run.start.is_file():
        set_peft_model_state_dict(model, load_file(str(run.start)))
        return
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.no_grad():
        repair(model, base, recipe.training.seed)
    start = {
        name: part.detach().cpu().contiguous() for name, part in get_peft_model_state_dict(model).items()
    }
    partial = run.start.with_suffix(".part")
    save_file(start, str(partial), metadata={"format": "pt"})
    partial.rename(run.start)


def repair(model: Any, base: Path, seed: int) -> None:
    """Sets each adapter over a packed weight to what packing lost of it. Raises FinetuiError (loftq-names).

    Random numbers are drawn anew from `seed` for each weight, so that their order does not matter.
    """
    from peft.utils.integrations import dequantize_module_weight

    packed = {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
        and "default" in module.lora_A
        and type(module.get_base_layer().weight).__name__ == "Params4bit"
    }
    for weight in base_weights.stored(base):
        module = packed.pop(weight.name.removesuffix(".weight"), None)
        if module is None:
            continue
        held = dequantize_module_weight(module.get_base_layer())
        lost = base_weights.read(weight).to(held.device, torch.float32) - held.float()
        torch.manual_seed(seed)
        down, up = parts(lost, module.r["default"], module.scaling["default"])
        module.lora_A["default"].weight[: len(down)] = (
            down  # what a rank beyond the weight's own leaves over starts as ever
        )
        module.lora_B["default"].weight[:, : len(down)] = up
    if packed:
        raise FinetuiError(
            "LoftQ cannot find the model's weights.",
            f"{len(packed)} of its adapted layers, such as {next(iter(packed))}, go by other names in its files.",
            "Set Initialization to default.",
            code="loftq-names",
        )


def parts(lost: torch.Tensor, rank: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A (rank × inputs) and B (outputs × rank) with scale · B·A nearest to `lost` (outputs × inputs, 32 bit); of a lower
    rank where `lost` has no more."""
    left, sizes, right = torch.svd_lowrank(lost, q=min(rank + _MORE, *lost.shape), niter=_ROUNDS)
    roots = (sizes[:rank] / scale).sqrt()
    return roots[:, None] * right[:, :rank].T, left[:, :rank] * roots


def leave(adapter: Path, recipe: Recipe, run: RunFolder) -> None:
    """Turns the adapter that was saved to the folder `adapter` as it is trained into what it learned since its start.

    Does nothing where the recipe asks for no such start. Tables that were trained whole stay as they are.
    """
    if not is_wanted(recipe) or not run.start.is_file():
        return
    settings = json.loads((adapter / "adapter_config.json").read_bytes())
    # Twice the rank and alpha leave the scale alone; with rsLoRA, alpha ÷ √rank, they raise it by √2.
    factor = 1 / math.sqrt(2) if settings.get("use_rslora") else 1.0
    start, now = load_file(str(run.start)), load_file(str(adapter / _WEIGHTS))
    for name, part in now.items():
        if ".lora_A." in name:
            now[name] = torch.cat([part, start[name].to(part.dtype)], dim=0).contiguous()
        elif ".lora_B." in name:
            now[name] = (factor * torch.cat([part, -start[name].to(part.dtype)], dim=1)).contiguous()
    save_file(now, str(adapter / _WEIGHTS), metadata={"format": "pt"})
    settings |= {"r": 2 * settings["r"], "lora_alpha": 2 * settings["lora_alpha"]}
    atomic.write_text(adapter / "adapter_config.json", json.dumps(settings, indent=2))
