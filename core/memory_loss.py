"""What the loss takes of a GPU's memory: Unsloth never holds the logits of a whole batch. Sizes in bytes; its names in brackets."""

from __future__ import annotations

from .memory_held import BF16, FP32, table_gradient_bytes
from .memory_layer import own_layers
from .memory_parts import GIB, MIB
from .memory_shape import Shape
from .recipe import Recipe

_SMALL_CARD_BYTES = 24.5 * GIB
_TILE_BYTES = 256 * MIB
_TILE_COLUMNS = 16_384
_MOST_ROWS = 4096

_CHUNKED_BYTES_A_LOGIT = 16
_CHUNKED_TARGET_BYTES = 4 * GIB
"""What a chunk may take by Unsloth's reckoning, where twice as much is free [_CE_BYTES_PER_LOGIT, _CE_TARGET_GB_CAP]."""


def loss_bytes(
    recipe: Recipe, tokens: int, shape: Shape, card_bytes: int | None, *, training: bool = True
) -> int:
    """The loss's buffers over `tokens`, beside the final hidden states and their gradient.

    Unsloth's own models and Gemma pass through one kernel [fused_linear]; the forward passes that it only rewrites hand on
    arguments that this kernel does not know, and get chunks of logits [_use_chunked_ce, UnslothFusedLoss].
    """
    if own_layers(recipe, shape) or shape.kind.startswith("gemma"):
        return _fused_bytes(tokens, shape, card_bytes)
    # A head that is trained gets its gradient in the loss: the sum over the chunks, and one chunk's.
    head = 2 * table_gradient_bytes(recipe, shape)
    # The chunk's logits in 16 bit, and in training their gradient beside them.
    return chunk_rows(tokens, shape) * shape.vocabulary * BF16 * (2 if training else 1) + head


def chunk_rows(tokens: int, shape: Shape) -> int:
    """Tokens of a chunk of logits: all at once up to 4 GiB by Unsloth's reckoning, else a multiple of four chunks
    [get_chunk_size]."""
    share = tokens * shape.vocabulary * _CHUNKED_BYTES_A_LOGIT / _CHUNKED_TARGET_BYTES
    chunks = 1 if share <= 1 else -int(-share // 4) * 4
    return -(-tokens // chunks)


def _fused_bytes(tokens: int, shape: Shape, card_bytes: int | None) -> int:
    """[fused_linear._ce_impl] On large cards, below 4096 learned tokens: rows × vocabulary in 32 bit, with `rows` from
    `loss_rows`. Else tiles of at most 256 MiB, and a 32-bit sum of up to 4096 × hidden. Where the count of learned tokens
    decides, the larger is taken.
    """
    small = card_bytes is not None and card_bytes <= _SMALL_CARD_BYTES
    rows = loss_rows(tokens, shape)
    chunked = rows * shape.vocabulary * FP32 + rows * shape.hidden * (2 * FP32 + BF16)
    if tokens < _MOST_ROWS and not small:
        return chunked
    rows = min(_MOST_ROWS, tokens)
    columns = _TILE_COLUMNS
    if not small:
        columns = max(_TILE_BYTES // (rows * FP32), columns) // columns * columns
    columns = min(columns, -(-shape.vocabulary // _TILE_COLUMNS) * _TILE_COLUMNS)
    tiled = rows * columns * FP32 + rows * shape.hidden * (FP32 + BF16)
    return tiled if small else max(tiled, chunked)


def loss_rows(tokens: int, shape: Shape) -> int:
    """Tokens whose logits are computed at once [fused_linear_rows]: powers of two, from about 512 to 4096."""
    least = min(max(_power(512 * 151_936 / shape.vocabulary), 512), _MOST_ROWS)
    rows = min(max(_power(tokens * shape.hidden / shape.vocabulary), least), _MOST_ROWS)
    return max(1, min(rows, tokens, 2 * GIB // (shape.vocabulary * FP32)))


def _power(number: float) -> int:
    """The largest power of two that is not above `number`."""
    return 1 << max(int(number).bit_length() - 1, 0)
