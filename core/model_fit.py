"""Whether a model can be trained in the memory that is free now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from . import memory
from .model_facts import ModelFacts
from .recipe import Recipe
from .system import Machine

Level = Literal["fits", "tight", "no"]

TIGHT_SHARE = 0.85

_SHAPES: tuple[tuple[float, tuple[int, int, int, int, int, int, bool]], ...] = (
    (0.2e9, (576, 1536, 30, 9, 3, 49_152, True)),
    (0.45e9, (960, 2560, 32, 15, 5, 49_152, True)),
    (1.0e9, (1024, 3072, 28, 16, 8, 151_936, True)),
    (2.5e9, (2048, 6144, 28, 16, 8, 151_936, True)),
    (5.5e9, (2560, 9728, 36, 32, 8, 151_936, True)),
    (10e9, (4096, 14_336, 32, 32, 8, 128_256, False)),
    (20e9, (5120, 17_408, 40, 40, 8, 151_936, False)),
    (45e9, (5120, 25_600, 64, 64, 8, 151_936, False)),
    (float("inf"), (8192, 28_672, 80, 64, 8, 128_256, False)),
)
"""Up to so many parameters: hidden and inner size, layers, heads, key-value heads, vocabulary, tied embeddings."""


@dataclass(frozen=True)
class Fit:
    """A verdict and its words, such as `fits: 6.1 of 22.4 GiB free`. `bytes` is what training would take."""

    level: Level
    words: str
    bytes: int | None = None


def fit(
    model: int | ModelFacts | None,
    precision: Literal["16bit", "4bit"],
    machine: Machine,
    recipe: Recipe | None = None,
) -> Fit | None:
    """Whether training `model` (its facts, or only its number of parameters) in `precision` fits in the free memory of
    `machine`, its GPU's or else the host's. `recipe` gives the other settings, the defaults without one. None where the
    size is not known.

    Tight is more than 85 % of what is free: estimates err, and others use memory too.
    """
    gpu = machine.has_gpu
    if precision == "4bit" and not gpu:
        return Fit("no", "needs a GPU")
    facts = stand_in(model) if isinstance(model, int) else model
    if facts is None:
        return None
    if precision == "16bit" and facts.is_4bit:
        return Fit("no", "is stored in 4-bit")
    asked = recipe or Recipe()
    asked = asked.model_copy(update={"model": asked.model.model_copy(update={"precision": precision})})
    found = memory.estimate(asked, facts, gpu=gpu)
    if found is None:
        if not facts.parameters:
            return None
        found = memory.estimate(asked, stand_in(facts.parameters), gpu=gpu)
        if found is None:
            return None
    needed, free = found.total_bytes, machine.free_bytes
    figures = f"{_gib(needed)} of {_gib(free)} GiB free"
    if needed <= TIGHT_SHARE * free:
        return Fit("fits", f"fits: {figures}", needed)
    if needed <= free:
        return Fit("tight", f"tight: {figures}", needed)
    return Fit("no", f"no: needs {_gib(needed)} GiB, {_gib(free)} free", needed)


def _gib(count: int) -> str:
    value = count / 1024**3
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def stand_in(parameters: int) -> ModelFacts:
    """Facts of a model of which only the size is known, with the usual shape of that size (Qwen3's and Llama 3's)."""
    hidden, inner, layers, heads, kv_heads, vocabulary, tied = next(
        (shape for limit, shape in _SHAPES if parameters <= limit), _SHAPES[-1][1]
    )
    return ModelFacts(
        source="",
        kind="hub",
        title="",
        architecture="LlamaForCausalLM",
        parameters=parameters,
        hidden_size=hidden,
        intermediate_size=inner,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=128 if hidden >= 1024 else 64,
        vocabulary=vocabulary,
        context_length=32_768,
        tied_embeddings=tied,
        dtype="bfloat16",
        model_type="llama",
    )
