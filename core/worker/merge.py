"""Merges an adapter into its base model, rows by rows: base weight + scale × B·A, in 16 bit.

Needs neither a GPU nor a whole weight in memory, and changes nothing but the adapted weights. A base that is stored in
4-bit is unpacked first: that is what the adapter was trained on. A base or an adapter that this cannot take (other
quantized weights, fused or renamed layers) raises CannotMerge; Unsloth's own merge then does it from the loaded model.

What an adapter changes in a weight is often less than half a step of 16-bit numbers. Rounded to the nearest one the sum is
the base's weight again: a third of what a short run had learned was lost so, and more where it learned less. It is
rounded up or down by chance instead, each as likely as it is near (stochastic rounding), so that the whole is kept on
average. The chance starts at the weight's name: a merge made again is the same.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import safe_open

from ..errors import FinetuiError
from . import base_weights, shards
from .base_weights import Stored
from .shards import Planned

SHARD_BYTES: Final = 4 * 1024**3
PART_ELEMENTS: Final = 8 * 1024**2
"""Numbers of a weight that are in memory at a time: 32 MiB in 32 bit, and a few times as much on the way."""
_PREFIX: Final = "base_model.model."
_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
)
_OTHER_FILES: Final = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE",
)
HEAD: Final = "lm_head.weight"
EMBEDDINGS: Final = "embed_tokens.weight"
_SIXTEEN_BIT: Final = {torch.bfloat16: 16, torch.float16: 13}
"""The types that leave as they are, and how many bits less each has than a 32-bit number behind the point."""


class CannotMerge(Exception):
    """This base and adapter need Unsloth's merge."""


@dataclass(frozen=True)
class Delta:
    """What an adapter changes in one weight."""

    down: torch.Tensor  # A: rank × inputs
    up: torch.Tensor  # B: outputs × rank
    scale: float
    lengths: torch.Tensor | None = None
    """DoRA: the length of each row of the adapted weight (arXiv 2402.09353)."""

    def change(self, weight: torch.Tensor, rows: torch.Tensor | slice) -> torch.Tensor:
        """What the adapter adds to the `rows` of the base's weight (outputs × inputs, 32 bit) that `weight` holds."""
        added = self.scale * (self.up[rows] @ self.down)
        if self.lengths is None:
            return added
        moved = weight + added
        return moved * (self.lengths[rows] / moved.norm(dim=1))[:, None] - weight


