"""The weights in a base model's safetensors, as the merge needs them: those packed into 4 bits come out unpacked.

A base may be stored in bitsandbytes' 4-bit form, as Unsloth publishes many. Each of its packed weights has companions
(`NAME.absmax`, `NAME.quant_map`, …) that say how to unpack it; they are no weights of the model, and are not listed.
Unpacking needs no GPU.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from ..recipe import DEMO, Recipe

_STATE: Final = ".quant_state.bitsandbytes__"


def folder(recipe: Recipe) -> Path:
    """The folder with the recipe's base model. A hub model is taken from the hub's cache, and fetched if it must be."""
    source = recipe.model.source
    if source == DEMO:
        from . import demo_model

        return demo_model.prepare()
    local = Path(source).expanduser().absolute()
    if (local / "config.json").is_file():
        return local
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    revision = recipe.model.remote_code or recipe.model.revision
    patterns = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(
            snapshot_download(source, revision=revision, allow_patterns=patterns, local_files_only=True)
        )
    except LocalEntryNotFoundError:
        from . import model

        return model.resolve_hub(recipe, lambda _done, _total: None)


def is_4_bit(config: Mapping[str, Any]) -> bool:
    """Whether a model's configuration says that its weights are in bitsandbytes' 4-bit form."""
    found = config.get("quantization_config")
    return isinstance(found, Mapping) and bool(found.get("load_in_4bit") or found.get("_load_in_4bit"))


def files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, as its index names them, or all that there are."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [folder / Path(str(name)).name for name in sorted(names)]
    return sorted(folder.glob("*.safetensors"))


@dataclass(frozen=True)
class _Names:
    """The names in one file: the model's own weights, and for each packed one the companions that unpack it."""

    weights: tuple[str, ...]
    companions: Mapping[str, tuple[str, ...]]


def _names(opened: Any) -> _Names:
    every = list(opened.keys())
    packed = {name.partition(_STATE)[0] for name in every if _STATE in name}
    companions = {base: tuple(n for n in every if n.startswith(base + ".")) for base in packed}
    hidden = {name for group in companions.values() for name in group}
    return _Names(tuple(name for name in every if name not in hidden), companions)


def bitsandbytes() -> Any:
    """Its functions. Imported where it is needed: an installation for the CPU alone does not have it."""
    return importlib.import_module("bitsandbytes.functional")


def _state(opened: Any, companions: tuple[str, ...]) -> Any:
    parts = {name: opened.get_tensor(name) for name in companions}
    return bitsandbytes().QuantState.from_dict(parts, torch.device("cpu"))


@dataclass(frozen=True)
class Stored:
    """One weight of a model: where it stands, and what it is once unpacked."""

    name: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    companions: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def stored(folder: Path) -> list[Stored]:
    """Every weight of the model in `folder`, file by file, from the headers alone. Raises OSError, SafetensorError, and
    ValueError for a type that is not known."""
    found: list[Stored] = []
    for file in files(folder):
        with safe_open(str(file), "pt") as opened:
            names = _names(opened)
            for name in names.weights:
                companions = names.companions.get(name, ())
                if companions:
                    dtype, shape = _packed(opened, companions)
                else:
                    part = opened.get_slice(name)
                    kind = part.get_dtype()
                    if kind not in _DTYPES:
                        raise ValueError(f"{name} is of the type {kind}")
                    dtype, shape = _DTYPES[kind], tuple(part.get_shape())
                found.append(Stored(name, file, dtype, shape, companions))
    return found


def _packed(opened: Any, companions: tuple[str, ...]) -> tuple[torch.dtype, tuple[int, ...]]:
    """The type and shape of a packed weight: bitsandbytes writes them beside it as JSON."""
    told = next(opened.get_tensor(name) for name in companions if _STATE in name)
    state = json.loads(bytes(told.tolist()))
    return getattr(torch, str(state["dtype"]).removeprefix("torch.")), tuple(map(int, state["shape"]))


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by its name; of a packed one, the shape that it has unpacked."""
    return {weight.name: weight.shape for weight in stored(folder)}


def count(folder: Path) -> int:
    """How many weights the safetensors of `folder` stand for, read from their headers."""
    return sum(math.prod(shape) for shape in shapes(folder).values())


def read(weight: Stored) -> torch.Tensor:
    """All of `weight` on the CPU, unpacked."""
    [(_place, whole)] = parts(weight, math.prod(weight.shape))
    return whole


def parts(weight: Stored, elements: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """The rows of `weight` on the CPU, as many at a time as have at most `elements` numbers, each part with its place.

    No more than these rows is in memory; a packed weight is unpacked whole, to the dtype that it came from. The file is
    closed in the end, so that what was mapped of it goes too.
    """
    with safe_open(str(weight.file), "pt") as opened:
        if weight.companions:
            packed: torch.Tensor = opened.get_tensor(weight.name)
            whole = bitsandbytes().dequantize_4bit(packed, _state(opened, weight.companions))
        elif len(weight.shape) < 2:
            yield slice(None), opened.get_tensor(weight.name)
            return
        else:
            whole = opened.get_slice(weight.name)
        step = max(1, elements // max(1, math.prod(weight.shape[1:])))
        for begin in range(0, weight.shape[0], step):
            place = slice(begin, min(begin + step, weight.shape[0]))
            yield place, whole[place]
