"""An adapter that starts at what 4 bit lost: how near it comes, and that what leaves holds only what was learned since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from finetui.core import model_adapter
from finetui.core.recipe import Recipe
from finetui.core.runs import checkpoints
from finetui.core.worker import adapter, loftq, merge

from .exporting import Tuned, make_run


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_start_is_nearly_the_best_of_its_rank_at_any_scale(scale: float) -> None:
    torch.manual_seed(0)
    lost = torch.randn(96, 160) @ torch.diag(torch.linspace(2, 0.5, 160))
    down, up = loftq.parts(lost, 8, scale)
    assert down.shape == (8, 160) and up.shape == (96, 8)
    left = (lost - scale * up @ down).norm()
    best = torch.linalg.svdvals(lost)[8:].norm()
    assert best <= left < 1.002 * best < 0.95 * lost.norm()


def asked(of: Recipe, **lora: Any) -> Recipe:
    changed = of.lora.model_copy(update={"initialization": "loftq", **lora})
    return of.model_copy(update={"lora": changed, "model": of.model.model_copy(update={"precision": "4bit"})})


def begun(tuned: Tuned) -> dict[str, torch.Tensor]:
    """A start for the run: its adapter's parts, as another random adapter has them."""
    torch.manual_seed(3)
    parts = load_file(str(tuned.run.adapter / adapter.WEIGHTS))
    start = {name: 0.1 * torch.randn_like(part) for name, part in parts.items()}
    save_file(start, str(tuned.run.start))
    return start


@pytest.mark.parametrize("rslora", [False, True])
def test_what_leaves_is_what_was_learned_since(tiny_model: Path, tmp_path: Path, rslora: bool) -> None:
    tuned = make_run(tmp_path / "run", tiny_model, rslora=rslora)
    start, recipe = begun(tuned), asked(tuned.recipe)
    now = load_file(str(tuned.run.adapter / adapter.WEIGHTS))
    checkpoint = tuned.run.checkpoints / "checkpoint-3"
    checkpoint.parent.mkdir()
    tuned.run.adapter.rename(checkpoint)
    checkpoints.seal(checkpoint)
    tuned.run.adapter.mkdir()
    adapter.copy(checkpoint, tuned.run.adapter, recipe, (".json", ".safetensors"))
    loftq.leave(tuned.run.adapter, recipe, tuned.run)
    facts = model_adapter.read_adapter(tuned.run.adapter)
    assert (facts.rank, facts.alpha) == (recipe.lora.adapter_rank, 16) == (8, 16)
    merge.merge(tiny_model, tuned.run.adapter, tmp_path / "merged")
    merged = load_file(str(tmp_path / "merged" / "model.safetensors"))
    base = load_file(str(tiny_model / "model.safetensors"))
    scale = 8 / 4**0.5 if rslora else 8 / 4
    changed = 0
    for name, weight in base.items():
        side = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        expected = weight.float()
        if f"{side}A.weight" in now:
            a, b = f"{side}A.weight", f"{side}B.weight"
            expected = expected + scale * (now[b] @ now[a] - start[b] @ start[a])
            changed += 1
        assert torch.allclose(merged[name].float(), expected, rtol=2e-2, atol=2e-3), name
    assert changed == len(now) // 2
    whole = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    opened: Any = PeftModel.from_pretrained(whole, str(tuned.run.adapter))
    layer = opened.base_model.model.model.layers[0].mlp.up_proj
    a, b = (f"base_model.model.model.layers.0.mlp.up_proj.lora_{s}.weight" for s in "AB")
    wanted = scale * (now[b] @ now[a] - start[b] @ start[a])
    assert torch.allclose(layer.get_delta_weight("default"), wanted, atol=1e-5)


def test_a_run_that_goes_on_has_the_start_that_it_had(tiny_model: Path, tmp_path: Path) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)
    start = begun(tuned)
    whole = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(whole, str(tuned.run.adapter), is_trainable=True)
    loftq.begin(model, tiny_model, tuned.recipe, tuned.run)  # not asked for
    assert not torch.equal(next(iter(get_peft_model_state_dict(model).values())), next(iter(start.values())))
    loftq.begin(model, tiny_model, asked(tuned.recipe), tuned.run)
    found = get_peft_model_state_dict(model)
    assert set(found) == set(start) and all(torch.equal(found[name], start[name]) for name in start)
    saved = json.loads((tuned.run.adapter / "adapter_config.json").read_bytes())
    loftq.leave(tuned.run.adapter, tuned.recipe, tuned.run)  # an ordinary run's adapter stays as it is
    assert json.loads((tuned.run.adapter / "adapter_config.json").read_bytes()) == saved
