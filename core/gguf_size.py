"""How large a GGUF of a quantization gets, tensor by tensor, from the model's shape alone.

Which tensor gets which type is from llama.cpp's llama-quant.cpp, how many bits that takes from its ggml-common.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .recipe_lora import FUSED_MODULES

# Bits per weight of llama.cpp's block formats (ggml-common.h: block bytes × 8 ÷ weights in a block).
_BITS: Final = {
    "F32": 32.0,
    "F16": 16.0,
    "BF16": 16.0,
    "Q8_0": 8.5,
    "Q6_K": 6.5625,
    "Q5_1": 6.0,
    "Q5_0": 5.5,
    "Q5_K": 5.5,
    "Q4_1": 5.0,
    "Q4_0": 4.5,
    "Q4_K": 4.5,
    "IQ4_NL": 4.5,
    "IQ4_XS": 4.25,
    "Q3_K": 3.4375,
    "IQ3_S": 3.4375,
    "IQ3_XXS": 3.0625,
    "Q2_K": 2.625,
    "IQ2_S": 2.5625,
    "IQ2_XS": 2.3125,
    "IQ2_XXS": 2.0625,
    "IQ1_M": 1.75,
    "IQ1_S": 1.5625,
}
# What llama.cpp takes instead where a row is no multiple of 256 weights.
_NARROW: Final = {
    "Q6_K": "Q8_0",
    "Q5_K": "Q5_1",
    "Q4_K": "Q5_0",
    "Q3_K": "Q4_0",
    "Q2_K": "Q4_0",
    "IQ4_XS": "IQ4_NL",
    **dict.fromkeys(
        ("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
        "IQ4_NL",
    ),
}
_BASE: Final = {
    "Q5_K_M": "Q5_K",
    "Q5_K_S": "Q5_K",
    "Q4_K_M": "Q4_K",
    "Q4_K_S": "Q4_K",
    "Q3_K_L": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_S": "Q3_K",
    "IQ3_M": "IQ3_S",
    "IQ3_XS": "IQ3_S",
    "Q2_K_S": "Q2_K",
    "IQ2_M": "IQ2_S",
    "IQ2_S": "IQ2_XS",
}

_LOW: Final = ("IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")
"""The mixes that llama.cpp makes up in a way of their own."""

_GGUF_BYTES_PER_TOKEN = 50


@dataclass(frozen=True)
class Shape:
    """The sizes of a dense model of Llama's kind."""

    hidden: int
    intermediate: int
    layers: int
    query: int
    key_value: int
    vocabulary: int
    tied: bool

    def projection(self, name: str) -> tuple[int, int]:
        """(inputs, outputs) of one matrix, which may stand for several."""
        parts = [self.projections()[part] for part in FUSED_MODULES.get(name, (name,))]
        return parts[0][0], sum(outputs for _, outputs in parts)

    def projections(self) -> dict[str, tuple[int, int]]:
        """For each projection of a layer, (inputs, outputs)."""
        return {
            "q_proj": (self.hidden, self.query),
            "k_proj": (self.hidden, self.key_value),
            "v_proj": (self.hidden, self.key_value),
            "o_proj": (self.query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }


def gguf_bytes(name: str, shape: Shape) -> int:
    """About how large a GGUF of the quantization `name` is, in bytes."""
    total = _bytes(name, shape, "output" if shape.tied else "embedding", shape.hidden, shape.vocabulary)
    if not shape.tied:
        total += _bytes(name, shape, "output", shape.hidden, shape.vocabulary)
    for layer in range(shape.layers):
        total += 2 * shape.hidden * 4  # the norms stay in 32 bit
        for part, (inputs, outputs) in shape.projections().items():
            total += _bytes(name, shape, part, inputs, outputs, layer)
    return round(total) + _GGUF_BYTES_PER_TOKEN * shape.vocabulary


def _bytes(name: str, shape: Shape, part: str, inputs: int, outputs: int, layer: int = 0) -> float:
    base = _BASE.get(name, name)
    if part == "output" and base in _NARROW:
        low = name in _LOW or name == "IQ3_XXS"
        kind = "Q8_0" if inputs % 256 else "Q5_K" if low else "Q6_K"
    elif part == "output" and base not in ("F32", "F16", "BF16", "Q8_0"):
        kind = "Q6_K"
    else:
        kind = _tensor_type(name, base, part, layer, shape)
    if inputs % 256:
        kind = _NARROW.get(kind, kind)
    return inputs * outputs * _BITS[kind] / 8


def _better(layer: int, layers: int) -> bool:
    """The layers to which the `_M` mixes give more bits: the outer eighths, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _tensor_type(name: str, base: str, part: str, layer: int, shape: Shape) -> str:
    """What llama.cpp's mix `name` takes for one tensor, for dense models. An importance matrix is taken to be there only where
    there must be one."""
    layers, grouped = shape.layers, shape.query >= 4 * shape.key_value
    early = layer < layers // 8
    if name in _LOW:
        return _low_type(name, base, part, early, grouped)
    if part == "embedding":
        return "IQ3_S" if name == "IQ3_XXS" else base
    if part in ("q_proj", "k_proj"):
        return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(name, base)
    if part in ("gate_proj", "up_proj"):
        return "IQ3_XXS" if name == "IQ3_XS" and layers // 8 <= layer < 7 * layers // 8 else base
    if part == "v_proj":
        if name in ("Q5_K_M", "Q4_K_M") and _better(layer, layers):
            return "Q6_K"
        choice = {
            "Q2_K": "Q4_K" if grouped else "Q3_K",
            "Q3_K_M": "Q5_K" if layer < 2 else "Q4_K",
            "Q3_K_L": "Q5_K",
            "Q4_K_S": "Q5_K" if layer < 4 else base,
            "IQ3_M": "Q4_K",
            **dict.fromkeys(("Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S"), "Q4_K" if grouped else base),
            **dict.fromkeys(("IQ4_NL", "IQ4_XS"), "Q5_K" if grouped else base),
        }
        return choice.get(name, base)
    if part == "down_proj":
        if name in ("Q5_K_M", "Q4_K_M") and _better(layer, layers):
            return "Q6_K"
        choice = {
            "Q2_K": "Q3_K",
            "Q3_K_M": "Q5_K" if layer < layers // 16 else "Q4_K",
            "Q3_K_L": "Q5_K",
            **dict.fromkeys(("Q2_K_S", "IQ3_M"), "Q4_K" if early else base),
            **dict.fromkeys(("IQ4_NL", "IQ4_XS", "Q4_K_S"), "Q5_K" if early else base),
        }
        return choice.get(name, base)
    if part == "o_proj":
        choice = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K", "IQ3_XXS": "IQ3_S"}
        return choice.get(name, base)
    return base


def _low_type(name: str, base: str, part: str, early: bool, grouped: bool) -> str:
    """The same for the mixes under three bits."""
    better = "IQ3_S" if name in ("IQ2_S", "IQ2_M") else "Q2_K"
    if part == "embedding" or (part == "down_proj" and early):
        return better
    if part == "v_proj":
        return "Q4_K" if grouped else better
    if part == "o_proj":
        return {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}.get(name, base)
    return base
