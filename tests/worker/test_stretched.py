"""The wide model that stands in for large ones is worth something only where it answers as the small one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import stretched


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_it_answers_as_the_small_one(tiny_model: Path, tmp_path: Path, tied: bool, unsloth: None) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    small = tmp_path / "small"
    small.mkdir()
    config = json.loads((tiny_model / "config.json").read_bytes()) | {"tie_word_embeddings": tied}
    (small / "config.json").write_text(json.dumps(config))
    tensors = load_file(tiny_model / "model.safetensors")
    if tied:
        del tensors["lm_head.weight"]
    save_file(tensors, small / "model.safetensors", metadata={"format": "pt"})
    wide = stretched.make(small, tmp_path / "wide", 3)
    ids = torch.arange(40)[None] % config["vocab_size"]
    with torch.no_grad():
        few, many = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
            for folder in (small, wide)
        )
    assert torch.allclose(few, many, atol=1e-4)
    assert few.std() > 0.01, "and it says something"
