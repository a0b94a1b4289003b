"""The LoRA step: what the adapter weighs, before any model is loaded. No torch."""

from __future__ import annotations

from .model import ModelFacts
from .recipe import LoraSection

BYTES_PER_SAVED_WEIGHT = 4
"""PEFT saves the adapter in the 32-bit precision in which it is trained."""


def adapter_weights(facts: ModelFacts, section: LoraSection) -> int | None:
    """Trainable weights of the adapter; None where the model's shape is not known.

    Each adapted layer of shape (inputs, outputs) gains rank × (inputs + outputs) weights (LoRA, arXiv 2106.09685).
    SmolLM2-135M with all seven layers: 305,280 × rank.
    """
    hidden, inner, layers = facts.hidden_size, facts.intermediate_size, facts.layers
    if not (hidden and inner and layers and facts.heads):
        return None
    head = facts.head_size or hidden // facts.heads
    queries, keys = facts.heads * head, (facts.kv_heads or facts.heads) * head
    shapes = {
        "q_proj": hidden + queries,
        "k_proj": hidden + keys,
        "v_proj": hidden + keys,
        "o_proj": queries + hidden,
        "gate_proj": hidden + inner,
        "up_proj": hidden + inner,
        "down_proj": inner + hidden,
    }
    return layers * section.rank * sum(shapes[name] for name in section.target_modules)


def scale(section: LoraSection) -> float:
    """The factor on what the adapter adds: alpha ÷ rank, or alpha ÷ √rank with rsLoRA (arXiv 2312.03732)."""
    return section.alpha / (section.rank**0.5 if section.rslora else section.rank)
