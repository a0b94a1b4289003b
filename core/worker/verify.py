"""Looks whether an export opens and is whole, before it gets its name."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Set
from pathlib import Path
from typing import Final

from ..errors import FinetuiError
from . import gguf_header


def _damaged(what: str, why: str) -> FinetuiError:
    return FinetuiError(
        f"{what} came out damaged.",
        why,
        "Export again; if it happens twice, check the disk.",
        code="export-damaged",
    )


def safetensors(file: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of `file` and their shapes, if its header is sound and the file as long as the header says.

    Raises FinetuiError (export-damaged).
    """
    try:
        with file.open("rb") as opened:
            [length] = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, 100_000_000)))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if not header or file.stat().st_size != 8 + length + end:
            raise ValueError("its length is not what its header says")
        return {name: tuple(entry["shape"]) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise _damaged(file.name, f"{error}.") from error


def adapter(folder: Path) -> None:
    """A LoRA adapter as PEFT loads it: its configuration, both sides of each layer, and a tokenizer."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        kind = config["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged("The adapter", f"Its configuration does not read ({error}).") from error
    names = safetensors(folder / "adapter_model.safetensors")
    ups, downs = (sum(side in name for name in names) for side in ("lora_B", "lora_A"))
    if kind != "LORA" or not ups or ups != downs:
        raise _damaged("The adapter", "It does not hold both sides of each adapted layer.")
    if not (folder / "tokenizer_config.json").is_file():
        raise _damaged("The adapter", "Its tokenizer is missing.")


def adapter_gguf(file: Path) -> None:
    """A LoRA adapter as llama.cpp loads it: both sides of each layer. Raises FinetuiError (export-damaged)."""
    names = gguf(file, {"general.architecture", "adapter.type"})
    ups, downs = (sum(name.endswith(side) for name in names) for side in (".lora_b", ".lora_a"))
    if not ups or ups != downs:
        raise _damaged(file.name, "It does not hold both sides of each adapted layer.")


def merged(folder: Path) -> None:
    """A whole model folder: configuration, tokenizer, and every shard that the index names."""
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
        index = folder / "model.safetensors.index.json"
        if index.is_file():
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        else:
            weight_map = None
    except (OSError, ValueError, KeyError) as error:
        raise _damaged("The merged model", f"Its configuration does not read ({error}).") from error
    files = sorted(set(weight_map.values())) if weight_map else ["model.safetensors"]
    found = {name for file in files for name in safetensors(folder / file)}
    if weight_map and found != set(weight_map):
        raise _damaged("The merged model", "Its shards do not hold what its index names.")
    if not (folder / "tokenizer_config.json").is_file():
        raise _damaged("The merged model", "Its tokenizer is missing.")


_OF_MODELS: Final = {"general.architecture", "tokenizer.ggml.tokens"}


def gguf(file: Path, needed: Set[str] = _OF_MODELS) -> dict[str, str]:
    """The tensors of a GGUF and their types, such as `Q4_K`, if the file is sound: a header that reads, the keys that are
    `needed`, and every weight within the file.

    Reads only the header: a second for the largest. Raises FinetuiError (export-damaged).
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        size, found = file.stat().st_size, gguf_header.contents(file)
        types: dict[str, str] = {}
        for tensor in found.tensors:
            kind = GGMLQuantizationType(tensor.kind)
            block, block_bytes = GGML_QUANT_SIZES[kind]
            if tensor.begin + math.prod(tensor.shape) // block * block_bytes > size:
                raise ValueError("it is shorter than its header says")
            types[tensor.name] = kind.name
        missing = needed - found.keys
        if missing:
            raise ValueError(f"it lacks {' and '.join(sorted(missing))}")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise _damaged(file.name, f"{error}.") from error
    return types
