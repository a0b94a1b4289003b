"""Packs a merged model into bitsandbytes' 4-bit form (NF4, its scales in 8 bit), a part of a weight at a time.

The files are those that Transformers writes for such a model: each packed weight stands with the companions that unpack it.
What Transformers leaves whole stays whole: embeddings, norms and the output layer. Needs no GPU.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from .. import export, export_record, proof_file
from ..errors import FinetuiError
from . import base_weights, merge, shards
from .base_weights import Stored
from .child import Check, go_on
from .shards import Group, Planned

BLOCK: Final = 64
"""Weights that share a scale."""
_NESTED_BLOCK: Final = 256
"""Scales that share a scale of their own."""
_STATE: Final = "quant_state.bitsandbytes__nf4"
_LONGEST_STATE: Final = 384
"""Bytes of the JSON in which bitsandbytes tells how a weight was packed; it is filled up with blanks."""


def pack(
    source: Path,
    target: Path,
    on_share: Callable[[float], None] = lambda _share: None,
    check: Check = go_on,
) -> None:
    """Writes the 16-bit model in `source` to the folder `target` (made when missing) in NF4, with all that stands beside it.

    Shards that stand whole in `target` are kept, as in `merge.merge`. `on_share` gets 0.0–1.0; it and `check` may raise to
    stop. Raises FinetuiError (export-4bit, export-4bit-model) and OSError.
    """
    _bitsandbytes()
    sources = {weight.name: weight for weight in base_weights.stored(source)}
    packed, whole = layout(source, sources)
    groups = [
        _companions(w) if w.name in packed else [Planned(w.name, w.dtype, w.shape)] for w in sources.values()
    ]

    def values(group: Group) -> Iterator[torch.Tensor]:
        weight = sources[group[-1].name.removesuffix(f".{_STATE}")]
        if len(group) > 1:
            return _packed(weight, group, check)
        return (rows for _place, rows in base_weights.parts(weight, merge.PART_ELEMENTS))

    target.mkdir(parents=True, exist_ok=True)
    shards.write_all(target, groups, merge.SHARD_BYTES, values, on_share)
    for file in source.iterdir():
        if (
            file.is_file()
            and file.name not in _OURS
            and not file.name.endswith((".safetensors", shards.INDEX))
        ):
            shutil.copyfile(file, target / file.name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": config.get("dtype", "bfloat16"),
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": whole,
    }
    (target / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


_OURS: Final = ("config.json", export_record.FILE, proof_file.FILE)


def can_pack(base: Path) -> None:
    """Raises FinetuiError (export-4bit, export-4bit-model) where a model merged into `base` could not be packed."""
    _bitsandbytes()
    layout(base, {weight.name: weight for weight in base_weights.stored(base)})


def about_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """About how large a model with weights of these `shapes` gets, in bytes: tables and what is no matrix stay in 16 bit."""
    found = 0.0
    for name, shape in shapes.items():
        whole = len(shape) < 2 or name.endswith((merge.EMBEDDINGS, merge.HEAD))
        found += math.prod(shape) * (16.0 if whole else export.NF4_BITS) / 8
    return round(found * 1.03)


def _bitsandbytes() -> Any:
    """bitsandbytes' functions. Raises FinetuiError (export-4bit) where they cannot be had."""
    try:
        return base_weights.bitsandbytes()
    except Exception as error:  # whatever its libraries raise while they are loaded
        raise FinetuiError(
            "The format merged_4bit needs bitsandbytes, and it does not start.",
            f"{type(error).__name__}: {str(error)[:200]}",
            "Install it again (pip install --force-reinstall --no-deps bitsandbytes), or take merged or gguf_q4_k_m.",
            code="export-4bit",
        ) from error