@dataclass(frozen=True)
class Learned:
    """What an adapter holds, by the names of the base's tensors: changes of weights, and tables that were trained whole.

    Only names and shapes are kept; the numbers are read, in 32 bit, when they are asked for.
    """

    file: Path | None = None
    sides: dict[str, dict[str, str]] = field(default_factory=dict)
    """For each changed weight, the adapter's own names of A, B and (DoRA) the lengths."""
    tables: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of what is changed or replaced, as the base must have it."""
    scale: float = 1.0

    def delta(self, name: str) -> Delta | None:
        """The change of the weight `name`, or None."""
        sides = self.sides.get(name)
        if sides is None or self.file is None:
            return None
        with safe_open(str(self.file), "pt") as opened:
            read = {side: opened.get_tensor(key).float() for side, key in sides.items()}
        return Delta(read["A"], read["B"], self.scale, read.get("lengths"))

    def table(self, name: str, rows: torch.Tensor | slice) -> torch.Tensor | None:
        """Rows of what stands in place of the weight `name`, or None."""
        key = self.tables.get(name)
        if key is None or self.file is None:
            return None
        with safe_open(str(self.file), "pt") as opened:
            if isinstance(rows, slice):
                return opened.get_slice(key)[rows].float()
            return opened.get_tensor(key)[rows].float()


def merge(
    base: Path, adapter: Path, target: Path, on_share: Callable[[float], None] = lambda _share: None
) -> None:
    """Writes base + adapter to the folder `target` (made when missing): weights, configuration, tokenizer.

    Shards that stand whole in `target` are kept: whoever calls answers for their being of the same base and adapter. The
    configuration comes last. `on_share` gets 0.0–1.0 and may raise to stop. Raises CannotMerge, FinetuiError
    (merge-not-finite), OSError.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    whole = is_whole(adapter)
    if not whole:
        if config.get("quantization_config") and not base_weights.is_4_bit(config):
            raise CannotMerge("the base model is quantized")
        if base_weights.is_4_bit(config) and importlib.util.find_spec("bitsandbytes") is None:
            raise CannotMerge("its 4-bit weights can be unpacked only where bitsandbytes is installed")
    learned = Learned() if whole else read_adapter(adapter)
    try:
        sources = {weight.name: weight for weight in base_weights.stored(adapter if whole else base)}
    except ValueError as reason:
        raise CannotMerge(str(reason)) from reason
    if learned.tables and (HEAD not in sources or bool(config.get("tie_word_embeddings"))):
        # The output layer was the embeddings; one of them has changed.
        embeddings = next((name for name in sources if name.endswith(EMBEDDINGS)), "")
        if embeddings:
            sources[HEAD] = sources[embeddings]
        config = config | {"tie_word_embeddings": False}
    for name, shape in learned.shapes.items():
        if name not in sources or sources[name].shape != shape:
            raise CannotMerge(f"the base model has no {name} of that shape")
    planned = [Planned(name, _kept(weight), weight.shape) for name, weight in sources.items()]
    target.mkdir(parents=True, exist_ok=True)
    shards.write_all(
        target,
        [[tensor] for tensor in planned],
        SHARD_BYTES,
        lambda group: _rows(group[0].name, group[0].dtype, sources[group[0].name], learned),
        on_share,
    )
    _write_rest(config, planned, base, adapter, target)


def is_whole(folder: Path) -> bool:
    """Whether `folder` holds a whole model, as full fine-tuning leaves it, and no adapter."""
    return (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()


def _write_rest(
    config: dict[str, Any], planned: Sequence[Planned], base: Path, adapter: Path, target: Path
) -> None:
    copy_tokenizer(base, adapter, target)
    for name in _OTHER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, target / name)
    _write_config(config, planned, target)


