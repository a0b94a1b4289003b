"""What one layer takes of a GPU's memory in a step. Sizes in bytes; the names in brackets are Unsloth's own."""

from __future__ import annotations

from .memory_held import BF16, FP32, unpacked_bytes
from .memory_parts import MIB
from .memory_shape import Shape
from .recipe import Recipe

OWN_KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""Families whose layers Unsloth wrote itself; Mistral is trained by the code of Llama."""

_ATTENTION_PADDING = 128
"""Sequences are padded to the next multiple for cuDNN's attention, a whole one where they fit [attention_dispatch]."""

_ROPE_POSITIONS = 32_768
"""Positions for which Unsloth computes sines and cosines at first [LlamaRotaryEmbedding]."""

_WIDTHS = {
    "gemma2": (5, 6, 0),
    "gemma3_text": (5, 4, 3),
    "gemma3": (5, 4, 3),
    "phi3": (4, 4, 3),
    "qwen3_moe": (3, 3, 3),
    "qwen3": (3, 4, 3),
}
_WIDTHS_ELSEWHERE = (3, 3, 2)
"""Times the hidden size, the queries and the keys that a layer of Transformers keeps of a token, read from traces on an H200:
both norms' outputs and the sum between them (Phi and Gemma keep one or two more), queries and keys once rotated, values,
attention's output and its copy that the next matrix reads. Phi's values hold on to the matrix of all three; Gemma 3 and Qwen3
keep queries and keys before their norms as well. Gemma 2, which is not measured, repeats keys and values for each head."""


_WIDTHS_8BIT = (5.5, 2, 1)
"""The same over an 8-bit base: the input of the matrices in 8 bit is half a hidden state more."""


_OFFLOAD_FROM_BYTES = 2 * MIB
_OFFLOAD_FROM_LENGTH = 512


def offloads(recipe: Recipe, shape: Shape, tokens: int) -> bool:
    """Whether checkpointing moves the layers' inputs to the host: larger ones, of sequences that may be that long
    [gradient_checkpointing: MINIMUM_SIZE, apply_unsloth_gradient_checkpointing]."""
    large = BF16 * tokens * shape.hidden > _OFFLOAD_FROM_BYTES
    return large and stages(recipe)


def stages(recipe: Recipe) -> bool:
    """Whether Unsloth's own checkpointing runs, and not torch's."""
    return recipe.lora.gradient_checkpointing and recipe.model.max_length >= _OFFLOAD_FROM_LENGTH


def own_layers(recipe: Recipe, shape: Shape) -> bool:
    """Whether Unsloth's own layers run: it hands an 8-bit base and full fine-tuning to Transformers' [loader: FastModel]."""
    return shape.kind in OWN_KINDS and recipe.lora.method == "lora" and recipe.model.precision != "8bit"


def step_by_step(recipe: Recipe, shape: Shape) -> bool:
    """Whether a layer runs function by function, and is not compiled as a whole: Unsloth's own over packed rows, whose lengths
    are read on the host [_block_compile: packed_seq_lengths], and any over an 8-bit base, whose matrices break the graph."""
    packed = recipe.training.packing and own_layers(recipe, shape)
    return packed or recipe.model.precision == "8bit"


def mlp_fused(recipe: Recipe, shape: Shape) -> bool:
    """Whether Unsloth's own function, which knows plain adapters only, runs gate, up and down with their adapters [LoRA_MLP]."""
    known = own_layers(recipe, shape) or (
        shape.kind in ("gemma2", "gemma") and recipe.model.precision != "8bit"
    )
    plain = recipe.lora.method == "lora" and not recipe.lora.dora
    return known and plain and {"gate_proj", "up_proj", "down_proj"} <= set(recipe.lora.target_modules)


def active_inner(shape: Shape) -> int:
    """Numbers of a token between the feed-forward matrices, of all experts that it passes."""
    return shape.expert_inner * shape.experts_per_token if shape.experts > 0 else shape.inner


def padded(length: int) -> float:
    """How many times as long a row is once attention has padded it.

    Packed rows pass attention in groups of one length, each padded [_sdpa_packed_segments]; from torch 2.12 on those of
    several lengths pass at once without [_torch_varlen_packed], and take that much less.
    """
    return (length + _ATTENTION_PADDING - length % _ATTENTION_PADDING) / length


def _trains(recipe: Recipe, *names: str) -> bool:
    """Whether any of the matrices `names` is trained."""
    return recipe.lora.method == "full" or bool(set(names) & set(recipe.lora.target_modules))


