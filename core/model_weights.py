"""A model's weight files: which there are, what their headers say, and the refusal of what is no safetensors.

Reads headers only, never weights.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from .errors import FinetuiError
from .model_files import read_json
from .text import bytes_words, one_line

MAX_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit for a header."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_OTHER_WEIGHTS = (".h5", ".msgpack", ".onnx", ".tflite", ".npz")
EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)
"""The ends of the names that families give to the embedding of the text's tokens."""

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8",
    "F8_E5M2": "float8",
    "I8": "int8",
    "U8": "uint8",
}


@dataclass(frozen=True)
class Weights:
    """What the headers of the safetensors say. Sizes in bytes."""

    parameters: int
    bytes: int
    dtype: str
    output_layer: int
    """Weights of a stored `lm_head`, 0 without one: the embeddings are then tied."""
    embedding_rows: int | None = None
    modules: tuple[str, ...] = ()
    """The names of the parts that hold weights, without their place: `q_proj`, `lm_head`, …"""


def gguf_refused(shown: str) -> FinetuiError:
    """The card for a GGUF given as a base."""
    return FinetuiError(
        f"{shown} is a GGUF: made for running, not for training.",
        "Its weights are packed for llama.cpp and Ollama, mostly rounded to a few bits.",
        "Choose the original model (config.json and safetensors); finetui can write a GGUF when training is done.",
        code="model-gguf",
    )


def pickle_refused(shown: str, name: str) -> FinetuiError:
    """The card for weights in the file `name`, which is a program."""
    return FinetuiError(
        f"{shown} has its weights only as pickle files.",
        f"{one_line(name, 80)} can run any code when it is opened, so finetui reads safetensors only.",
        "Take a version with safetensors, or convert it where you trust its origin.",
        code="model-pickle",
    )


def no_weights(names: Iterable[str], shown: str) -> FinetuiError:
    """The card for a model without safetensors, by what stands there in their place."""
    ordered = sorted(names)
    gguf = [n for n in ordered if n.lower().endswith(".gguf")]
    if gguf:
        return gguf_refused(shown)
    pickles = [
        n
        for n in ordered
        if n.lower().endswith(PICKLES) and "training_args" not in n and "optimizer" not in n
    ]
    if pickles:
        return pickle_refused(shown, pickles[0])
    if "adapter_model.safetensors" in ordered:
        return FinetuiError(
            f"{shown} holds an adapter's weights only.",
            "adapter_model.safetensors is what was learned on top of another model.",
            "Choose the base model, or a merged export.",
            code="model-no-weights",
        )
    other = [n for n in ordered if n.lower().endswith((".safetensors", *_OTHER_WEIGHTS))]
    why = f"Only {one_line(other[0], 80)} was found." if other else "It has a config.json and nothing more."
    return FinetuiError(
        f"{shown} has no weights.",
        why,
        "Download it again; model.safetensors (or its index and parts) must be there.",
        code="model-no-weights",
    )


def weight_files(folder: Path, names: frozenset[str], shown: str) -> tuple[str, ...]:
    """The names of the files that Transformers would load. Raises model-no-weights, model-pickle, model-broken, …"""
    if "model.safetensors" in names:
        return ("model.safetensors",)
    index_name = "model.safetensors.index.json"
    if index_name not in names:
        parts = sorted(n for n in names if n.startswith("model-") and n.endswith(".safetensors"))
        if parts:
            raise FinetuiError(
                f"{shown} is incomplete.",
                f"It is cut in parts ({one_line(parts[0], 60)}, …) and {index_name} is missing.",
                "Download it again.",
                code="model-broken",
            )
        raise no_weights(names, shown)
    weight_map = read_json(folder / index_name, shown).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise FinetuiError(
            f"{shown} is broken.",
            f"{index_name} lists no weights.",
            "Download it again.",
            code="model-broken",
        )
    shards = sorted({str(name) for name in weight_map.values()})
    outside = [
        s for s in shards if "/" in s or "\\" in s or s in ("", ".", "..") or not s.endswith(".safetensors")
    ]
    if outside:
        raise FinetuiError(
            f"{shown} names files outside its folder.",
            f"Its index lists {one_line(outside[0], 80)}.",
            "Do not use this model; take it from its first source.",
            code="model-broken",
        )
    missing = [s for s in shards if s not in names]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FinetuiError(
            f"{shown} is incomplete: {len(missing)} of {len(shards)} weight files are missing.",
            f"Not there: {one_line(missing[0], 80)}{more}.",
            "Finish the download, or copy the missing files into the folder.",
            code="model-broken",
        )
    return tuple(shards)


