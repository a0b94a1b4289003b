"""Merges an adapter into its base model, file by file: base weight + scale × B·A, in 16 bit.

Needs neither a GPU nor the whole model in memory, and changes nothing but the adapted weights. A base that is stored in
4-bit is unpacked first: that is what the adapter was trained on. A base or an adapter that this cannot take (other
quantized weights, fused or renamed layers) raises CannotMerge; Unsloth's own merge then does it from the loaded model.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..errors import FinetuiError
from . import base_weights

SHARD_BYTES: Final = 4 * 1024**3
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
_SIXTEEN_BIT: Final = (torch.bfloat16, torch.float16)


class CannotMerge(Exception):
    """This base and adapter need Unsloth's merge."""


@dataclass(frozen=True)
class _Delta:
    down: torch.Tensor  # A: rank × inputs
    up: torch.Tensor  # B: outputs × rank
    scale: float
    lengths: torch.Tensor | None = None
    """DoRA: the length of each row of the adapted weight (arXiv 2402.09353)."""

    def change(self, weight: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """What the adapter adds to `weight` (outputs × inputs, 32 bit), or to the `rows` of it that `weight` holds."""
        up = self.up if rows is None else self.up[rows]
        added = self.scale * (up @ self.down)
        if self.lengths is None:
            return added
        lengths = self.lengths if rows is None else self.lengths[rows]
        moved = weight + added
        return moved * (lengths / moved.norm(dim=1))[:, None] - weight


@dataclass(frozen=True)
class Learned:
    """What an adapter holds, by the names of the base's tensors: changes of weights, and tables that were trained whole."""

    deltas: dict[str, _Delta] = field(default_factory=dict)
    tables: dict[str, torch.Tensor] = field(default_factory=dict)


def merge(
    base: Path, adapter: Path, target: Path, on_share: Callable[[float], None] = lambda _share: None
) -> None:
    """Writes base + adapter to the folder `target` (made when missing): weights, configuration, tokenizer.

    `on_share` gets 0.0–1.0 and may raise to stop. Raises CannotMerge, FinetuiError (merge-not-finite), OSError.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if is_whole(adapter):
        target.mkdir(parents=True, exist_ok=True)
        there = base_weights.shapes(adapter)
        dtypes = _write_weights(adapter, Learned(), target, len(there), on_share)
        _write_rest(config, dtypes, base, adapter, target)
        return
    if config.get("quantization_config") and not base_weights.is_4_bit(config):
        raise CannotMerge("the base model is quantized")
    if base_weights.is_4_bit(config) and importlib.util.find_spec("bitsandbytes") is None:
        raise CannotMerge("its 4-bit weights can be unpacked only where bitsandbytes is installed")
    learned = read_adapter(adapter)
    there = base_weights.shapes(base)
    parted = bool(learned.tables) and (HEAD not in there or bool(config.get("tie_word_embeddings")))
    if parted:  # the output layer was the embeddings; one of them has changed
        embeddings = next((name for name in there if name.endswith(EMBEDDINGS)), "")
        there = there | {HEAD: there.get(embeddings, ())}
        config = config | {"tie_word_embeddings": False}
    shapes = {name: (delta.up.shape[0], delta.down.shape[1]) for name, delta in learned.deltas.items()}
    for name, shape in (shapes | {n: tuple(t.shape) for n, t in learned.tables.items()}).items():
        if there.get(name) != shape:
            raise CannotMerge(f"the base model has no {name} of that shape")
    target.mkdir(parents=True, exist_ok=True)
    dtypes = _write_weights(base, learned, target, len(there), on_share, parted)
    _write_rest(config, dtypes, base, adapter, target)


def is_whole(folder: Path) -> bool:
    """Whether `folder` holds a whole model, as full fine-tuning leaves it, and no adapter."""
    return (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file()


def _write_rest(
    config: dict[str, Any], dtypes: list[torch.dtype], base: Path, adapter: Path, target: Path
) -> None:
    _write_config(config, dtypes, target)
    copy_tokenizer(base, adapter, target)
    for name in _OTHER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, target / name)


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
    sides: dict[str, dict[str, torch.Tensor]] = {}
    tables: dict[str, torch.Tensor] = {}
    with safe_open(str(adapter / "adapter_model.safetensors"), "pt") as file:
        for key in file.keys():
            plain = key.removeprefix(_PREFIX)
            if plain.removesuffix(".weight").rpartition(".")[2] in saved:
                tables[plain] = file.get_tensor(key).float()
                continue
            name, _, rest = plain.rpartition(".lora_")
            if rest == "magnitude_vector" and config.get("use_dora"):
                sides.setdefault(f"{name}.weight", {})["lengths"] = file.get_tensor(key).float()
                continue
            if not key.startswith(_PREFIX) or rest not in ("A.weight", "B.weight"):
                raise CannotMerge(f"the adapter holds {key}")
            sides.setdefault(f"{name}.weight", {})[rest[0]] = file.get_tensor(key).float()
    if not sides or any(len(pair) != (3 if config.get("use_dora") else 2) for pair in sides.values()):
        raise CannotMerge("the adapter is not whole")
    deltas = {n: _Delta(pair["A"], pair["B"], scale, pair.get("lengths")) for n, pair in sides.items()}
    return Learned(deltas, tables)


def _parted(read: Iterator[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """The embeddings once more as the output layer, in place of one that the files may hold besides."""
    for name, weight in read:
        if name != HEAD:
            yield name, weight
        if name.endswith(EMBEDDINGS):
            yield HEAD, weight.clone()


def _merged(base: Path, learned: Learned, parted: bool) -> Iterator[tuple[str, torch.Tensor]]:
    read = base_weights.read(base)
    for name, weight in _parted(read) if parted else read:
        if weight.dtype in (torch.float32, torch.float64):
            kept = torch.bfloat16
        elif weight.dtype in _SIXTEEN_BIT or not weight.is_floating_point():
            kept = weight.dtype
        else:
            raise CannotMerge(f"the base model's weights are {weight.dtype}")
        delta, table = learned.deltas.get(name), learned.tables.get(name)
        if delta is not None or table is not None:
            weight = weight.float() if table is None else table
            weight = weight if delta is None else weight + delta.change(weight)
            if not bool(torch.isfinite(weight).all()):
                raise FinetuiError(
                    "The trained adapter holds numbers that are none.",
                    f"{name} is infinite or NaN once merged: the training diverged.",
                    "Train again with a lower learning rate, then export.",
                    code="merge-not-finite",
                )
        yield name, weight.to(kept).contiguous()


def _write_weights(
    base: Path,
    learned: Learned,
    target: Path,
    total: int,
    on_share: Callable[[float], None],
    parted: bool = False,
) -> list[torch.dtype]:
    """Writes shards of at most SHARD_BYTES and their index. Returns the dtypes that occur, the commonest first."""
    shards: list[list[str]] = []
    pending: dict[str, torch.Tensor] = {}
    size = written = done = 0
    counts: dict[torch.dtype, int] = {}

    def flush() -> None:
        nonlocal pending, size
        save_file(pending, str(target / f"part-{len(shards):05d}.safetensors"), metadata={"format": "pt"})
        shards.append(list(pending))
        pending, size = {}, 0

    for name, tensor in _merged(base, learned, parted):
        length = tensor.numel() * tensor.element_size()
        if pending and size + length > SHARD_BYTES:
            flush()
        pending[name] = tensor
        size, written, done = size + length, written + length, done + 1
        counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
        on_share(done / total)
    flush()
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards):
        one = len(shards) == 1
        name = "model.safetensors" if one else f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (target / f"part-{number:05d}.safetensors").rename(target / name)
        weight_map |= dict.fromkeys(names, name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": written}, "weight_map": weight_map}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return sorted(counts, key=lambda dtype: -counts[dtype])


def _write_config(config: dict[str, Any], dtypes: list[torch.dtype], target: Path) -> None:
    """The base's configuration, with the dtype as it now is, unquantized, and without a pointer to code."""
    floating = next((d for d in dtypes if d.is_floating_point), torch.bfloat16)
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
