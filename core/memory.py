"""Predicts the memory that a recipe needs, from the model's config.json alone."""

from __future__ import annotations

from dataclasses import dataclass

from .lora import adapter_weights_of
from .memory_shape import Shape, from_facts
from .model_facts import ModelFacts
from .recipe import Recipe

GIB = 1024**3
MIB = 1024**2
CUDA_CONTEXT_BYTES = int(0.5 * GIB)
"""What the driver shows above torch's reserved memory (measured on an H100)."""
HOST_LIBRARY_BYTES = int(1.2 * GIB)
"""Resident memory of torch and Unsloth before a model is loaded (measured on a CPU)."""


@dataclass(frozen=True)
class Part:
    """One share of the memory, in bytes."""

    name: str
    bytes: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted memory by part, on the GPU or, where there is none, on the host."""

    parts: tuple[Part, ...]
    gpu_reserved_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


def chunk_rows(rows: int, shape: Shape, card_bytes: int) -> int:
    """Tokens whose logits Unsloth's fused loss computes at once (unsloth_zoo, fused_linear_rows)."""

    def power(number: float) -> int:
        return 1 << max(int(number).bit_length() - 1, 0)

    least = min(max(power(512 * 151_936 / shape.vocabulary), 512), 4096)
    wanted = min(max(power(rows * shape.hidden / shape.vocabulary), least), 4096)
    return max(1, min(wanted, rows, (2 * GIB) // (shape.vocabulary * 4)))


def estimate_shape(
    recipe: Recipe,
    shape: Shape,
    *,
    card_bytes: int,
    learned_share: float = 1.0,
    longest_tokens: float | None = None,
) -> MemoryEstimate:
    length = int(min(recipe.model.max_length, longest_tokens or recipe.model.max_length))
    tokens = recipe.training.batch_size * length
    four = recipe.model.precision == "4bit"
    weights = int(shape.embeddings * 2 + shape.vectors * 2 + shape.matrices * (0.516 if four else 2))
    adapter = adapter_weights_of(shape, recipe.lora)
    per_weight = 16 if recipe.training.optimizer == "adamw_torch" else 10.1
    h, q, k, i = shape.hidden, shape.queries, shape.keys, shape.inner
    saved = 2 * tokens * (4 * h + 2 * q + 2 * k + 2 * i)
    transient = 2 * tokens * (4 * h + 2 * i)
    if recipe.lora.gradient_checkpointing:
        activations = saved + transient + 2 * tokens * 2 * h
    else:
        activations = saved * shape.layers + transient
    rows = chunk_rows(tokens, shape, card_bytes)
    logits = int(rows * shape.vocabulary * 4 + 2 * tokens * h * 2)
    work = shape.largest_matrix * 2 * (2 if four else 0) + 100 * MIB
    parts = (
        Part("weights", weights),
        Part("adapter", int(adapter * per_weight)),
        Part("activations", int(max(activations, logits))),
        Part("workspace", int(work)),
    )
    return MemoryEstimate(parts, sum(p.bytes for p in parts))


def estimate(
    recipe: Recipe, facts: ModelFacts, *, gpu: bool, longest_tokens: float | None = None
) -> MemoryEstimate | None:
    shape = from_facts(facts)
    return None if shape is None else estimate_shape(recipe, shape, card_bytes=80 * GIB)