def kept_bytes(recipe: Recipe, shape: Shape, tokens: int, length: int) -> int:
    """What one layer keeps for its backward pass. `length` is a row's, in tokens.

    Beside norms and attention: gate and up, and their product where `down` is adapted by PEFT's code and not by Unsloth's,
    which computes it again. 32-bit logarithms for each head. Dropout keeps a mask of bytes.
    """
    if recipe.lora.dora:
        return _dora_kept_bytes(recipe, shape, tokens, length)
    inner = 2
    if not mlp_fused(recipe, shape):  # without the compiler the activated gate is kept as well
        inner += int(_trains(recipe, "down_proj")) + int(step_by_step(recipe, shape))
    wide = _attention_and_norms(recipe, shape, length) + inner * active_inner(shape)
    if shape.experts > 0 and _trains(recipe, "gate_proj", "up_proj"):
        wide += shape.experts_per_token * shape.hidden  # the rows that are sorted by expert
    masks = 5 * shape.hidden + shape.queries + active_inner(shape) if recipe.lora.dropout else 0
    kept = int(tokens * (BF16 * wide + masks + FP32 * shape.heads)) + scores_bytes(shape, tokens, length)
    return kept + _adapter_kept_bytes(recipe, shape, tokens)


def _attention_and_norms(recipe: Recipe, shape: Shape, length: int) -> float:
    """Numbers that norms, residual sums and attention keep of a token, in 16 bit each.

    In Unsloth's own layers: the outputs of the first norm, of attention and of the layer (the second norm's is computed
    again); queries as projected and as rotated; and copies of queries, keys, values and output, padded for cuDNN. For Qwen3
    one hidden state more and the keys as projected, because queries and keys have a norm.
    """
    hidden, queries, keys = shape.hidden, shape.queries, shape.keys
    copies = 2 * padded(length) * (queries + keys)
    if step_by_step(recipe, shape) and own_layers(recipe, shape):
        # The outputs of both norms, of attention and of the layer, what the output projection reads, what a norm of queries
        # and keys reads.
        normed = queries + keys if shape.kind == "qwen3" else 0
        # Without checkpointing also what the copies were made of: seen at one point, of rows of several lengths.
        copied = 0 if recipe.lora.gradient_checkpointing else queries + 2 * keys
        return 4 * hidden + queries + normed + copies + copied
    # What gate and up read is kept where they are trained; experts keep it anyway.
    read = _trains(recipe, "gate_proj", "up_proj", "gate_up_proj") or shape.experts > 0
    unread = 0 if read else hidden
    if not own_layers(recipe, shape):
        widths = _WIDTHS.get(shape.kind, _WIDTHS_ELSEWHERE)
        if step_by_step(recipe, shape):
            widths = _WIDTHS_8BIT
        # A 32-bit model's sums between layers are in 32 bit.
        wider = 2 * hidden if recipe.model.precision == "32bit" else 0
        return widths[0] * hidden + widths[1] * queries + widths[2] * keys + wider - unread
    return 3 * hidden + 2 * queries + copies + (hidden + keys if shape.kind == "qwen3" else 0) - unread


def _dora_kept_bytes(recipe: Recipe, shape: Shape, tokens: int, length: int) -> int:
    """What a layer of Unsloth's keeps where PEFT's code runs each adapted matrix with its magnitudes [peft: dora.py].

    For each output number the base's result and the adapter's, both scaled afterwards. PEFT's code for 4 bit leaves the sum
    in 32 bit, so that all that follows, the sums between layers included, is 32 bit wide; for 16 bit it returns to 16.
    """
    hidden, queries, keys = shape.hidden, shape.queries, shape.keys
    normed = 2 * (queries + keys) if shape.kind == "qwen3" else 0
    wide = 13 * hidden + 9 * queries + 6 * keys + 13 * shape.inner + normed
    if recipe.model.precision != "4bit":
        copies = 2 * padded(length) * (queries + keys)
        wide = 8 * hidden + 4 * queries + 5 * keys + copies + 8 * shape.inner + normed / 2
    kept = int(tokens * (BF16 * wide + FP32 * shape.heads))
    return kept + _peft_kept_bytes(recipe, shape, tokens)


