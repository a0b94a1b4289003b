"""What a training takes of a GPU's memory. Sizes in bytes; the names in brackets are Unsloth's own."""

from __future__ import annotations

from dataclasses import dataclass

from .memory_parts import GIB, MIB, Part, all_bytes
from .memory_shape import Shape
from .recipe import Recipe

CONTEXT_BYTES = 820 * MIB
"""What the driver shows above torch's reserved memory: 0.5 GiB bare, and in a training the kernels that were compiled
(measured on an H100: 741 to 837 MiB in 17 processes)."""

MEASURED_KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""Families whose points stand in the table, and Mistral, which Unsloth trains by the code of Llama."""

DERIVED_KINDS = ("phi3", "smollm3", "gemma3_text")
"""Families whose shares follow from reading their code alone."""

_BF16, _FP32 = 2, 4
_PACKED = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight: half a byte, an 8-bit scale for each 64 weights, and a 32-bit one for each 256 scales."""

_BYTE = 1.02
"""Bytes of a number in 8 bit: itself and its share of a scale."""
_ADAFACTOR_SHARE = 0.01

_SMALL_CARD_BYTES = 24.5 * GIB
_LOSS_TILE_BYTES = 256 * MIB
_LOSS_TILE_COLUMNS = 16_384
_LOSS_MOST_ROWS = 4096
_OFFLOAD_FROM_BYTES = 2 * MIB
"""Inputs of a layer are moved to the host only when they are larger (unsloth_zoo, gradient_checkpointing, MINIMUM_SIZE)."""

_CUBLAS_BYTES = 64 * MIB
"""cuBLAS and cuBLASLt each take 32 MiB on Hopper, less on older cards."""

_ROPE_POSITIONS = 32_768
"""Positions for which Unsloth computes sines and cosines at first [LlamaRotaryEmbedding]."""

_ATTENTION_PADDING = 128
"""Sequences are padded to the next multiple for cuDNN's attention, a whole one where they fit [attention_dispatch]."""

_SLACK_BYTES = 48 * MIB
_SLACK_SHARE = 0.07
_SLACK_SHARE_KEPT = 0.02
_SLACK_SHARE_KEPT_4BIT = 0.04
"""What the allocator reserves beyond what is allocated. These four numbers are fitted; all else is derived."""


def weights_bytes(recipe: Recipe, shape: Shape) -> int:
    """The frozen model on the GPU: embeddings, output layer, norms and biases in 16 bit, matrices in 16 or 4."""
    if recipe.model.precision == "32bit":
        return _FP32 * shape.parameters
    each = {"4bit": _PACKED, "8bit": 1}.get(recipe.model.precision, _BF16)
    # In 8 bit each row of a matrix has a scale of 32 bits [bitsandbytes, Int8Params.SCB].
    rows = shape.layers * (shape.queries + 2 * shape.keys + 2 * shape.hidden + 2 * shape.inner)
    scales = _FP32 * rows if recipe.model.precision == "8bit" else 0
    return int(shape.matrices * each) + scales + _BF16 * (shape.embeddings + shape.vectors)


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
        width = _FP32 if recipe.model.precision == "32bit" else _BF16
        return (_Trained(shape.parameters, width, shape.embedding),)
    looked_up = shape.embedding if "embed_tokens" in lora.modules_to_save else 0
    tables = _Trained(shape.table_weights(lora), _BF16, looked_up)
    return (_Trained(shape.adapter_weights(lora), _FP32), tables)


def gradient_bytes(recipe: Recipe, shape: Shape) -> int:
    """The gradients of a step, each as wide as its weight."""
    return sum(part.weights * part.width for part in trained(recipe, shape))


def _table_twice_bytes(recipe: Recipe, shape: Shape) -> int:
    """The gradient of a tied table a second time: what comes from the output layer and what comes from the lookup stand side
    by side until they are added up."""
    if recipe.lora.method != "full" or not shape.tied:
        return 0
    return shape.embedding * (_FP32 if recipe.model.precision == "32bit" else _BF16)


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
            total += states * (_BYTE * (part.weights - part.embeddings) + _FP32 * part.embeddings)
    return int(total)


