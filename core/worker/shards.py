"""Safetensors files written a few rows at a time: what is planned is known beforehand, so no tensor is held whole."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

INDEX: Final = "model.safetensors.index.json"
PART: Final = ".part"
"""Ends the name of a file that is not whole yet."""

_NAMES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Planned:
    """A tensor that will be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        count = self.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


Group = Sequence[Planned]
"""Tensors that are made together, and stand one after the other in this order."""


def divided(groups: Sequence[Group], most_bytes: int) -> list[list[Group]]:
    """`groups` in shards of at most `most_bytes`, or of one group that is larger. In each, those that begin with a wide type
    come first, so that every tensor begins where its type may."""
    shards: list[list[Group]] = []
    size = 0
    for group in groups:
        more = sum(tensor.bytes for tensor in group)
        if not shards or (size and size + more > most_bytes):
            shards.append([])
            size = 0
        shards[-1].append(group)
        size += more
    return [sorted(shard, key=lambda group: -group[0].dtype.itemsize) for shard in shards]


def write_all(
    folder: Path,
    groups: Sequence[Group],
    most_bytes: int,
    values: Callable[[Group], Iterator[torch.Tensor]],
    on_share: Callable[[float], None],
) -> None:
    """Writes a model's files, of at most `most_bytes` each, and their index, but for those that stand whole.

    `values` gives a group's tensors in pieces of any shape. `on_share` gets 0.0–1.0 and may raise to stop. Raises OSError.
    """
    parted = divided(groups, most_bytes)
    flat = [[tensor for group in shard for tensor in group] for shard in parted]
    total, done = sum(tensor.bytes for shard in flat for tensor in shard) or 1, 0
    for name, shard, planned in zip(names(len(parted)), parted, flat, strict=True):
        if not is_whole(folder / name, planned):

            def pieces(shard: Sequence[Group] = shard, before: int = done) -> Iterator[torch.Tensor]:
                written = before
                for group in shard:
                    for piece in values(group):
                        yield piece
                        written += piece.numel() * piece.element_size()
                        on_share(written / total)

            write(folder / name, planned, pieces())
        done += sum(tensor.bytes for tensor in planned)
        on_share(done / total)
    if len(parted) > 1:
        write_index(folder, flat)


def names(count: int) -> list[str]:
    """The names of a model's `count` files."""
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]


def _header(planned: Iterable[Planned]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in planned:
        end = at + tensor.bytes
        header[tensor.name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def is_whole(file: Path, planned: Sequence[Planned]) -> bool:
    """Whether `file` is what `write` would leave for `planned`, as far as header and length tell."""
    header = _header(planned)
    try:
        with file.open("rb") as opened:
            same = opened.read(len(header)) == header
        return same and file.stat().st_size == len(header) + sum(tensor.bytes for tensor in planned)
    except OSError:
        return False


def write(file: Path, planned: Sequence[Planned], rows: Iterator[torch.Tensor]) -> None:
    """Writes `file` from `rows`: pieces of the planned tensors, in their order. It gets its name when it is whole and on
    the disk. Raises OSError, and what `rows` raises."""
    part = file.with_name(file.name + PART)
    with part.open("wb") as opened:
        opened.write(_header(planned))
        for values in rows:
            flat = values.contiguous().view(-1)
            opened.write(flat.view(torch.uint8).numpy().data)
        opened.flush()
        os.fsync(opened.fileno())
    part.rename(file)


def write_index(folder: Path, shards: Sequence[Sequence[Planned]]) -> None:
    """The index of a model in several files. Raises OSError."""
    files = names(len(shards))
    index = {
        "metadata": {"total_size": sum(tensor.bytes for shard in shards for tensor in shard)},
        "weight_map": {
            tensor.name: file for file, shard in zip(files, shards, strict=True) for tensor in shard
        },
    }
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
