"""The LoRA step: what is trained weighs, before any model is loaded. No torch."""

from __future__ import annotations

from .memory_shape import from_facts
from .model_facts import ModelFacts
from .recipe import LoraSection

BYTES_PER_SAVED_WEIGHT = 4
"""PEFT saves the adapter in the 32-bit precision in which it is trained."""


def adapter_weights(facts: ModelFacts, section: LoraSection) -> int | None:
    """Trainable weights: the adapter's and the tables', or with full fine-tuning all; None where the model's shape is not known.

    SmolLM2-135M with all seven layers: 305,280 × rank.
    """
    shape = from_facts(facts) if facts.heads and facts.intermediate_size else None
    return None if shape is None else shape.trained_weights(section)


def saved_bytes(facts: ModelFacts, section: LoraSection) -> int | None:
    """The adapter's file; None where the model's shape is not known. One that LoftQ began is saved at twice its rank."""
    kept = section
    if section.initialization == "loftq":
        kept = section.model_copy(update={"rank": 2 * section.rank})
    weights = adapter_weights(facts, kept)
    return None if weights is None else weights * BYTES_PER_SAVED_WEIGHT


def scale(section: LoraSection) -> float:
    """The factor on what the adapter adds: alpha ÷ rank, or alpha ÷ √rank with rsLoRA (arXiv 2312.03732)."""
    return section.alpha / (section.rank**0.5 if section.rslora else section.rank)
