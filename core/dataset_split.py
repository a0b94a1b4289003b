"""Which rows are held out, sampled and copies: decided by hashes of what rows say, alike in every process."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable

from .conversation import Turns
from .dataset_messages import Said
from .recipe import DatasetSection

_MASK = (1 << 64) - 1


def question_key(turns: Turns | Iterable[Said]) -> int:
    """64 bits of what is asked: all user turns (or plain writing), their case and white space aside.

    Rows of the same key stand on the same side of the evaluation split.
    """
    asked = [turn.text for turn in turns if turn.role == "user" or turn.role == "text"]
    text = asked[0] if len(asked) == 1 else "\n\0".join(asked)
    said = " ".join(text.lower().split()).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little")


def content_key(turns: Turns | Iterable[Said]) -> int:
    """64 bits of all that a row says, exactly. Rows of the same key are copies. Holds within one process only."""
    return hash(tuple([(t.role, t.text, t.reasoning, t.calls) for t in turns])) & _MASK


def mixed(key: int, seed: int) -> int:
    """`key` shuffled by `seed`: splitmix64 (Steele et al., 2014), a bijection that scatters neighbours."""
    z = (key + (seed + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def held_out_rows(rows: int, section: DatasetSection) -> int:
    """How many of `rows` usable rows are held out for evaluation where no two ask the same: the share, rounded, and at
    least one where a share is asked for; at least one row stays to train on. None is taken where the section names
    held-out rows of their own."""
    if section.evaluation_source or section.evaluation_split or section.evaluation_share == 0 or rows < 2:
        return 0
    return min(rows - 1, max(1, round(rows * section.evaluation_share)))


def held_out_keys(keys: array[int] | list[int], section: DatasetSection, seed: int) -> set[int]:
    """The question keys that are held out, of `keys` (one for each row): whole groups, in an order that the seed gives,
    until the share is reached as nearly as they allow. A row always stays to train on."""
    wanted = held_out_rows(len(keys), section)
    if not wanted:
        return set()
    counts = Counter(keys)
    if len(counts) < 2:
        return set()
    chosen: set[int] = set()
    held = 0
    order = sorted(counts, key=lambda key: mixed(key, seed))
    for key in order:
        if held + counts[key] <= wanted:
            chosen.add(key)
            held += counts[key]
            if held == wanted:
                break
    if not chosen:
        chosen.add(min(order, key=lambda key: counts[key]))  # min keeps the seed's order among equals
    return chosen


def sampled(hashes: array[int], count: int) -> int:
    """The threshold under or at which the `count` smallest of `hashes` lie; −1 for none."""
    if count >= len(hashes):
        return _MASK
    return sorted(hashes)[count - 1] if count else -1
