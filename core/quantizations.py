"""The quantizations of llama.cpp that need nothing but the model: what each is for, what it costs, and how large it is.

Left out are those that llama.cpp makes only with an importance matrix (IQ1_*, IQ2_*, IQ3_XXS, IQ3_XS, Q2_K_S), those for
models that were trained for them (TQ1_0, TQ2_0, Q1_0, Q2_0) and the one that is Q8_0 for all but mixtures of experts
(MXFP4_MOE).

Facts, not taken on trust but looked up: bits per weight of Llama-3.1-8B from llama.cpp's tools/quantize/README.md; loss of
quality of Llama-3-8B on Wikitext-2 from its tools/perplexity/README.md; which tensor gets which type from llama-quant.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .recipe_lora import FUSED_MODULES

LOSS_SOURCE: Final = "llama.cpp's measurements, Llama-3-8B on Wikitext-2"


@dataclass(frozen=True)
class Quantization:
    """One type of llama.cpp. `number` is its `enum llama_ftype`; `bits` are those for a weight of Llama-3.1-8B."""

    name: str
    number: int
    bits: float
    summary: str
    converter: str = ""
    """The outtype with which the converter writes it by itself; the others are quantized from F16."""
    common: bool = False
    perplexity: float | None = None
    """By how much the perplexity rose, as a share of that of F16 (6.2332); None where it was not measured."""
    divergence: float | None = None
    """Mean Kullback–Leibler divergence of the next token's probabilities from those of F16."""
    matrix: bool = False
    """The loss was measured with an importance matrix, which finetui does not make: expect a little more."""

    @property
    def loss(self) -> str:
        """The expected loss of quality, in words and numbers."""
        if self.perplexity is None:
            return (
                "exact: nothing is lost" if self.name != "BF16" else "nothing that the training had is lost"
            )
        share = self.perplexity
        word = next(
            (
                word
                for most, word in (
                    (0.001, "not measurable in practice"),
                    (0.005, "hardly measurable"),
                    (0.02, "very small"),
                    (0.05, "small"),
                    (0.1, "noticeable"),
                    (0.2, "clear"),
                )
                if share <= most
            ),
            "severe",
        )
        more = ", with an importance matrix" if self.matrix else ""
        return f"{word}: perplexity +{share * 100:.2g} %, divergence {self.divergence:.4f}{more}"


def _ppl(delta: float) -> float:
    return delta / 6.2332