def _dora_forward_bytes(recipe: Recipe, shape: Shape) -> int:
    """What one adapted matrix takes while the lengths of its rows are computed: an identity as wide as its input, which the
    adapter is read out with, in 16 bit; the adapter's product in 32 bit, and the matrix itself in 16 [dora: get_lora_weight].
    """
    inputs = shape.inner if _trains(recipe, "down_proj") else max(shape.queries, shape.hidden)
    return BF16 * inputs**2 + (FP32 + BF16) * shape.largest_matrix


def _adapter_kept_bytes(recipe: Recipe, shape: Shape, tokens: int) -> int:
    """What PEFT's code keeps of a layer's adapters: both matrices in 16 bit, and what lies between them for each token.
    Unsloth's own functions compute both again."""
    if own_layers(recipe, shape) or recipe.lora.method == "full" or shape.kind in ("gemma2", "gemma"):
        return 0
    return _peft_kept_bytes(recipe, shape, tokens)


def _peft_kept_bytes(recipe: Recipe, shape: Shape, tokens: int) -> int:
    copies = BF16 * shape.adapter_weights(recipe.lora) // shape.layers
    between = sum(
        shape.experts_per_token if shape.experts > 0 and name in ("gate_proj", "down_proj") else 1
        for name in recipe.lora.target_modules
    )
    return copies + BF16 * tokens * recipe.lora.rank * between


def scores_bytes(shape: Shape, tokens: int, length: int) -> int:
    """Gemma 2 caps its attention's scores, which are held whole: in 16 bit before and after the softmax."""
    return 2 * BF16 * shape.heads * tokens * length if shape.kind == "gemma2" else 0


def backward_bytes(recipe: Recipe, shape: Shape, tokens: int) -> int:
    """What comes on top of a layer's kept numbers in the middle of its backward pass: gradients as wide as gate and up,
    twice, and those of the layer's input and output. In 4 bit, where it is more, one matrix unpacked.

    Where the layer is not compiled there are fewer, and the unpacked matrix beside them; Unsloth's function for gate, up and
    down writes all but one over what was kept [LoRA_MLP.backward]. In Transformers' layers the gradient of the product makes
    room for that of gate or up, unless both are one matrix or the gate is a GELU's.
    """
    inner = BF16 * tokens * active_inner(shape)
    row = BF16 * tokens * shape.hidden
    unpacked = unpacked_bytes(recipe, shape)
    if recipe.lora.dora:
        return _dora_backward_bytes(recipe, shape, tokens)
    if recipe.model.precision == "8bit":
        return 3 * inner
    if step_by_step(recipe, shape):
        return (inner if mlp_fused(recipe, shape) else 2 * inner) + unpacked + row
    if own_layers(recipe, shape) or shape.kind in ("gemma2", "gemma"):
        return max(4 * inner, 2 * inner + unpacked) + row
    if not _trains(recipe, "down_proj"):
        return 2 * inner + unpacked + row
    three = shape.kind in ("phi3", "gemma3", "gemma3_text") or shape.experts > 0
    return max((3 if three else 2) * inner, inner + unpacked) + row


def _dora_backward_bytes(recipe: Recipe, shape: Shape, tokens: int) -> int:
    """As `backward_bytes`, or, where that is more, what the last adapted matrix takes in the pass before it: in 4 bit always,
    with one of gate and up once more in 32 bit and eight hidden states beside it (four traces agree within 1 %)."""
    inner, row = BF16 * tokens * shape.inner, BF16 * tokens * shape.hidden
    forward = _dora_forward_bytes(recipe, shape)
    if recipe.model.precision == "4bit":
        return forward + 2 * inner + 8 * row
    return max(6 * inner + 3 * row, forward)


def mask_bytes(recipe: Recipe, shape: Shape) -> int:
    """Gemma 2's two masks, of all positions by all positions; others need none."""
    return 2 * BF16 * recipe.model.max_length**2 if shape.kind == "gemma2" else 0


def rope_bytes(recipe: Recipe, shape: Shape, length: int) -> int:
    """Sines and cosines of the positions, once for the model: of all that it knows where rows are packed, since their
    positions come with the batch and are not looked at [LlamaModel_fast_forward: rope_rows]. Transformers computes those of a
    step's rows."""
    if not own_layers(recipe, shape):
        kinds_of_layers = 2 if shape.kind.startswith("gemma3") else 1
        return kinds_of_layers * 2 * length * shape.head * BF16
    known = shape.context_length or _ROPE_POSITIONS
    positions = max(
        recipe.model.max_length, known if step_by_step(recipe, shape) else min(_ROPE_POSITIONS, known)
    )
    return 2 * positions * shape.head * BF16
