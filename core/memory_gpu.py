"""What a training takes of a GPU's memory. Sizes in bytes; the names in brackets are Unsloth's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .memory_held import (
    BF16,
    adapter_parts,
    gradient_bytes,
    table_gradient_bytes,
    unpacked_bytes,
    weights_bytes,
)
from .memory_layer import (
    active_inner,
    backward_bytes,
    kept_bytes,
    mask_bytes,
    mlp_fused,
    offloads,
    own_layers,
    padded,
    rope_bytes,
    scores_bytes,
    step_by_step,
)
from .memory_loss import loss_bytes
from .memory_parts import MIB, Part, all_bytes
from .memory_shape import Shape
from .recipe import Recipe

CONTEXT_BYTES = 820 * MIB
"""What the driver shows above torch's reserved memory: 0.5 GiB bare, and in a training the kernels that were compiled
(measured on an H100: 741 to 837 MiB in 17 processes)."""

_CUBLAS_BYTES = 64 * MIB
"""cuBLAS and cuBLASLt each take 32 MiB on Hopper, less on older cards."""

_SLACK = "allocator"
_SLACK_BYTES = 48 * MIB
_SLACK_SHARE = 0.07
_SLACK_SHARE_KEPT = 0.02
_SLACK_SHARE_KEPT_4BIT = 0.04
_SLACK_SHARE_KEPT_JOINED = 0.07
_SLACK_SHARE_SMALL = 0.75
_SLACK_SHARE_GRADIENTS = 1.1
_SLACK_BYTES_FULL = 190 * MIB
_SLACK_MOST_PASSING = 128 * MIB
"""What the allocator reserves beyond what is allocated. These numbers are fitted; all else is derived."""


@dataclass(frozen=True)
class _Moment:
    """What is alive at one moment of a step, beside the weights, the adapter and the optimizer's state."""

    activations: int
    loss: int
    gradients: int
    trains: bool = True
    """False in an evaluation."""
    first: bool = False
    """In the first step, before the optimizer has a state."""


def _moments(
    recipe: Recipe, shape: Shape, tokens: int, length: int, card_bytes: int | None
) -> tuple[_Moment, ...]:
    """The moments at which memory can be at its peak: the loss, the backward pass of the first or the last layer, and the
    gradient of the table that looks tokens up."""
    row = BF16 * tokens * shape.hidden
    layer = kept_bytes(recipe, shape, tokens, length)
    table = table_gradient_bytes(recipe, shape)
    gradients = gradient_bytes(recipe, shape)
    loss = loss_bytes(recipe, tokens, shape, card_bytes)
    backward = layer + backward_bytes(recipe, shape, tokens)
    # A tied table's gradient is there twice until what comes from the output layer and from the lookup is added up.
    whole = gradients + (table if shape.tied else 0)
    if not recipe.lora.gradient_checkpointing:
        kept = shape.layers * layer
        return (
            _Moment(kept + 3 * row, loss, 0),
            _Moment(kept + backward - layer + 3 * row, 0, 0),
            _Moment(backward + 2 * row, 0, whole),
        )
    staging = (2 if offloads(recipe, shape, tokens) else shape.layers) * row
    tables = (1 if shape.tied else 2) * table
    others = (gradients - tables) * (shape.layers - 1) // shape.layers + table
    scores = scores_bytes(shape, tokens, length)
    attention = layer - 2 * BF16 * tokens * active_inner(shape) + scores + 4 * BF16 * tokens * shape.queries
    # The embedded tokens, the last layer's input, the norm's output and its gradient; Transformers' layers keep their output.
    rows = 4 if own_layers(recipe, shape) else 5
    found = (
        _Moment(rows * row + staging, loss, 0),
        _Moment(backward + row + staging, 0, others),
        _Moment(attention + 2 * row + staging if scores else 0, 0, others),
        _Moment(3 * row + staging if table else 0, 0, whole if table else 0),
    )
    if shape.experts > 0:
        # Each layer is compiled and tried with gradients on before its first pass, and the logits of its router, which are
        # gathered for the auxiliary loss, hold on to all that it kept [_block_compile: Grad-mode trial].
        found += (_Moment(shape.layers * layer + rows * row + staging, loss, 0, first=True),)
    return found


_MASKING_BYTES, _MASKED_BYTES = 7, 4
"""Of each pair of positions in an evaluation of rows side by side, where shorter ones are padded: while the mask is made (in 16
bit before it is inverted, after and filled, and once in 8), and in attention, which pads a copy of it for cuDNN. In training
Unsloth drops the mask, and in an evaluation where no row is padded [LlamaModel_fast_forward,
transformers.modeling_attn_mask_utils]."""


def mask_peak_bytes(tokens: int, length: int) -> int:
    """The mask of `tokens` in rows of `length` while an evaluation makes it; a row by itself has none."""
    return _MASKING_BYTES * tokens * length if tokens > length else 0


