"""What a training takes of the host's memory, beside a GPU and without one. Sizes in bytes."""

from __future__ import annotations

from .memory_gpu import mask_peak_bytes
from .memory_held import adapter_parts, gradient_bytes
from .memory_layer import offloads, stages
from .memory_parts import GIB, KIB, MAPPED, MIB, Part
from .memory_shape import Shape
from .recipe import Recipe

LIBRARY_BYTES = int(0.7 * GIB)
"""Resident memory of torch and Unsloth without a model (measured with torch's CPU build)."""
GPU_LIBRARY_BYTES = 2060 * MIB
"""The same beside a GPU, with CUDA's libraries and the compiled blocks (measured on an H100)."""
_LOADING_BYTES = 1320 * MIB
"""Resident memory while the weights are loaded onto a GPU, without the weights (measured on an H100)."""

_STAGING_BYTES = 200 * 256 * KIB
"""Buffers that Unsloth pins before it knows how large they must be."""
_BF16, _FP32 = 2, 4

PUT_ASIDE = "put aside to probe"


def offloaded_bytes(recipe: Recipe, shape: Shape, tokens: int) -> int:
    """Layer inputs that Unsloth's checkpointing keeps in pinned host memory.

    torch rounds a pinned block up to a power of two. Exact where all batches are as large; else one block more.
    """
    if not stages(recipe):
        return 0
    if not offloads(recipe, shape, tokens):
        return _STAGING_BYTES
    row = _BF16 * tokens * shape.hidden
    return shape.layers * (1 << (row - 1).bit_length()) + _STAGING_BYTES


def put_aside_bytes(recipe: Recipe, shape: Shape) -> int:
    """What a probe copies of the trained weights before its step, to put it back after [probe: _Kept]."""
    return gradient_bytes(recipe, shape)


def parts_with_gpu(
    recipe: Recipe, shape: Shape, tokens: int, file_bytes: int | None = None
) -> tuple[Part, ...]:
    """Where the GPU trains: libraries, what checkpointing keeps here, the trained weights that the probe puts aside, and what
    loading had mapped beyond that.

    `file_bytes` is the size of the weight files; without it they are taken to be in 16 bit.
    """
    offloaded, aside = offloaded_bytes(recipe, shape, tokens), put_aside_bytes(recipe, shape)
    loading = _LOADING_BYTES + (file_bytes or shape.parameters * _BF16)
    return (
        Part("libraries", GPU_LIBRARY_BYTES),
        Part("offloaded", offloaded),
        Part(PUT_ASIDE, aside),
        Part(MAPPED, max(0, loading - GPU_LIBRARY_BYTES - offloaded - aside)),
    )


def parts_without_gpu(
    recipe: Recipe, shape: Shape, tokens: int, length: int, evaluated_tokens: int = 0
) -> tuple[Part, ...]:
    """Where the processor trains: in a step over `tokens`, or in an evaluation of `evaluated_tokens` in rows of `length`,
    whichever takes more. Samples take less than either.

    Fitted to six trainings of SmolLM2-135M and Qwen3-0.6B in 16 bit: the factors 2 and 1.35 are what the C library's
    allocator keeps of the activations that come and go. In three evaluations of SmolLM2-135M, of 2,048 to 16,384 tokens, 2
    fits as well; and 1.35 in two trainings of it in 32 bit, where 8 % too much was foreseen.
    """
    width = _FP32 if recipe.model.precision == "32bit" else _BF16
    weights = shape.parameters * width
    adapter = sum(part.bytes for part in adapter_parts(recipe, shape))
    token_in_layer = (12 * shape.hidden + 4 * shape.inner) * width
    one_layer = tokens * token_in_layer
    kept = tokens * shape.hidden * width * shape.layers + one_layer
    activations = 2 * kept if recipe.lora.gradient_checkpointing else int(1.35 * one_layer * shape.layers)
    evaluated = 2 * evaluated_tokens * token_in_layer + mask_peak_bytes(evaluated_tokens, length)
    activations, logits = max(
        (activations, _logits_bytes(tokens, shape, width)),
        (evaluated, _logits_bytes(evaluated_tokens, shape, width)),
        key=sum,
    )
    return (
        Part("weights", weights),
        Part("adapter", adapter),
        Part("activations", activations),
        Part("logits", logits),
        Part(PUT_ASIDE, put_aside_bytes(recipe, shape)),
        Part("libraries", LIBRARY_BYTES),
    )


def _logits_bytes(tokens: int, shape: Shape, width: int) -> int:
    return min(tokens, 4096) * shape.vocabulary * (width + _FP32)
