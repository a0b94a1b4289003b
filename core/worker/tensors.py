"""An export's tensors against what base and adapter must give: all there, none dead, and the adapter really in them.

Reads rows of each tensor, not the whole: a model of eight billion weights takes seconds. A GGUF's tensors are found
under llama.cpp's own names for them, and dequantized by the `gguf` package.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ..proof import Weights
from . import base_weights, gguf_header, merge
from .base_weights import Stored
from .child import Check, go_on
from .gguf_header import Placed

_ADAPTER: Final = "adapter_model.safetensors"
ROWS: Final = 48
"""Rows of a tensor that are compared, spread evenly."""


class Unreadable(Exception):
    """The export's file cannot be read. The message says what and why."""


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, SafetensorError) as error:
        raise Unreadable(f"{path.name} cannot be read: {str(error)[:200]}") from error


@dataclass
class _Tally:
    tensors: int = 0
    compared: int = 0
    missing: list[str] = field(default_factory=list)
    wrong_shape: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    worst: str = ""
    worst_error: float = 0.0
    changes: list[tuple[float, float]] = field(default_factory=list)
    """Of each tensor that the adapter changes: its change along the adapter's, and the adapter's own, squared."""

    def compare(
        self, name: str, found: torch.Tensor, expected: torch.Tensor, delta: torch.Tensor | None
    ) -> None:
        """Rows as found against rows as they must be; `delta` is the adapter's part of them."""
        self.compared += 1
        size = float(expected.pow(2).mean().sqrt())
        error = float((found - expected).pow(2).mean().sqrt()) / max(size, 1e-12)
        if not error <= self.worst_error:  # NaN counts as worst
            self.worst, self.worst_error = name, error if math.isfinite(error) else 1e9
        if delta is not None:
            along = float(((found - (expected - delta)) * delta).sum())
            self.changes.append((along, float(delta.pow(2).sum())))

    def result(self) -> Weights:
        whole, count = sum(length for _along, length in self.changes), len(self.changes)
        learned, noise = None, 0.0
        if whole > 0:
            learned = sum(along for along, _length in self.changes) / whole
            scatter = sum((along - learned * length) ** 2 for along, length in self.changes)
            noise = math.sqrt(scatter * count / max(1, count - 1)) / whole
        return Weights(
            self.tensors,
            self.compared,
            tuple(self.missing[:20]),
            tuple(self.wrong_shape[:20]),
            tuple(self.dead[:20]),
            self.worst,
            self.worst_error,
            learned,
            noise,
        )


def _rows(count: int) -> torch.Tensor:
    return torch.linspace(0, count - 1, min(count, ROWS)).round().long().unique()


