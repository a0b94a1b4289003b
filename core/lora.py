"""The LoRA step: what the adapter weighs, before any model is loaded. No torch."""

from __future__ import annotations

from .memory_shape import Shape, from_facts
from .model_facts import ModelFacts
from .recipe import LoraSection

BYTES_PER_SAVED_WEIGHT = 4
"""PEFT saves the adapter in the 32-bit precision in which it is trained."""


def adapter_weights(facts: ModelFacts, section: LoraSection) -> int | None:
    """Trainable weights of the adapter; None where the model's shape is not known.

    SmolLM2-135M with all seven layers: 305,280 × rank.
    """
    shape = from_facts(facts) if facts.heads and facts.intermediate_size else None
    return None if shape is None else adapter_weights_of(shape, section)


def adapter_weights_of(shape: Shape, section: LoraSection) -> int:
    """Trainable weights of the adapter.

    Each adapted matrix of shape (inputs, outputs) gains rank × (inputs + outputs) weights (LoRA, arXiv 2106.09685).
    """
    hidden, inner = shape.hidden, shape.inner
    sizes = {
        "q_proj": hidden + shape.queries,
        "k_proj": hidden + shape.keys,
        "v_proj": hidden + shape.keys,
        "o_proj": shape.queries + hidden,
        "gate_proj": hidden + inner,
        "up_proj": hidden + inner,
        "down_proj": inner + hidden,
    }
    return shape.layers * section.rank * sum(sizes[name] for name in section.target_modules)


def scale(section: LoraSection) -> float:
    """The factor on what the adapter adds: alpha ÷ rank, or alpha ÷ √rank with rsLoRA (arXiv 2312.03732)."""
    return section.alpha / (section.rank**0.5 if section.rslora else section.rank)