QUANTIZATIONS: Final[dict[str, Quantization]] = {
    q.name: q
    for q in (
        Quantization("F16", 1, 16.0, "one exact file for llama.cpp, Ollama and LM Studio", "f16", True),
        Quantization(
            "Q8_0", 7, 8.5, "half of F16, and as good as exact", "q8_0", True, _ppl(0.00265), 0.001355
        ),
        Quantization(
            "Q6_K", 18, 6.56, "a little smaller than Q8_0, hardly worse", "", True, _ppl(0.021748), 0.005452
        ),
        Quantization("Q5_K_M", 17, 5.70, "a third of F16; a small loss", "", True, _ppl(0.056974), 0.010762),
        Quantization(
            "Q4_K_M",
            15,
            4.89,
            "under a third of F16; the usual choice from 3 B weights up",
            "",
            True,
            _ppl(0.175482),
            0.031273,
        ),
        Quantization(
            "Q3_K_M",
            12,
            4.0,
            "a quarter of F16; noticeably worse, above all in small models",
            "",
            True,
            _ppl(0.656864),
            0.101913,
        ),
        Quantization("F32", 0, 32.0, "twice F16; only to convert further", "f32"),
        Quantization(
            "BF16", 32, 16.0, "F16's size with the range of the training; some old GPUs lack it", "bf16"
        ),
        Quantization("Q5_1", 9, 6.0, "an old form; take Q5_K_M", "", False, _ppl(0.106223), 0.018045),
        Quantization("Q5_K_S", 16, 5.57, "a little less than Q5_K_M", "", False, _ppl(0.104964), 0.016595),
        Quantization("Q5_0", 8, 5.5, "an old form; take Q5_K_S", "", False, _ppl(0.131591), 0.022239),
        Quantization(
            "Q4_1", 3, 5.1, "an old form; Q4_K_M is smaller and better", "", False, _ppl(0.451103), 0.071683
        ),
        Quantization(
            "IQ4_NL",
            25,
            4.68,
            "about Q4_K_S, faster on some ARM processors",
            "",
            False,
            _ppl(0.223959),
            0.035742,
            True,
        ),
        Quantization("Q4_K_S", 14, 4.67, "a little less than Q4_K_M", "", False, _ppl(0.268895), 0.043136),
        Quantization(
            "Q4_0", 2, 4.6, "an old form, the fastest on phones", "", False, _ppl(0.468514), 0.07194
        ),
        Quantization(
            "IQ4_XS",
            30,
            4.46,
            "a tenth less than Q4_K_M, about as good; slower on a CPU",
            "",
            False,
            _ppl(0.228071),
            0.036334,
            True,
        ),
        Quantization("Q3_K_L", 13, 4.3, "between Q3_K_M and Q4_K_S", "", False, _ppl(0.556242), 0.087176),
        Quantization(
            "IQ3_M",
            27,
            3.76,
            "about Q3_K_M, smaller; slower on a CPU",
            "",
            False,
            _ppl(0.666694),
            0.102534,
            True,
        ),
        Quantization(
            "IQ3_S", 26, 3.66, "a little less than IQ3_M", "", False, _ppl(0.733867), 0.111278, True
        ),
        Quantization(
            "Q3_K_S", 11, 3.64, "worse than IQ3_S at the same size", "", False, _ppl(1.632152), 0.228217
        ),
        Quantization(
            "Q2_K",
            10,
            3.16,
            "a fifth of F16; only for models far too large otherwise",
            "",
            False,
            _ppl(3.519934),
            0.445132,
        ),
    )
}

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
    "Q2_K": 2.625,
}
# What llama.cpp takes instead where a row is no multiple of 256 weights.
_NARROW: Final = {
    "Q6_K": "Q8_0",
    "Q5_K": "Q5_1",
    "Q4_K": "Q5_0",
    "Q3_K": "Q4_0",
    "Q2_K": "Q4_0",
    "IQ4_XS": "IQ4_NL",
    "IQ3_S": "IQ4_NL",
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
}

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
        kind = "Q6_K" if inputs % 256 == 0 else "Q8_0"
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
    """What llama.cpp's mix `name` takes for one tensor, for dense models without an importance matrix."""
    layers, grouped = shape.layers, shape.query >= 4 * shape.key_value
    early = layer < layers // 8
    if part == "v_proj":
        if name in ("Q5_K_M", "Q4_K_M") and _better(layer, layers):
            return "Q6_K"
        choice = {
            "Q2_K": "Q4_K" if grouped else "Q3_K",
            "IQ3_S": "Q4_K" if grouped else base,
            "IQ3_M": "Q4_K",
            "Q3_K_M": "Q5_K" if layer < 2 else "Q4_K",
            "Q3_K_L": "Q5_K",
            "IQ4_NL": "Q5_K" if grouped else base,
            "IQ4_XS": "Q5_K" if grouped else base,
            "Q4_K_S": "Q5_K" if layer < 4 else base,
        }
        return choice.get(name, base)
    if part == "down_proj":
        if name in ("Q5_K_M", "Q4_K_M") and _better(layer, layers):
            return "Q6_K"
        choice = {
            "Q2_K": "Q3_K",
            "Q3_K_M": "Q5_K" if layer < layers // 16 else "Q4_K",
            "Q3_K_L": "Q5_K",
            "IQ3_M": "Q4_K" if early else base,
            "IQ4_NL": "Q5_K" if early else base,
            "IQ4_XS": "Q5_K" if early else base,
            "Q4_K_S": "Q5_K" if early else base,
        }
        return choice.get(name, base)
    if part == "o_proj":
        return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}.get(name, base)
    return base
