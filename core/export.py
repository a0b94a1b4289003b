"""The export step: the formats, their sizes, and what to do with each next. No torch."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .model import ModelFacts
from .recipe import ExportFormat, LoraSection


@dataclass(frozen=True)
class FormatInfo:
    """One export format for people. `needs_llama_cpp`: made with llama.cpp's quantizer."""

    format: ExportFormat
    title: str
    summary: str
    bits_per_weight: float | None
    """Bits for each of the model's weights, as llama.cpp reports them for Llama-3.1-8B; None for the adapter."""
    needs_llama_cpp: bool = False
    quantization: str = ""
    """llama.cpp's name, such as `Q4_K_M`; empty for what is no GGUF."""


FORMATS: Final[dict[ExportFormat, FormatInfo]] = {
    info.format: info
    for info in (
        FormatInfo(
            "adapter",
            "Adapter (LoRA)",
            "only what was learned; small, used together with the base model",
            None,
        ),
        FormatInfo("merged", "Merged, 16-bit", "a whole model in a folder, for Transformers and vLLM", 16.0),
        FormatInfo(
            "gguf_f16",
            "GGUF F16",
            "one exact file for llama.cpp, Ollama and LM Studio",
            16.0,
            quantization="F16",
        ),
        FormatInfo("gguf_q8_0", "GGUF Q8_0", "half of F16, and as good as exact", 8.5, quantization="Q8_0"),
        FormatInfo(
            "gguf_q6_k",
            "GGUF Q6_K",
            "a little smaller than Q8_0, hardly worse",
            6.56,
            True,
            quantization="Q6_K",
        ),
        FormatInfo(
            "gguf_q5_k_m", "GGUF Q5_K_M", "a third of F16; a small loss", 5.70, True, quantization="Q5_K_M"
        ),
        FormatInfo(
            "gguf_q4_k_m",
            "GGUF Q4_K_M",
            "under a third of F16; the usual choice from 3 B weights up",
            4.89,
            True,
            quantization="Q4_K_M",
        ),
        FormatInfo(
            "gguf_q3_k_m",
            "GGUF Q3_K_M",
            "a quarter of F16; noticeably worse, above all in small models",
            4.0,
            True,
            quantization="Q3_K_M",
        ),
    )
}

# Bits per weight of llama.cpp's block formats (ggml-common.h: block bytes × 8 ÷ weights in a block).
_BITS: Final = {
    "F16": 16.0,
    "Q8_0": 8.5,
    "Q6_K": 6.5625,
    "Q5_K": 5.5,
    "Q4_K": 4.5,
    "Q3_K": 3.4375,
    "Q5_1": 6.0,
    "Q5_0": 5.5,
    "IQ4_NL": 4.5,
}
# What llama.cpp takes instead where a row is no multiple of 256 weights.
_NARROW: Final = {"Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0", "Q3_K": "IQ4_NL"}

_GGUF_BYTES_PER_TOKEN = 50
_TOKENIZER_BYTES_PER_TOKEN = 75


@dataclass(frozen=True)
class _Shape:
    hidden: int
    intermediate: int
    layers: int
    query: int
    key_value: int
    vocabulary: int
    tied: bool

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


def _shape(facts: ModelFacts) -> _Shape | None:
    hidden, heads = facts.hidden_size, facts.heads
    if not (hidden and heads and facts.intermediate_size and facts.layers and facts.vocabulary):
        return None
    head_size = facts.head_size or hidden // heads
    return _Shape(
        hidden=hidden,
        intermediate=facts.intermediate_size,
        layers=facts.layers,
        query=heads * head_size,
        key_value=(facts.kv_heads or heads) * head_size,
        vocabulary=facts.vocabulary,
        tied=bool(facts.tied_embeddings),
    )


def _better(layer: int, layers: int) -> bool:
    """The layers to which the `_M` mixes of llama.cpp give more bits: the outer eighths, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _tensor_type(quantization: str, part: str, layer: int, layers: int) -> str:
    """What llama.cpp's mix `quantization` takes for one tensor (llama-quant.cpp), for dense models."""
    base = {"Q6_K": "Q6_K", "Q5_K_M": "Q5_K", "Q4_K_M": "Q4_K", "Q3_K_M": "Q3_K"}.get(quantization)
    if base is None:
        return quantization
    if part == "output":
        return "Q6_K"
    better = _better(layer, layers)
    if quantization in ("Q5_K_M", "Q4_K_M") and part in ("v_proj", "down_proj"):
        return "Q6_K" if better else base
    if quantization == "Q3_K_M":
        if part == "v_proj":
            return "Q5_K" if layer < 2 else "Q4_K"
        if part == "o_proj":
            return "Q4_K"
        if part == "down_proj":
            return "Q5_K" if layer < layers // 16 else "Q4_K"
    return base


