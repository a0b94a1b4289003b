"""A tiny model as bitsandbytes stores one in 4 bits, and what a merge into it must come to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from bitsandbytes.functional import (  # pyright: ignore
    dequantize_4bit,
    quantize_4bit,
)
from safetensors.torch import load_file, save_file


def store(base: Path, folder: Path, nested: bool) -> dict[str, torch.Tensor]:
    """Writes `base` to `folder` in NF4, its scales quantized once more where `nested`. Returns the weights, unpacked."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = "bfloat16"
    config["quantization_config"] = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": nested,
        "bnb_4bit_compute_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    stored: dict[str, torch.Tensor] = {}
    unpacked: dict[str, torch.Tensor] = {}
    for name, weight in load_file(base / "model.safetensors").items():
        if name.endswith("proj.weight"):
            packed, state = quantize_4bit(weight.bfloat16(), quant_type="nf4", compress_statistics=nested)
            parts = state.as_dict(packed=True)
            stored |= {name: packed} | {f"{name}.{key}": value for key, value in parts.items()}
            unpacked[name] = dequantize_4bit(packed, state)
        else:
            stored[name] = unpacked[name] = weight.bfloat16()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return unpacked


def check_merged(folder: Path, adapter: Path, before: dict[str, torch.Tensor], scale: float) -> None:
    """Asserts that the model in `folder` is what the 4-bit weights stand for plus the adapter, in 16 bit, no more."""
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    merged = load_file(folder / "model.safetensors")
    assert {name: weight.shape for name, weight in merged.items()} == {n: w.shape for n, w in before.items()}
    sides = {name: side.float() for name, side in load_file(adapter / "adapter_model.safetensors").items()}
    changed = 0
    for name, weight in merged.items():
        side = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        expected = before[name].float()
        if f"{side}A.weight" in sides:
            expected = expected + scale * (sides[f"{side}B.weight"] @ sides[f"{side}A.weight"])
            changed += not torch.equal(weight, before[name])
            torch.testing.assert_close(
                weight.float(), expected, rtol=2**-7, atol=0
            )  # either neighbour in 16 bit
        else:
            assert torch.equal(weight, before[name].bfloat16()), name
    assert changed == len(sides) // 2