def _evaluation(
    recipe: Recipe, shape: Shape, tokens: int, length: int, card_bytes: int | None, pads: bool
) -> _Moment:
    """The fullest moment of an evaluation over `tokens` in rows of `length`: the mask, one layer's attention or feed-forward
    part, or the loss, which is computed as in training. Nothing is kept for a backward pass, and there are no gradients.

    Beside them stand the embedded tokens, the layer's input, the sum after attention, the norm's output and the layer's. The
    feed-forward part holds gate, up and their product, and the activated gate as well where Unsloth's own function does not
    run it.
    """
    row = BF16 * tokens * shape.hidden
    making = mask_peak_bytes(tokens, length) if pads else 0
    mask = making * _MASKED_BYTES // _MASKING_BYTES
    queries, keys = shape.queries, shape.keys
    attention = 2 * queries + 3 * keys + 2 * padded(length) * (queries + keys)
    inner = (3 if mlp_fused(recipe, shape) else 4) * active_inner(shape)
    unpacked = unpacked_bytes(recipe, shape)
    scores = scores_bytes(shape, tokens, length)
    layer = int(BF16 * tokens * max(attention - 2 * shape.hidden, inner)) + unpacked + scores
    loss = loss_bytes(recipe, tokens, shape, card_bytes, training=False)
    if loss >= max(making - 2 * row, mask + layer + 2 * row):
        return _Moment(3 * row, loss, 0, trains=False)
    return _Moment(max(row + making, 5 * row + mask + layer), 0, 0, trains=False)


def _slack_bytes(recipe: Recipe, shape: Shape, tokens: int, length: int, peak: _Moment) -> int:
    """What lies between allocated blocks. In 4 bit an unpacked matrix comes and goes and is one such hole, where Transformers'
    layers run what is as wide as gate and up is another. Where gate and up are one matrix, nothing else is as large as its
    result.

    At the loss the gradients of the step before are gone, but lay between what the optimizer then allocated: they leave holes
    too small for the loss's buffer. Where nothing but that buffer is large enough, cuBLAS' memory for the backward pass
    settles in it, and the next step needs another. What a 32-bit model keeps in 16 bit comes in blocks too small for its
    gradients.
    """
    lora, activations = recipe.lora, peak.activations
    unpacked = unpacked_bytes(recipe, shape)
    if not lora.gradient_checkpointing:
        share = _SLACK_SHARE_KEPT_4BIT if unpacked else _SLACK_SHARE_KEPT
        if shape.kind == "phi3":
            share = _SLACK_SHARE_KEPT_JOINED
        small = lora.method == "full" and recipe.model.precision == "32bit" and not peak.loss
        kept = shape.layers * kept_bytes(recipe, shape, tokens, length) if small else 0
        return int(share * activations + _SLACK_SHARE_SMALL * kept) + _SLACK_BYTES // 3
    if peak.first:
        return int(_SLACK_SHARE_KEPT * activations) + _SLACK_BYTES + unpacked
    if lora.method == "full":
        return _SLACK_BYTES_FULL
    inner = BF16 * tokens * active_inner(shape)
    if not peak.loss or not peak.trains:
        return int(_SLACK_SHARE * activations) + _SLACK_BYTES + unpacked
    if recipe.model.precision == "4bit" and not own_layers(recipe, shape):
        unpacked = max(unpacked, min(2 * inner, _SLACK_MOST_PASSING))
    left = int(_SLACK_SHARE_GRADIENTS * gradient_bytes(recipe, shape)) + _SLACK_BYTES // 3 + unpacked
    settles = step_by_step(recipe, shape) and inner < _CUBLAS_BYTES // 2
    return max(left, peak.loss - _CUBLAS_BYTES // 2) if settles else left


def parts(
    recipe: Recipe,
    shape: Shape,
    tokens: int,
    length: int,
    card_bytes: int | None,
    evaluated_tokens: int = 0,
    pads: bool = True,
) -> tuple[Part, ...]:
    """The shares of the GPU's memory at its peak: in a step over `tokens` in rows of `length`, or in an evaluation of
    `evaluated_tokens`, whichever takes more. The last share is the CUDA context, which torch does not see. `pads`: whether
    rows of several lengths stand side by side in an evaluation."""
    moments = _moments(recipe, shape, tokens, length, card_bytes)
    reached = [_parts_at(moment, recipe, shape, tokens, length) for moment in moments]
    if evaluated_tokens:
        evaluated = _evaluation(recipe, shape, evaluated_tokens, length, card_bytes, pads)
        reached.append(_parts_at(evaluated, recipe, shape, evaluated_tokens, length))
    # What was reserved at one moment stays reserved at the next.
    fullest = max(reached, key=_allocated)
    reserved = max(all_bytes(found) for found in reached)
    return tuple(
        replace(part, bytes=part.bytes + reserved - all_bytes(fullest)) if part.name == _SLACK else part
        for part in fullest
    )


def _allocated(found: tuple[Part, ...]) -> int:
    return all_bytes(part for part in found if part.name != _SLACK)


def _parts_at(peak: _Moment, recipe: Recipe, shape: Shape, tokens: int, length: int) -> tuple[Part, ...]:
    adapter, _gradients, optimizer = adapter_parts(recipe, shape)
    return (
        Part("weights", weights_bytes(recipe, shape)),
        adapter,
        Part("gradients", peak.gradients),
        Part("optimizer", 0) if peak.first else optimizer,
        Part("activations", peak.activations),
        Part("loss", peak.loss),
        Part("workspace", _CUBLAS_BYTES + rope_bytes(recipe, shape, length) + mask_bytes(recipe, shape)),
        Part(_SLACK, _slack_bytes(recipe, shape, tokens, length, peak)),
        Part("context", CONTEXT_BYTES),
    )