def _gguf_bytes(quantization: str, shape: _Shape) -> int:
    def size(part: str, inputs: int, outputs: int, layer: int = 0) -> float:
        kind = _tensor_type(quantization, part, layer, shape.layers)
        if inputs % 256:
            kind = _NARROW.get(kind, kind)
        return inputs * outputs * _BITS[kind] / 8

    total = size("output" if shape.tied else "embedding", shape.hidden, shape.vocabulary)
    if not shape.tied:
        total += size("output", shape.hidden, shape.vocabulary)
    for layer in range(shape.layers):
        total += 2 * shape.hidden * 4  # the norms stay in 32 bit
        total += sum(size(part, i, o, layer) for part, (i, o) in shape.projections().items())
    return round(total) + _GGUF_BYTES_PER_TOKEN * shape.vocabulary


def estimated_bytes(format: ExportFormat, facts: ModelFacts, lora: LoraSection) -> int | None:
    """About how large the export will be, in bytes; None where the model's shape is not known.

    Within a few percent for dense models of Llama's kind. The adapter is counted in 32 bit, as PEFT saves it.
    """
    shape = _shape(facts)
    info = FORMATS[format]
    if format == "adapter":
        if shape is None:
            return None
        if lora.method == "full":
            return None
        tables = shape.hidden * shape.vocabulary * len(lora.modules_to_save)
        sides = sum(sum(shape.projections()[target]) for target in lora.target_modules)
        if lora.dora:  # and the length of each row
            rows = sum(shape.projections()[target][1] for target in lora.target_modules)
            tables += rows * shape.layers
        return 4 * (lora.rank * sides * shape.layers + tables) + _TOKENIZER_BYTES_PER_TOKEN * shape.vocabulary
    if info.quantization and shape is not None:
        guess = _gguf_bytes(info.quantization, shape)
        if facts.parameters:  # experts, biases and other parts that the shape alone does not tell
            dense = _gguf_bytes("F16", shape) - _GGUF_BYTES_PER_TOKEN * shape.vocabulary
            guess = round(guess * max(1.0, facts.parameters * 2 / dense))
        return guess
    if facts.parameters is None or info.bits_per_weight is None:
        return None
    tokenizer = _TOKENIZER_BYTES_PER_TOKEN * (facts.vocabulary or 0)
    return round(facts.parameters * info.bits_per_weight / 8) + tokenizer


@dataclass(frozen=True)
class NextCommand:
    """One way to use an export: `title` for people, `command` for a POSIX shell."""

    title: str
    command: str


ASK_SCRIPT = "ask.py"
"""Beside an adapter or a merged model: a script that asks it a question."""


def next_commands(
    format: ExportFormat, path: Path, name: str, base: str, system_prompt: str | None = None
) -> tuple[NextCommand, ...]:
    """The ways to use the export at `path`, the best first, each an exact, quoted shell command.

    `path` is the GGUF file, or the folder of the other formats; `base` the base model's folder or hub id. A
    `system_prompt` that was trained is given along where the command can carry one.
    """
    quoted = shlex.quote(str(path))
    ask = NextCommand("Ask it", shlex.join([sys.executable, str(path / ASK_SCRIPT), "Hello!"]))
    if format == "adapter":
        vllm = ["vllm", "serve", base, "--enable-lora", "--lora-modules", f"{name}={path}"]
        return (ask, NextCommand("Serve it with vLLM", shlex.join(vllm)))
    if format == "merged":
        vllm = ["vllm", "serve", str(path), "--served-model-name", name]
        return (ask, NextCommand("Serve it with vLLM", shlex.join(vllm)))
    modelfile = shlex.quote(str(path.parent / "Modelfile"))
    model = shlex.quote(name.lower())
    system = f" -sys {shlex.quote(system_prompt)}" if system_prompt else ""
    return (
        NextCommand("Chat in Ollama", f"ollama create {model} -f {modelfile} && ollama run {model}"),
        NextCommand("Chat in llama.cpp", f"llama-cli -m {quoted} -cnv{system}"),
    )


def next_command(
    format: ExportFormat, path: Path, name: str, base: str, system_prompt: str | None = None
) -> str:
    """The exact shell command that uses the export at `path` next: the first of `next_commands`."""
    return next_commands(format, path, name, base, system_prompt)[0].command
