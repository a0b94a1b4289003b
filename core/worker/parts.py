"""A batch divided into parts of fewer rows, whether it is padded or its rows lie end to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Batch = dict[str, Any]

_BY_ROW = ("seq_lengths", "packed_seq_lengths")


def divided(batch: Mapping[str, Any], rows: int, full: int) -> list[Batch]:
    """`batch` in parts of at most `rows` of the `full` rows (packed: sequences) that the trainer puts into a batch.

    A padded part is cut to its own longest row. Where rows lie end to end in one, as packing and padding-free batches
    have them, it is cut between rows; the parts of a packed batch hold about equally many tokens. Nothing is copied.
    """
    ids = batch["input_ids"]
    if rows >= full:
        return [dict(batch)]
    starts = _starts(batch)
    if starts is None:
        return [_rows(batch, at, min(at + rows, len(ids))) for at in range(0, len(ids), rows)]
    if len(starts) <= full:
        cuts = starts[::rows]
    else:
        cuts = _even(starts, int(ids.shape[1]), -(-full // rows))
    ends = [*cuts[1:], int(ids.shape[1])]
    return [_span(batch, begin, end, starts) for begin, end in zip(cuts, ends, strict=True)]


def _starts(batch: Mapping[str, Any]) -> list[int] | None:
    """Where rows begin in a batch that is one line of tokens; None for a padded one."""
    ids, positions = batch["input_ids"], batch.get("position_ids")
    if positions is None or ids.shape[0] != 1:
        return None
    begins = (positions[0] == 0).nonzero().flatten().tolist()
    return [int(at) for at in begins] if begins and begins[0] == 0 else None


def _even(starts: list[int], tokens: int, count: int) -> list[int]:
    """At most `count` of `starts`, the first one included, about evenly far apart."""
    cuts = [0]
    for number in range(1, count):
        wanted = number * tokens / count
        nearest = min(starts, key=lambda at: abs(at - wanted))
        if nearest > cuts[-1]:
            cuts.append(nearest)
    return cuts


def _rows(batch: Mapping[str, Any], begin: int, end: int) -> Batch:
    whole, length = batch["input_ids"].shape
    mask = batch.get("attention_mask")
    first, last = 0, int(length)
    if mask is not None and mask.dim() == 2:
        used = mask[begin:end].any(dim=0).nonzero().flatten()
        if len(used):
            first, last = int(used[0]), int(used[-1]) + 1
    part: Batch = {}
    for name, value in batch.items():
        if not hasattr(value, "shape") or value.dim() == 0 or value.shape[0] != whole:
            part[name] = value
        elif value.dim() >= 2 and value.shape[1] == length:
            part[name] = value[begin:end, first:last]
        else:
            part[name] = value[begin:end]
    return part


def _span(batch: Mapping[str, Any], begin: int, end: int, starts: list[int]) -> Batch:
    length = batch["input_ids"].shape[1]
    inside = [index for index, at in enumerate(starts) if begin <= at < end]
    part: Batch = {}
    for name, value in batch.items():
        if name in _BY_ROW and hasattr(value, "shape") and value.numel() == len(starts):
            part[name] = value.flatten()[inside[0] : inside[-1] + 1]
        elif hasattr(value, "shape") and value.dim() >= 2 and value.shape[1] == length:
            part[name] = value[:, begin:end]
        else:
            part[name] = value
    return part
