"""What a training takes of a GPU's memory. Sizes in bytes; the names in brackets are Unsloth's own."""

from __future__ import annotations

from .memory_parts import GIB, MIB, Part
from .memory_shape import Shape
from .recipe import Recipe

CONTEXT_BYTES = GIB // 2
"""What the driver shows above torch's reserved memory (measured on an H100)."""

MEASURED_KINDS = ("gemma3_text", "phi3", "smollm3")

_BF16, _FP32 = 2, 4
_PACKED = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight: half a byte, an 8-bit scale for each 64 weights, and a 32-bit one for each 256 scales."""

_SMALL_CARD_BYTES = 24.5 * GIB
_LOSS_TILE_BYTES = 256 * MIB
_LOSS_TILE_COLUMNS = 16_384
_LOSS_MOST_ROWS = 4096
_OFFLOAD_FROM_BYTES = 2 * MIB
"""Inputs of a layer are moved to the host only when they are larger (unsloth_zoo, gradient_checkpointing, MINIMUM_SIZE)."""

_CUBLAS_BYTES = 64 * MIB
_SLACK = 0.02
_SLACK_BYTES = 40 * MIB


def weights_bytes(recipe: Recipe, shape: Shape) -> int:
    """The frozen model on the GPU: embeddings, output layer, norms and biases in 16 bit, matrices in 16 or 4."""
    each = _PACKED if recipe.model.precision == "4bit" else _BF16
    return int(shape.matrices * each) + _BF16 * (shape.embeddings + shape.vectors)


def adapter_parts(recipe: Recipe, shape: Shape) -> tuple[Part, Part, Part]:
    """Adapter, gradients and optimizer. The adapter is held and trained in 32 bit."""
    weights = shape.adapter_weights(recipe.lora)
    states = 2 * 1.02 if recipe.training.optimizer == "adamw_8bit" else 2 * _FP32
    return (
        Part("adapter", weights * _FP32),
        Part("gradients", weights * _FP32),
        Part("optimizer", int(weights * states)),
    )


def loss_bytes(tokens: int, shape: Shape, card_bytes: int | None) -> int:
    """The buffers of the fused loss, which never holds the logits of a whole batch [fused_linear._ce_impl].

    On large cards, below 4096 tokens: rows × vocabulary in 32 bit, with `rows` from `loss_rows`. Else tiles of at most
    256 MiB, and a 32-bit sum of up to 4096 × hidden.
    """
    small = card_bytes is not None and card_bytes <= _SMALL_CARD_BYTES
    if tokens < _LOSS_MOST_ROWS and not small:
        rows = loss_rows(tokens, shape)
        return rows * shape.vocabulary * _FP32 + rows * shape.hidden * (_FP32 + _BF16)
    rows = min(_LOSS_MOST_ROWS, tokens)
    columns = _LOSS_TILE_COLUMNS
    if not small:
        columns = max(_LOSS_TILE_BYTES // (rows * _FP32), columns) // columns * columns
    columns = min(columns, -(-shape.vocabulary // _LOSS_TILE_COLUMNS) * _LOSS_TILE_COLUMNS)
    return rows * columns * _FP32 + rows * shape.hidden * _FP32


def loss_rows(tokens: int, shape: Shape) -> int:
    """Tokens whose logits are computed at once [fused_linear_rows]: powers of two, from about 512 to 4096."""
    least = min(max(_power(512 * 151_936 / shape.vocabulary), 512), _LOSS_MOST_ROWS)
    rows = min(max(_power(tokens * shape.hidden / shape.vocabulary), least), _LOSS_MOST_ROWS)
    return max(1, min(rows, tokens, 2 * GIB // (shape.vocabulary * _FP32)))


def _power(number: float) -> int:
    """The largest power of two that is not above `number`."""
    return 1 << max(int(number).bit_length() - 1, 0)


def kept_per_token(shape: Shape) -> int:
    """Bytes that one layer keeps of a token for its backward pass.

    Both residual inputs and both norms' outputs, queries, keys, values, attention's output with its 32-bit logarithms,
    and gate and up.
    """
    wide = 4 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 2 * shape.inner
    return _BF16 * wide + _FP32 * (shape.heads + 2)


def activations_bytes(recipe: Recipe, shape: Shape, tokens: int) -> int:
    """What is alive in the middle of a layer's backward pass."""
    hidden, inner = shape.hidden, shape.inner
    passing = _BF16 * tokens * (2 * hidden + inner)
    layer = tokens * kept_per_token(shape)
    if not recipe.lora.gradient_checkpointing:
        return shape.layers * layer + passing
    row = _BF16 * tokens * hidden
    inputs = 3 * row if row > _OFFLOAD_FROM_BYTES else shape.layers * row
    return layer - row + passing + inputs


def workspace_bytes(recipe: Recipe, shape: Shape) -> int:
    """Unpacked copies of 4-bit matrices (one is kept, one comes and goes), and cuBLAS's workspace."""
    if recipe.model.precision == "16bit":
        return _CUBLAS_BYTES
    return _CUBLAS_BYTES + 2 * _BF16 * shape.largest_matrix


def parts(recipe: Recipe, shape: Shape, tokens: int, card_bytes: int | None) -> tuple[Part, ...]:
    """The shares of the GPU's memory at the peak of a step; the last one is the CUDA context, which torch does not see."""
    weights = weights_bytes(recipe, shape)
    adapter, gradients, optimizer = adapter_parts(recipe, shape)
    activations = activations_bytes(recipe, shape, tokens)
    loss = loss_bytes(tokens, shape, card_bytes) + 4 * _BF16 * tokens * shape.hidden
    if not recipe.lora.gradient_checkpointing:
        loss += activations
    workspace = workspace_bytes(recipe, shape)
    layer_peak = activations + gradients.bytes
    more = max(0, loss - layer_peak)
    moving = max(loss, layer_peak) + workspace
    return (
        Part("weights", weights),
        adapter,
        gradients,
        optimizer,
        Part("activations", activations),
        Part("loss", more),
        Part("workspace", workspace),
        Part("allocator", int(_SLACK * moving) + _SLACK_BYTES),
        Part("context", CONTEXT_BYTES),
    )
