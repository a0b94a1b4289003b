"""Predicts the memory that a recipe needs. A simple estimate: right in size, not to the per cent."""

from __future__ import annotations

from dataclasses import dataclass

from .lora import adapter_weights
from .model import ModelFacts
from .recipe import Recipe

GIB = 1024**3
CUDA_CONTEXT_BYTES = int(0.75 * GIB)
"""What the driver shows above torch's reserved memory (measured on an H100: 0.5 GiB bare, 0.75 in a whole run)."""
HOST_LIBRARY_BYTES = int(1.2 * GIB)
"""Resident memory of torch and Unsloth before a model is loaded (measured on a CPU)."""

_WIDTH = 2
"""Bytes of a 16-bit number; Unsloth computes in bfloat16 on a CPU too."""
_LOSS_CHUNK_TOKENS = 4096


@dataclass(frozen=True)
class Part:
    """One share of the memory, in bytes."""

    name: str
    bytes: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted memory by part, on the GPU or, where there is none, on the host."""

    parts: tuple[Part, ...]

    @property
    def total_bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


def estimate(
    recipe: Recipe, facts: ModelFacts, *, gpu: bool, longest_tokens: float | None = None
) -> MemoryEstimate | None:
    """The memory of training `recipe` on a GPU, or on the host's processor; None where the model's shape is not known.

    `longest_tokens` is the longest row's length where it is known; the recipe's sequence length bounds it.
    Weights: 2 bytes each in 16-bit; in 4-bit about 0.56 for the layers and 2 for embedding and head. Adapter: weight, gradient and Adam's two moments in 32-bit, 16 bytes. Activations of
    one row of tokens: about 34 × hidden bytes a layer (arXiv 2205.05198), or 2 × hidden with checkpointing plus one layer's
    recomputation. Logits: Unsloth computes the loss in chunks, with a 16-bit and a 32-bit copy of each.
    """
    if not (facts.parameters and facts.hidden_size and facts.layers and facts.vocabulary):
        return None
    hidden, layers, vocabulary = facts.hidden_size, facts.layers, facts.vocabulary
    inner = facts.intermediate_size or 4 * hidden
    embeddings = vocabulary * hidden * (1 if facts.tied_embeddings else 2)
    if recipe.model.precision == "4bit":
        weights = int((facts.parameters - embeddings) * 0.56 + embeddings * 2)
    else:
        weights = facts.parameters * _WIDTH
    length = min(recipe.model.max_length, longest_tokens or recipe.model.max_length)
    tokens = recipe.training.batch_size * length
    one_layer = tokens * (12 * hidden + 4 * inner) * _WIDTH
    checkpointing = recipe.lora.gradient_checkpointing
    kept = tokens * hidden * _WIDTH * layers + one_layer if checkpointing else one_layer * layers
    logits = int(min(tokens, _LOSS_CHUNK_TOKENS) * vocabulary * 6)
    return MemoryEstimate(
        (
            Part("weights", weights),
            Part("adapter", (adapter_weights(facts, recipe.lora) or 0) * 16),
            Part("activations", int(kept)),
            Part("logits", logits),
            Part("libraries", CUDA_CONTEXT_BYTES if gpu else HOST_LIBRARY_BYTES),
        )
    )