def adapter_parts(recipe: Recipe, shape: Shape) -> tuple[Part, Part, Part]:
    """Adapter (with the tables that are trained whole), gradients and optimizer."""
    gradients = gradient_bytes(recipe, shape)
    return (
        Part("adapter", gradients if recipe.lora.method == "lora" else 0),
        Part("gradients", gradients),
        Part("optimizer", optimizer_bytes(recipe, shape)),
    )


def loss_bytes(tokens: int, shape: Shape, card_bytes: int | None) -> int:
    """The buffers of the fused loss, which never holds the logits of a whole batch [fused_linear._ce_impl].

    On large cards, below 4096 learned tokens: rows × vocabulary in 32 bit, with `rows` from `loss_rows`. Else tiles of at
    most 256 MiB, and a 32-bit sum of up to 4096 × hidden. Where the count of learned tokens decides, the larger is taken.
    """
    small = card_bytes is not None and card_bytes <= _SMALL_CARD_BYTES
    rows = loss_rows(tokens, shape)
    chunked = rows * shape.vocabulary * _FP32 + rows * shape.hidden * (2 * _FP32 + _BF16)
    if tokens < _LOSS_MOST_ROWS and not small:
        return chunked
    rows = min(_LOSS_MOST_ROWS, tokens)
    columns = _LOSS_TILE_COLUMNS
    if not small:
        columns = max(_LOSS_TILE_BYTES // (rows * _FP32), columns) // columns * columns
    columns = min(columns, -(-shape.vocabulary // _LOSS_TILE_COLUMNS) * _LOSS_TILE_COLUMNS)
    tiled = rows * columns * _FP32 + rows * shape.hidden * (_FP32 + _BF16)
    return tiled if small else max(tiled, chunked)


def loss_rows(tokens: int, shape: Shape) -> int:
    """Tokens whose logits are computed at once [fused_linear_rows]: powers of two, from about 512 to 4096."""
    least = min(max(_power(512 * 151_936 / shape.vocabulary), 512), _LOSS_MOST_ROWS)
    rows = min(max(_power(tokens * shape.hidden / shape.vocabulary), least), _LOSS_MOST_ROWS)
    return max(1, min(rows, tokens, 2 * GIB // (shape.vocabulary * _FP32)))


def _power(number: float) -> int:
    """The largest power of two that is not above `number`."""
    return 1 << max(int(number).bit_length() - 1, 0)


_KEPT_WIDTHS = {"gemma2": (5, 6, 0), "gemma3_text": (5, 4, 3), "gemma3": (5, 4, 3), "phi3": (2, 3, 2)}
_KEPT_WIDTHS_ELSEWHERE = (4, 3, 2)
"""Times the hidden size, the queries and the keys that a layer keeps of a token, where Transformers' own layer is
compiled: counted from what torch's partitioner keeps for such layers with adapters (on a CPU, torch 2.13). Gemma 2 repeats
keys and values for each head of its own attention."""


def _own_layers(recipe: Recipe, shape: Shape) -> bool:
    """Whether Unsloth's own layers run: it hands an 8-bit base and full fine-tuning to Transformers' [loader: FastModel]."""
    return shape.kind in MEASURED_KINDS and recipe.lora.method == "lora" and recipe.model.precision != "8bit"


def _step_by_step(recipe: Recipe, shape: Shape) -> bool:
    """Whether a layer runs function by function, and is not compiled as a whole: Unsloth's own over packed rows, whose lengths
    are read on the host [_block_compile: packed_seq_lengths], and any over an 8-bit base, whose matrices break the graph."""
    packed = recipe.training.packing and _own_layers(recipe, shape)
    return packed or recipe.model.precision == "8bit"


def _attention_and_norms(recipe: Recipe, shape: Shape, length: int) -> float:
    """Numbers that norms, residual sums and attention keep of a token, in 16 bit each.

    In Unsloth's own layers: the outputs of the first norm, of attention and of the layer (the second norm's is computed
    again); queries as projected and as rotated; and copies of queries, keys, values and output, padded for cuDNN. For Qwen3
    one hidden state more and the keys as projected, because queries and keys have a norm.
    """
    hidden, queries, keys = shape.hidden, shape.queries, shape.keys
    padded = 2 * _padded(length) * (queries + keys)
    normed = queries + keys if shape.kind == "qwen3" else 0
    if _step_by_step(recipe, shape):
        # The outputs of both norms, of attention and of the layer, what the output projection reads, what a norm of queries
        # and keys reads. Transformers' norms keep what they read in 32 bit.
        in_32_bit = 0 if _own_layers(recipe, shape) else 2 * (2 * hidden + normed)
        return 4 * hidden + queries + normed + padded + in_32_bit
    if not _own_layers(recipe, shape):
        widths = _KEPT_WIDTHS.get(shape.kind, _KEPT_WIDTHS_ELSEWHERE)
        return widths[0] * hidden + widths[1] * queries + widths[2] * keys
    return 3 * hidden + 2 * queries + padded + (hidden + keys if shape.kind == "qwen3" else 0)


def _padded(length: int) -> float:
    """How many times as long a row is once attention has padded it.

    Packed rows pass attention in groups of one length, each padded [_sdpa_packed_segments]; from torch 2.12 on those of
    several lengths pass at once without [_torch_varlen_packed], and take that much less.
    """
    return (length + _ATTENTION_PADDING - length % _ATTENTION_PADDING) / length


def kept_bytes(recipe: Recipe, shape: Shape, tokens: int, length: int) -> int:
    """What one layer keeps for its backward pass. `length` is a row's, in tokens.

    Beside norms and attention: gate and up, and their product where `down` is adapted by PEFT's code and not by Unsloth's,
    which computes it again. 32-bit logarithms for each head. Dropout keeps a mask of bytes.
    """
    trains_down = "down_proj" in recipe.lora.target_modules or recipe.lora.method == "full"
    inner = 2
    if not _mlp_fused(recipe, shape):  # without the compiler the activated gate is kept as well
        inner += int(trains_down) + int(_step_by_step(recipe, shape))
    wide = _attention_and_norms(recipe, shape, length) + inner * _active_inner(shape)
    masks = 5 * shape.hidden + shape.queries + _active_inner(shape) if recipe.lora.dropout else 0
    return int(tokens * (_BF16 * wide + masks + _FP32 * shape.heads)) + _scores(shape, tokens, length)


def _scores(shape: Shape, tokens: int, length: int) -> int:
    """Gemma 2 caps its attention's scores, which are held whole: in 16 bit before and after the softmax."""
    return 2 * _BF16 * shape.heads * tokens * length if shape.kind == "gemma2" else 0


def _mlp_fused(recipe: Recipe, shape: Shape) -> bool:
    """Whether Unsloth's own function, which knows plain adapters only, runs gate, up and down with their adapters [LoRA_MLP]."""
    known = _own_layers(recipe, shape) or (
        shape.kind in ("gemma2", "gemma") and recipe.model.precision != "8bit"
    )
    plain = recipe.lora.method == "lora" and not recipe.lora.dora
    return known and plain and {"gate_proj", "up_proj", "down_proj"} <= set(recipe.lora.target_modules)


def _active_inner(shape: Shape) -> int:
    return shape.expert_inner * shape.experts_per_token if shape.experts > 0 else shape.inner


def backward_bytes(recipe: Recipe, shape: Shape, tokens: int) -> int:
    """What comes on top of a layer's kept numbers in the middle of its backward pass: gradients as wide as gate and up,
    twice, and those of the layer's input and output. In 4 bit, where it is more, one matrix unpacked.

    Where the layer is not compiled there are fewer, and the unpacked matrix beside them; Unsloth's function for gate, up and
    down writes all but one over what was kept [LoRA_MLP.backward].
    """
    inner = _BF16 * tokens * _active_inner(shape)
    row = _BF16 * tokens * shape.hidden
    unpacked = _BF16 * shape.largest_matrix if recipe.model.precision in ("4bit", "8bit") else 0
    if _step_by_step(recipe, shape):
        return (inner if _mlp_fused(recipe, shape) else 2 * inner) + unpacked + row
    return max(4 * inner, 2 * inner + unpacked) + row


def mask_bytes(recipe: Recipe, shape: Shape) -> int:
    """Gemma 2's two masks, of all positions by all positions; others need none."""
    return 2 * _BF16 * recipe.model.max_length**2 if shape.kind == "gemma2" else 0


def rope_bytes(recipe: Recipe, shape: Shape) -> int:
    """Sines and cosines of the positions, once for the model: of all that it knows where rows are packed, since their
    positions come with the batch and are not looked at [LlamaModel_fast_forward: rope_rows]. Transformers keeps no table."""
    if not _own_layers(recipe, shape):
        return 0
    known = shape.context_length or _ROPE_POSITIONS
    positions = max(
        recipe.model.max_length, known if _step_by_step(recipe, shape) else min(_ROPE_POSITIONS, known)
    )
    return 2 * positions * shape.head * _BF16


@dataclass(frozen=True)
class _Moment:
    """What is alive at one moment of a step, beside the weights, the adapter and the optimizer's state."""

    activations: int
    loss: int
    gradients: int

    @property
    def total(self) -> int:
        return self.activations + self.loss + self.gradients


def _moments(
    recipe: Recipe, shape: Shape, tokens: int, length: int, card_bytes: int | None
) -> tuple[_Moment, ...]:
    """The moments at which memory can be at its peak: the loss, and the backward pass of the first or the last layer."""
    row = _BF16 * tokens * shape.hidden
    layer = kept_bytes(recipe, shape, tokens, length)
    gradients = gradient_bytes(recipe, shape) + _table_twice_bytes(recipe, shape)
    loss = loss_bytes(tokens, shape, card_bytes)
    backward = layer + backward_bytes(recipe, shape, tokens)
    if not recipe.lora.gradient_checkpointing:
        kept = shape.layers * layer
        return (
            _Moment(kept + 3 * row, loss, 0),
            _Moment(kept + backward - layer + 3 * row, 0, 0),
            _Moment(backward + 2 * row, 0, gradients),
        )
    staging = 2 * row if row > _OFFLOAD_FROM_BYTES else shape.layers * row
    others = gradients * (shape.layers - 1) // shape.layers
    scores = _scores(shape, tokens, length)
    attention = (
        layer - 2 * _BF16 * tokens * _active_inner(shape) + scores + 4 * _BF16 * tokens * shape.queries
    )
    return (
        _Moment(4 * row + staging, loss, 0),
        _Moment(backward + row + staging, 0, others),
        _Moment(attention + 2 * row + staging if scores else 0, 0, others),
    )


_MASKING_BYTES, _MASKED_BYTES = 7, 4
"""Of each pair of positions in an evaluation of rows side by side, where shorter ones are padded: while the mask is made (in 16
bit before it is inverted, after and filled, and once in 8), and in attention, which pads a copy of it for cuDNN. In training
Unsloth drops the mask [LlamaModel_fast_forward, transformers.modeling_attn_mask_utils]."""


def mask_peak_bytes(tokens: int, length: int) -> int:
    """The mask of `tokens` in rows of `length` while an evaluation makes it; a row by itself has none."""
    return _MASKING_BYTES * tokens * length if tokens > length else 0


def _evaluation(recipe: Recipe, shape: Shape, tokens: int, length: int, card_bytes: int | None) -> _Moment:
    """The fullest moment of an evaluation over `tokens` in rows of `length`: the mask, one layer's attention or feed-forward
    part, or the loss, which is computed as in training. Nothing is kept for a backward pass, and there are no gradients.

    Beside them stand the embedded tokens, the layer's input and the norm's output. The feed-forward part holds gate, up and
    their product, and the activated gate as well where Unsloth's own function does not run it. Derived, not measured.
    """
    row = _BF16 * tokens * shape.hidden
    making = mask_peak_bytes(tokens, length)
    mask = making * _MASKED_BYTES // _MASKING_BYTES
    queries, keys = shape.queries, shape.keys
    attention = 2 * queries + 3 * keys + 2 * _padded(length) * (queries + keys)
    inner = (3 if _mlp_fused(recipe, shape) else 4) * _active_inner(shape)
    unpacked = _BF16 * shape.largest_matrix if recipe.model.precision in ("4bit", "8bit") else 0
    layer = int(_BF16 * tokens * max(attention, inner)) + unpacked + _scores(shape, tokens, length)
    loss = loss_bytes(tokens, shape, card_bytes)
    if loss >= max(making - 2 * row, mask + layer):
        return _Moment(3 * row, loss, 0)
    return _Moment(max(row + making, 3 * row + mask + layer), 0, 0)


def _slack_bytes(recipe: Recipe, shape: Shape, tokens: int, length: int, peak: _Moment) -> int:
    """What lies between allocated blocks. In 4 bit an unpacked matrix comes and goes and is one such hole.

    Where nothing but the loss's buffer is large enough, cuBLAS' memory for the backward pass settles in it, and the next step
    needs another. What a 32-bit model keeps in 16 bit comes in blocks too small for its gradients.
    """
    lora, activations = recipe.lora, peak.activations
    four_bit = recipe.model.precision in ("4bit", "8bit")
    if not lora.gradient_checkpointing:
        share = _SLACK_SHARE_KEPT_4BIT if four_bit else _SLACK_SHARE_KEPT
        small = lora.method == "full" and recipe.model.precision == "32bit" and not peak.loss
        kept = shape.layers * kept_bytes(recipe, shape, tokens, length) if small else 0
        return int(share * activations) + _SLACK_BYTES // 3 + kept
    unpacked = _BF16 * shape.largest_matrix if four_bit else 0
    usual = int(_SLACK_SHARE * activations) + _SLACK_BYTES + unpacked
    settles = _step_by_step(recipe, shape) and _BF16 * tokens * _active_inner(shape) < _CUBLAS_BYTES // 2
    return max(usual, peak.loss - _CUBLAS_BYTES // 2) if settles else usual


def parts(
    recipe: Recipe, shape: Shape, tokens: int, length: int, card_bytes: int | None, evaluated_tokens: int = 0
) -> tuple[Part, ...]:
    """The shares of the GPU's memory at its peak: in a step over `tokens` in rows of `length`, or in an evaluation of
    `evaluated_tokens`, whichever takes more. The last share is the CUDA context, which torch does not see."""
    trained = max(_moments(recipe, shape, tokens, length, card_bytes), key=lambda moment: moment.total)
    found = _parts_at(trained, recipe, shape, tokens, length)
    if not evaluated_tokens:
        return found
    evaluated = _evaluation(recipe, shape, evaluated_tokens, length, card_bytes)
    return max(found, _parts_at(evaluated, recipe, shape, evaluated_tokens, length), key=all_bytes)


def _parts_at(peak: _Moment, recipe: Recipe, shape: Shape, tokens: int, length: int) -> tuple[Part, ...]:
    weights = weights_bytes(recipe, shape)
    adapter, _gradients, optimizer = adapter_parts(recipe, shape)
    return (
        Part("weights", weights),
        adapter,
        Part("gradients", peak.gradients),
        optimizer,
        Part("activations", peak.activations),
        Part("loss", peak.loss),
        Part("workspace", _CUBLAS_BYTES + rope_bytes(recipe, shape) + mask_bytes(recipe, shape)),
        Part("allocator", _slack_bytes(recipe, shape, tokens, length, peak)),
        Part("context", CONTEXT_BYTES),
    )
