"""What becomes of each row, decided in a pass of its own where that needs to know all rows: a fair sample, sides to join in."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from .dataset_split import mixed, sampled

if TYPE_CHECKING:
    from .dataset_inputs import Input

UNUSABLE = 255
COPY = 254
UNCHOSEN = 253
"""Codes beside the number of times that a row is taken (0 to 101)."""


class Plan:
    """One code a row read, in order, and the question key of each row taken."""

    def __init__(self) -> None:
        self.take = bytearray()
        self.keys = array("Q")

    def add(self, code: int, key: int = 0) -> None:
        self.take.append(code)
        for _ in range(code if code < UNCHOSEN else 0):
            self.keys.append(key)

    def limit(self, count: int, seed: int) -> None:
        """Leaves `count` of the rows taken, each as likely as any other."""
        if count >= len(self.keys):
            return
        hashes = array("Q", (mixed(i, seed ^ 0x5EED) for i in range(len(self.keys))))
        threshold = sampled(hashes, count)
        keys = array("Q")
        unit = 0
        for at, code in enumerate(self.take):
            if code >= UNCHOSEN or code == 0:
                continue
            left = 0
            for _ in range(code):
                if hashes[unit] <= threshold:
                    left += 1
                    keys.append(self.keys[unit])
                unit += 1
            self.take[at] = left or UNCHOSEN
        self.keys = keys


def copies_of(entry: Input, seed: int, number: int) -> int:
    """How many times a row of `entry` is taken: its weight, the fraction decided by the seed and the row's number."""
    whole = int(entry.weight)
    rest = entry.weight - whole
    return whole + (rest > 0 and mixed(number + (entry.index << 40), seed) < rest * 2**64)
