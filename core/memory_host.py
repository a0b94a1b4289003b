"""What a training takes of the host's memory, beside a GPU and without one. Sizes in bytes."""

from __future__ import annotations

from .memory_gpu import adapter_parts
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
_OFFLOAD_FROM_BYTES = 2 * MIB
_BF16, _FP32 = 2, 4


def offloaded_bytes(recipe: Recipe, shape: Shape, tokens: int) -> int:
    """Layer inputs that Unsloth's checkpointing keeps in pinned host memory.

    torch rounds a pinned block up to a power of two. Exact on every measured point.
    """
    if not recipe.lora.gradient_checkpointing:
        return 0
    row = _BF16 * tokens * shape.hidden
    if row <= _OFFLOAD_FROM_BYTES:
        return _STAGING_BYTES
    return shape.layers * (1 << (row - 1).bit_length()) + _STAGING_BYTES


def parts_with_gpu(
    recipe: Recipe, shape: Shape, tokens: int, file_bytes: int | None = None
) -> tuple[Part, ...]:
    """Where the GPU trains: libraries, what checkpointing keeps here, and what loading had mapped beyond that.

    `file_bytes` is the size of the weight files; without it they are taken to be in 16 bit.
    """
    offloaded = offloaded_bytes(recipe, shape, tokens)
    loading = _LOADING_BYTES + (file_bytes or shape.parameters * _BF16)
    return (
        Part("libraries", GPU_LIBRARY_BYTES),
        Part("offloaded", offloaded),
        Part(MAPPED, max(0, loading - GPU_LIBRARY_BYTES - offloaded)),
    )


def parts_without_gpu(recipe: Recipe, shape: Shape, tokens: int) -> tuple[Part, ...]:
    """Where the processor trains, in 16 bit.

    Fitted to six trainings of SmolLM2-135M and Qwen3-0.6B: the factors 2 and 1.35 are what the C library's allocator
    keeps of the activations that come and go.
    """
    weights = shape.parameters * (_FP32 if recipe.model.precision == "32bit" else _BF16)
    adapter = sum(part.bytes for part in adapter_parts(recipe, shape))
    one_layer = tokens * (12 * shape.hidden + 4 * shape.inner) * _BF16
    kept = tokens * shape.hidden * _BF16 * shape.layers + one_layer
    activations = 2 * kept if recipe.lora.gradient_checkpointing else int(1.35 * one_layer * shape.layers)
    return (
        Part("weights", weights),
        Part("adapter", adapter),
        Part("activations", activations),
        Part("logits", min(tokens, 4096) * shape.vocabulary * 6),
        Part("libraries", LIBRARY_BYTES),
    )
