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

_STATE: Final = ".quant_state.bitsandbytes__"


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


def _bitsandbytes() -> Any:
    """Imported where it is needed: an installation for the CPU alone does not have it."""
    return importlib.import_module("bitsandbytes.functional")


def _state(opened: Any, companions: tuple[str, ...]) -> Any:
    parts = {name: opened.get_tensor(name) for name in companions}
    return _bitsandbytes().QuantState.from_dict(parts, torch.device("cpu"))


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by its name; of a packed one, the shape that it has unpacked."""
    found: dict[str, tuple[int, ...]] = {}
    for file in files(folder):
        with safe_open(str(file), "pt") as opened:
            names = _names(opened)
            for name in names.weights:
                companions = names.companions.get(name)
                found[name] = tuple(
                    _state(opened, companions).shape if companions else opened.get_slice(name).get_shape()
                )
    return found


def count(folder: Path) -> int:
    """How many weights the safetensors of `folder` stand for, read from their headers."""
    return sum(math.prod(shape) for shape in shapes(folder).values())


def read(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight with its name, one at a time, on the CPU; packed ones unpacked to the dtype that they came from."""
    for file in files(folder):
        with safe_open(str(file), "pt") as opened:
            names = _names(opened)
            for name in names.weights:
                weight: torch.Tensor = opened.get_tensor(name)
                if companions := names.companions.get(name):
                    weight = _bitsandbytes().dequantize_4bit(weight, _state(opened, companions))
                yield name, weight