def read_adapter(adapter: Path) -> Learned:
    """What `adapter` holds, in 32 bit. Raises CannotMerge."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    unusual = (
        "fan_in_fan_out",
        "rank_pattern",
        "alpha_pattern",
        "trainable_token_indices",
    )
    if (
        config.get("peft_type") != "LORA"
        or config.get("bias", "none") != "none"
        or any(map(config.get, unusual))
    ):
        raise CannotMerge("the adapter is of an unusual kind")
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    saved = tuple(str(name) for name in config.get("modules_to_save") or ())
    sides: dict[str, dict[str, str]] = {}
    tables: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    wanted = {"A", "B", "lengths"} if config.get("use_dora") else {"A", "B"}
    file = adapter / "adapter_model.safetensors"
    with safe_open(str(file), "pt") as opened:
        size: dict[str, tuple[int, ...]] = {}
        for key in opened.keys():
            size[key] = tuple(opened.get_slice(key).get_shape())
            plain = key.removeprefix(_PREFIX)
            if plain.removesuffix(".weight").rpartition(".")[2] in saved:
                tables[plain], shapes[plain] = key, size[key]
                continue
            name, _, rest = plain.rpartition(".lora_")
            side = {"A.weight": "A", "B.weight": "B", "magnitude_vector": "lengths"}.get(rest)
            if not key.startswith(_PREFIX) or side not in wanted:
                raise CannotMerge(f"the adapter holds {key}")
            sides.setdefault(f"{name}.weight", {})[side] = key
    if not sides or any(set(keys) != wanted for keys in sides.values()):
        raise CannotMerge("the adapter is not whole")
    for name, keys in sides.items():
        shapes[name] = (size[keys["B"]][0], size[keys["A"]][1])
    return Learned(file, sides, tables, shapes, scale)


def _kept(weight: Stored) -> torch.dtype:
    """The type in which a weight leaves."""
    if weight.dtype in (torch.float32, torch.float64):
        return torch.bfloat16
    if weight.dtype in _SIXTEEN_BIT or not weight.dtype.is_floating_point:
        return weight.dtype
    raise CannotMerge(f"the base model's weights are {weight.dtype}")


def _rows(name: str, kept: torch.dtype, weight: Stored, learned: Learned) -> Iterator[torch.Tensor]:
    """The merged weight, as many rows at a time as the memory is bounded to."""
    delta, replaced = learned.delta(name), name in learned.tables
    for place, rows in base_weights.parts(weight, PART_ELEMENTS):
        merged = rows
        if replaced or delta is not None:
            merged = rows.float()
            if (table := learned.table(name, place)) is not None:
                merged = table
            if delta is not None:
                merged = merged + delta.change(merged, place)
            if not bool(torch.isfinite(merged).all()):
                raise FinetuiError(
                    "The trained adapter holds numbers that are none.",
                    f"{name} is infinite or NaN once merged: the training diverged.",
                    "Train again with a lower learning rate, then export.",
                    code="merge-not-finite",
                )
            if rows.dtype == kept in _SIXTEEN_BIT:
                merged = _by_chance(merged, _SIXTEEN_BIT[kept], f"{name} {place.start}")
        yield merged.to(kept)


def _by_chance(values: torch.Tensor, bits: int, seed: str) -> torch.Tensor:
    """32-bit `values` with their last `bits` bits rounded away in place, up or down by chance. What has none of them stays."""
    random = np.random.default_rng(zlib.crc32(seed.encode()))
    values = values.contiguous()
    for part in values.view(torch.int32).view(-1).split(PART_ELEMENTS // 16):
        part += torch.from_numpy(random.integers(0, 1 << bits, part.shape, np.uint16).astype(np.int32))
        part &= -1 << bits
    return values


def _write_config(config: dict[str, Any], planned: Sequence[Planned], target: Path) -> None:
    """The base's configuration, with the dtype as it now is, unquantized, and without a pointer to code."""
    counts: dict[torch.dtype, int] = {}
    for tensor in planned:
        if tensor.dtype.is_floating_point:
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.bytes
    floating = max(counts, key=lambda dtype: counts[dtype], default=torch.bfloat16)
    dropped = ("auto_map", "torch_dtype", "_name_or_path", "quantization_config")
    clean = {key: value for key, value in config.items() if key not in dropped}
    clean["dtype"] = str(floating).removeprefix("torch.")
    (target / "config.json").write_text(json.dumps(clean, indent=2), encoding="utf-8")


def copy_tokenizer(base: Path, adapter: Path, target: Path) -> None:
    """The base's tokenizer files, byte for byte, with the chat template and end tokens that training used.

    Libraries rewrite tokenizer files when they save them; llama.cpp recognises them by exact details.
    """
    source = base if (base / "tokenizer_config.json").is_file() else adapter
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if source is adapter or not (adapter / "tokenizer_config.json").is_file():
        return
    trained = json.loads((adapter / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings = json.loads((target / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("auto_map", None)
    for name in ("eos_token", "pad_token"):
        if trained.get(name):
            settings[name] = trained[name]
    template = adapter / "chat_template.jinja"
    if template.is_file() or trained.get("chat_template"):
        settings.pop("chat_template", None)
        (target / "chat_template.json").unlink(missing_ok=True)
        if template.is_file():
            shutil.copyfile(template, target / "chat_template.jinja")
        else:
            settings["chat_template"] = trained["chat_template"]
    (target / "tokenizer_config.json").write_text(
        json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8"
    )
