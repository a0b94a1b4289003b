"""Looks whether an export opens and is whole, before it gets its name."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from ..errors import FinetuiError


def _damaged(what: str, why: str) -> FinetuiError:
    return FinetuiError(
        f"{what} came out damaged.", why, "Export again; if it happens twice, check the disk.", code="export-damaged"
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


def gguf(file: Path) -> None:
    """A GGUF whose header reads, whose tensors lie within the file, and which names its architecture and tokens."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(file))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _damaged(file.name, f"Its header does not read ({error}).") from error
    if not reader.tensors:
        raise _damaged(file.name, "It holds no weights.")
    size = file.stat().st_size
    if any(int(tensor.data_offset) + int(tensor.n_bytes) > size for tensor in reader.tensors):
        raise _damaged(file.name, "It is shorter than its header says.")
    missing = [key for key in ("general.architecture", "tokenizer.ggml.tokens") if key not in reader.fields]
    if missing:
        raise _damaged(file.name, f"It lacks {' and '.join(missing)}.")