def layout(folder: Path, sources: Mapping[str, Stored]) -> tuple[set[str], list[str]]:
    """Of the model in `folder`, the weights that are packed, and the linear layers that are not, by their modules' names.

    Raises FinetuiError (export-4bit-model) where most of its weights would stay as they are.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.quantizers_utils import should_convert_module

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        vars(config).pop("quantization_config", None)  # a base that is packed already: its shape is asked for
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise _no_layout(f"Transformers cannot lay it out: {str(error)[:200]}") from error
    head = model.get_output_embeddings()
    linear = {n: m for n, m in model.named_modules() if type(m) in (torch.nn.Linear, Conv1D)}
    fit = {
        name
        for name, module in linear.items()
        if type(module) is torch.nn.Linear
        and module is not head
        and (weight := sources.get(f"{name}.weight")) is not None
        and weight.shape == tuple(module.weight.shape)
        and weight.dtype.is_floating_point
    }
    others = [name for name in linear if name not in fit]
    fit = {
        name for name in fit if should_convert_module(name, others)
    }  # a name stands for those that begin with it
    packed = {f"{name}.weight" for name in fit}
    tables = {
        f"{n}.weight" for n, m in model.named_modules() if m is head or isinstance(m, torch.nn.Embedding)
    }
    kept = sum(
        math.prod(weight.shape)
        for name, weight in sources.items()
        if len(weight.shape) > 1 and name not in packed and name not in tables
    )
    if kept >= sum(math.prod(sources[name].shape) for name in packed):
        raise _no_layout(
            "Most of its weights are in no linear layer that bitsandbytes packs, as in a mixture of experts."
        )
    return packed, sorted(set(linear) - fit)


def _no_layout(why: str) -> FinetuiError:
    return FinetuiError(
        "This model cannot leave as merged_4bit.",
        why,
        "Take merged, or a GGUF such as gguf_q4_k_m.",
        code="export-4bit-model",
    )


def _companions(weight: Stored) -> list[Planned]:
    """A packed weight and its companions, in an order and of a length that keep the types of all in their places."""
    blocks = -(-math.prod(weight.shape) // BLOCK)
    at = f"{weight.name}."
    group = [
        Planned(at + "nested_absmax", torch.float32, (-(-blocks // _NESTED_BLOCK),)),
        Planned(at + "quant_map", torch.float32, (16,)),
        Planned(at + "nested_quant_map", torch.float32, (256,)),
        Planned(weight.name, torch.uint8, (-(-math.prod(weight.shape) // 2), 1)),
        Planned(at + "absmax", torch.uint8, (blocks,)),
    ]
    filled = _LONGEST_STATE + -sum(tensor.bytes for tensor in group) % 8
    return [*group, Planned(at + _STATE, torch.uint8, (filled,))]


def _packed(weight: Stored, group: Sequence[Planned], check: Check) -> Iterator[torch.Tensor]:
    """The tensors of `group`: the very numbers of bitsandbytes' `quantize_4bit` with double quantization, but made in parts."""
    functional = _bitsandbytes()
    codes: list[torch.Tensor] = []
    scales: list[torch.Tensor] = []
    even = weight.shape[-1] % BLOCK == 0  # else a part of the rows would end within a block
    state: Any = None
    for _place, rows in base_weights.parts(weight, merge.PART_ELEMENTS if even else math.prod(weight.shape)):
        check()
        code, state = functional.quantize_4bit(rows.contiguous(), blocksize=BLOCK, quant_type="nf4")
        codes.append(code)
        scales.append(state.absmax)
    scale = torch.cat(scales)
    offset = scale.mean()
    nested, nested_state = functional.quantize_blockwise(scale - offset, blocksize=_NESTED_BLOCK)
    told = functional.QuantState(
        absmax=nested,
        shape=torch.Size(weight.shape),
        code=state.code,
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=state.dtype,
        offset=offset,
        state2=nested_state,
    ).as_dict(packed=True)
    told[_STATE] = torch.nn.functional.pad(
        told[_STATE], (0, group[-1].shape[0] - len(told[_STATE])), value=ord(" ")
    )
    for tensor in group:
        if tensor.name == weight.name:
            yield from codes
        else:
            yield told[tensor.name.removeprefix(f"{weight.name}.")]