class _Expected:
    """Base + adapter, or the whole tuned model, rows at a time."""

    def __init__(self, base: Path, adapter: Path) -> None:
        whole = merge.is_whole(adapter)
        self.learned = merge.Learned() if whole else merge.read_adapter(adapter)
        base = adapter if whole else base
        self._files: dict[str, Path] = {}
        for file in base_weights.files(base):
            with safe_open(str(file), "pt") as opened:
                self._files |= dict.fromkeys(opened.keys(), file)
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        self.quantized = bool(config.get("quantization_config"))
        """Its weights are packed, so that rows of them cannot be read alone; names and shapes are compared only."""
        unpackable = not self.quantized or importlib.util.find_spec("bitsandbytes") is not None
        self.shapes = base_weights.shapes(base) if unpackable else {}

    def names(self) -> Iterator[str]:
        return iter(self.shapes)

    def rows(self, name: str, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The rows as they must be, in 32 bit, and the adapter's part of them."""
        with safe_open(str(self._files[name]), "pt") as opened:
            kept = _take(opened, name, rows)
        table, delta = self.learned.table(name, rows), self.learned.delta(name)
        if table is not None:
            return table, table - kept
        if delta is None:
            return kept, None
        change = delta.change(kept, rows)
        return kept + change, change


def _take(opened: Any, name: str, rows: torch.Tensor) -> torch.Tensor:
    """Rows of a tensor, in 32 bit; only they are read where the tensor is large."""
    part = opened.get_slice(name)
    shape = part.get_shape()
    if len(shape) < 2 or math.prod(shape) < 1_000_000:
        whole = opened.get_tensor(name)
        return (whole if whole.dim() == 0 else whole[rows]).float()
    return torch.cat([part[int(row) : int(row) + 1] for row in rows]).float()


def _some(weight: Stored, rows: torch.Tensor) -> torch.Tensor:
    """Rows of a weight, in 32 bit; one that is packed is unpacked whole."""
    if weight.companions:
        return base_weights.read(weight)[rows].float()
    with safe_open(str(weight.file), "pt") as opened:
        return _take(opened, weight.name, rows)


def merged(folder: Path, base: Path, adapter: Path, check: Check = go_on) -> Weights:
    """The merged model in `folder`, in 16 or in 4 bit, against `base` and `adapter`. Shapes are rows × columns as safetensors has them.

    Raises Unreadable, and what `check` raises.
    """
    with _reading(folder):
        return _merged(folder, base, adapter, check)


def _merged(folder: Path, base: Path, adapter: Path, check: Check) -> Weights:
    expected = _Expected(base, adapter)
    tally = _Tally()
    seen: dict[str, tuple[int, ...]] = {}
    for weight in base_weights.stored(folder):
        check()
        name, shape = weight.name, weight.shape
        seen[name] = shape
        if not shape:
            continue
        rows = _rows(shape[0])
        found = _some(weight, rows)
        if _is_dead(found) and _is_dead(base_weights.read(weight).float()):
            tally.dead.append(name)
        if expected.shapes.get(name) == shape and not expected.quantized:
            tally.compare(name, found, *expected.rows(name, rows))
    tally.tensors = len(seen)
    for name in expected.names():
        if name not in seen:
            if name != "lm_head.weight":  # tied to the embedding in some savings
                tally.missing.append(name)
        elif seen[name] != expected.shapes[name]:
            tally.wrong_shape.append(name)
    return tally.result()


def copied(folder: Path, adapter: Path) -> Weights:
    """The adapter in `folder` against the one that the run trained: number by number. Raises Unreadable."""
    tally = _Tally()
    with _reading(folder):
        here, there = (folder / _ADAPTER).absolute(), (adapter / _ADAPTER).absolute()
        with safe_open(str(here), "pt") as found, safe_open(str(there), "pt") as expected:
            names = set(found.keys())
            tally.tensors = len(names)
            for name in expected.keys():
                if name not in names:
                    tally.missing.append(name)
                    continue
                values, wanted = found.get_tensor(name).float(), expected.get_tensor(name).float()
                if values.shape != wanted.shape:
                    tally.wrong_shape.append(name)
                else:
                    tally.compare(name, values, wanted, None)
    return tally.result()


def _is_dead(values: torch.Tensor) -> bool:
    return bool(values.numel()) and (not bool(values.any()) or not bool(torch.isfinite(values).all()))


def gguf(file: Path, base: Path, adapter: Path, check: Check = go_on) -> Weights:
    """The GGUF `file` against `base` and `adapter`, under llama.cpp's names. Raises Unreadable, and what `check` raises."""
    with _reading(file):
        return _gguf(file, base, adapter, check)


def _gguf(file: Path, base: Path, adapter: Path, check: Check) -> Weights:
    expected = _Expected(base, adapter)
    there_are = gguf_header.contents(file)
    data = np.memmap(file, np.uint8, "r")
    tally = _Tally(tensors=len(there_are.tensors))
    found = {tensor.name: tensor for tensor in there_are.tensors}
    names = _names(there_are.architecture, base, expected.shapes)
    heads = _heads(base)
    for name, shape in expected.shapes.items():
        check()
        tensor = found.pop(names.get(name, ""), None)
        if tensor is None:
            if names.get(name) and not expected.quantized and name != "lm_head.weight":
                tally.missing.append(name)
            continue
        there = tensor.shape
        if there != shape and math.prod(there) != math.prod(shape) and not expected.quantized:
            tally.wrong_shape.append(name)
            continue
        rows = _rows(there[0])
        values = _dequantized(data, tensor, rows)
        if _is_dead(values) and _is_dead(_dequantized(data, tensor, torch.arange(there[0]))):
            tally.dead.append(name)
        if not expected.quantized and there == shape:
            _compare(tally, expected, name, values, rows, heads)
    for name, tensor in found.items():  # what has no counterpart in the base is looked at alone
        check()
        if len(tensor.shape) > 1 and _is_dead(_dequantized(data, tensor, _rows(tensor.shape[0]))):
            tally.dead.append(name)
    return tally.result()


def _compare(
    tally: _Tally,
    expected: _Expected,
    name: str,
    values: torch.Tensor,
    rows: torch.Tensor,
    heads: tuple[int, int],
) -> None:
    """llama.cpp reorders the rows of q and k for some models, and adds 1 to some norms: the nearest reading counts."""
    count = expected.shapes[name][0]
    readings = [expected.rows(name, rows)]
    if values.dim() == 1:
        readings.append((readings[0][0] + 1, None))
    for number in heads:
        if ("q_proj" in name or "k_proj" in name) and number and count % (2 * number) == 0:
            order = torch.arange(count).reshape(number, 2, count // number // 2).swapaxes(1, 2).reshape(-1)
            readings.append(expected.rows(name, order[rows]))
    wanted, delta = min(readings, key=lambda reading: float((values - reading[0]).pow(2).sum()))
    tally.compare(name, values, wanted, delta)


def _heads(base: Path) -> tuple[int, int]:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    heads = int(config.get("num_attention_heads") or 0)
    return heads, int(config.get("num_key_value_heads") or heads)


def _names(architecture: str, base: Path, wanted: Iterable[str]) -> dict[str, str]:
    """For each of Transformers' tensor names, llama.cpp's."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next((arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture), MODEL_ARCH.LLAMA)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    layers = int(config.get("num_hidden_layers") or 0)
    table = get_tensor_name_map(arch, layers)
    return {
        name: found for name in wanted if (found := table.get_name(name, try_suffixes=(".weight", ".bias")))
    }


def _dequantized(data: np.ndarray[Any, Any], tensor: Placed, rows: torch.Tensor) -> torch.Tensor:
    """Rows of a GGUF's tensor in 32 bit; `data` are the bytes of the file."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType(tensor.kind)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    *outer, width = tensor.shape
    wide = width // block * block_bytes
    held = data[tensor.begin : tensor.begin + math.prod(outer) * wide].reshape(*outer, wide)
    picked = np.ascontiguousarray(held[rows.numpy()] if outer else held)
    whole = torch.from_numpy(np.array(dequantize(picked, kind), np.float32))
    return whole if outer else whole[rows]
