"""What a training holds on the GPU from its first step to its last: weights, adapter, gradients and the optimizer's state.

Sizes in bytes; the names in brackets are Unsloth's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from .memory_parts import Part
from .memory_shape import Shape
from .recipe import Recipe

BF16, FP32 = 2, 4

_PACKED = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight: half a byte, an 8-bit scale for each 64 weights, and a 32-bit one for each 256 scales."""

_BYTE = 1.02
"""Bytes of a number in 8 bit: itself and its share of a scale."""
_ADAFACTOR_SHARE = 0.01


def weights_bytes(recipe: Recipe, shape: Shape) -> int:
    """The frozen model on the GPU: embeddings, output layer, norms and biases in 16 bit, matrices in 16 or 4."""
    if recipe.model.precision == "32bit":
        return FP32 * shape.parameters
    each = {"4bit": _PACKED, "8bit": 1}.get(recipe.model.precision, BF16)
    # In 8 bit each row of a matrix has a scale of 32 bits [bitsandbytes, Int8Params.SCB].
    rows = shape.layers * (shape.queries + 2 * shape.keys + 2 * shape.hidden + 2 * shape.inner)
    scales = FP32 * rows if recipe.model.precision == "8bit" else 0
    return int(shape.matrices * each) + scales + BF16 * (shape.embeddings + shape.vectors)


def unpacked_bytes(recipe: Recipe, shape: Shape) -> int:
    """The largest matrix in 16 bit, where the weights are kept in fewer and it is unpacked before it is used."""
    return BF16 * shape.largest_matrix if recipe.model.precision in ("4bit", "8bit") else 0


@dataclass(frozen=True)
class _Trained:
    """Weights that are trained and how wide each is: the adapter's in 32 bit, tables and whole models as they are held."""

    weights: int
    width: int
    embeddings: int = 0
    """Those of them that look tokens up: bitsandbytes keeps their state in 32 bit (Transformers tells it to)."""


def trained(recipe: Recipe, shape: Shape) -> tuple[_Trained, ...]:
    """What is trained, by width."""
    lora = recipe.lora
    if lora.method == "full":
        return (_Trained(shape.parameters, full_width(recipe), shape.embedding),)
    looked_up = shape.embedding if "embed_tokens" in lora.modules_to_save else 0
    tables = _Trained(shape.table_weights(lora), BF16, looked_up)
    return (_Trained(shape.adapter_weights(lora), FP32), tables)


def full_width(recipe: Recipe) -> int:
    """Bytes of a weight that is trained itself."""
    return FP32 if recipe.model.precision == "32bit" else BF16


def gradient_bytes(recipe: Recipe, shape: Shape) -> int:
    """The gradients of a step, each as wide as its weight."""
    return sum(part.weights * part.width for part in trained(recipe, shape))


def table_gradient_bytes(recipe: Recipe, shape: Shape) -> int:
    """The gradient of one table of a model that is trained whole."""
    return shape.embedding * full_width(recipe) if recipe.lora.method == "full" else 0


def optimizer_bytes(recipe: Recipe, shape: Shape) -> int:
    """The optimizer's state: two numbers a weight, as wide as it, for AdamW; in a byte each in 8 bit; one for Lion. Adafactor
    keeps one number for each row and column."""
    optimizer = recipe.training.optimizer
    states = 1 if optimizer == "lion_8bit" else 2
    total = 0.0
    for part in trained(recipe, shape):
        if optimizer == "adafactor":
            total += _ADAFACTOR_SHARE * part.weights * part.width
        elif optimizer == "adamw_torch":
            total += states * part.weights * part.width
        else:
            total += states * (_BYTE * (part.weights - part.embeddings) + FP32 * part.embeddings)
    return int(total)


def adapter_parts(recipe: Recipe, shape: Shape) -> tuple[Part, Part, Part]:
    """Adapter (with the tables that are trained whole), gradients and optimizer."""
    gradients = gradient_bytes(recipe, shape)
    return (
        Part("adapter", gradients if recipe.lora.method == "lora" else 0),
        Part("gradients", gradients),
        Part("optimizer", optimizer_bytes(recipe, shape)),
    )
