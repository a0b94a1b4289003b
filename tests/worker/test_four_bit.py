"""The 4-bit form without bitsandbytes: which weights would be packed, how the files are laid out, and what is refused."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from finetui.core.errors import FinetuiError
from finetui.core.runs.events import Event
from finetui.core.worker import base_weights, export, four_bit, shards
from finetui.core.worker.shards import Planned

from . import tiny
from .exporting import make_run

PROJECTIONS = tiny.LAYERS * 7


def refused(base: Path) -> FinetuiError:
    with pytest.raises(FinetuiError) as caught:
        four_bit.layout(base, {weight.name: weight for weight in base_weights.stored(base)})
    return caught.value


def test_projections_are_packed_and_the_output_layer_is_not(tiny_model: Path) -> None:
    packed, whole = four_bit.layout(tiny_model, {w.name: w for w in base_weights.stored(tiny_model)})
    assert len(packed) == PROJECTIONS and all(name.endswith("proj.weight") for name in packed)
    assert whole == ["lm_head"]


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "qwen3_moe", hidden_size=64, intermediate_size=128, moe_intermediate_size=64, num_experts=8,
        num_experts_per_tok=2, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=64,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    error = refused(tmp_path)
    assert error.code == "export-4bit-model" and "mixture of experts" in error.why


def test_a_model_that_transformers_does_not_know_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "of_my_own"}))
    assert refused(tmp_path).code == "export-4bit-model"


def test_without_bitsandbytes_nothing_is_made(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [place for place in sys.path if not (Path(place) / "bitsandbytes").exists()]
    monkeypatch.setattr(sys, "path", places)
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    tuned = make_run(tmp_path / "run", tiny_model)
    events: list[Event] = []
    with pytest.raises(FinetuiError) as caught:
        export.export(None, None, tuned.recipe, tuned.run, ["merged_4bit"], events.append)
    assert caught.value.code == "export-4bit"
    assert list(tuned.run.exports.iterdir()) == []


def test_tensors_that_are_made_together_stay_together_and_in_their_places(tmp_path: Path) -> None:
    """Wide types stand before narrow ones within a group of odd lengths, and the group ends where any type may begin."""
    together = [
        Planned("a.scale", torch.float32, (3,)),
        Planned("a", torch.uint8, (5, 1)),
        Planned("a.state", torch.uint8, (7,)),
    ]
    alone = [[Planned("b", torch.bfloat16, (3,))], [Planned("c", torch.int64, (2,))]]
    groups = [alone[0], together, alone[1]]

    def values(group: shards.Group) -> list[torch.Tensor]:
        return [torch.arange(math.prod(one.shape), dtype=one.dtype).view(one.shape) for one in group]

    shares: list[float] = []
    shards.write_all(tmp_path, groups, 10**6, lambda group: iter(values(group)), shares.append)
    found = load_file(tmp_path / "model.safetensors")
    for group in groups:
        for planned, expected in zip(group, values(group), strict=True):
            assert torch.equal(found[planned.name], expected)
    assert shares == sorted(shares) and shares[-1] == 1.0

    shards.write_all(tmp_path, groups, 25, lambda group: iter(values(group)), shares.append)
    index = json.loads((tmp_path / shards.INDEX).read_text())["weight_map"]
    assert len({index[one.name] for one in together}) == 1 and len(set(index.values())) == 3