def read_weights(files: list[Path], shown: str) -> Weights:
    """What the headers of `files` say, added up. Raises FinetuiError (model-broken) for a file that is cut off."""
    return add_headers((safetensors_header(file, shown) for file in files), shown)


def add_headers(headers: Iterable[tuple[dict[str, Any], int]], shown: str) -> Weights:
    """The sums over `headers` of safetensors files, each with its file's size. Raises FinetuiError (model-broken)."""
    parameters = size = 0
    by_dtype: dict[str, int] = {}
    output_layer = 0
    rows: int | None = None
    modules: set[str] = set()
    for header, file_bytes in headers:
        size += file_bytes
        packed = {n.rsplit(".quant_state.", 1)[0] for n in header if ".quant_state." in n}
        for name, tensor in header.items():
            if name == "__metadata__" or any(
                f".{part}" in name for part in ("absmax", "quant_map", "quant_state", "nested_")
            ):
                continue
            if not isinstance(tensor, Mapping) or name.endswith("_scales"):
                continue
            shape = tensor.get("shape")
            count = prod(shape) if isinstance(shape, list) and all(isinstance(n, int) for n in shape) else 0
            if name in packed or name.endswith("_blocks"):
                count *= 2  # two 4-bit weights in a byte
            dtype = str(tensor.get("dtype", ""))
            modules.update(part for part in name.split(".")[-2:-1] if part.isidentifier())
            by_dtype[dtype] = by_dtype.get(dtype, 0) + count
            parameters += count
            if name.endswith("lm_head.weight"):
                output_layer = count
            if name.endswith(EMBEDDINGS) and isinstance(shape, list) and len(shape) == 2:
                rows = shape[0] if isinstance(shape[0], int) and dtype != "U8" else None
    most = max(by_dtype, key=lambda d: by_dtype[d]) if by_dtype else ""
    if not parameters:
        raise FinetuiError(
            f"{shown} is broken.",
            "Its weight files hold no weights.",
            "Download it again.",
            code="model-broken",
        )
    return Weights(
        parameters, size, _DTYPES.get(most, one_line(most, 20)), output_layer, rows, tuple(sorted(modules))
    )


def safetensors_header(file: Path, shown: str) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file (8 bytes of length, then JSON) and the file's size. Raises FinetuiError
    (model-broken)."""

    def broken(why: str, fix: str = "Download that file again.") -> FinetuiError:
        return FinetuiError(
            f"{shown} is broken.", f"{one_line(file.name, 80)} {why}", fix, code="model-broken"
        )

    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            if start.startswith(b"version "):
                raise broken("is a Git LFS pointer, not the weights.", "Run `git lfs pull` in the folder.")
            if len(start) < 8:
                raise broken("is empty or cut off.")
            (length,) = struct.unpack("<Q", start)
            if length > MAX_HEADER_BYTES or length > size - 8:
                raise broken("is not a safetensors file, or it is cut off.")
            header = json.loads(stream.read(length))
    except OSError as error:
        raise broken(f"cannot be read: {error.strerror}.", "Check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise broken("has a damaged header.") from error
    return checked_header(header, 8 + length, size, broken), size


def checked_header(
    header: object, start: int, size: int, broken: Callable[[str], FinetuiError]
) -> dict[str, Any]:
    """`header` where it is one, of a file of `size` bytes whose data begin at `start`. Raises what `broken` makes."""
    if not isinstance(header, dict):
        raise broken("has a damaged header.")
    ends = [t["data_offsets"][1] for t in header.values() if _has_offsets(t)]
    needed = start + max(ends, default=0)
    if size < needed:
        raise broken(f"is cut off: it has {bytes_words(size)} of {bytes_words(needed)}.")
    return header


def _has_offsets(tensor: object) -> bool:
    if not isinstance(tensor, Mapping):
        return False
    offsets = tensor.get("data_offsets")
    return isinstance(offsets, list) and len(offsets) == 2 and isinstance(offsets[1], int)
