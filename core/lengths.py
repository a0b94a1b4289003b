"""How long the rows of a dataset are, in tokens: what time, padding and packing follow from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

from .dataset_ledger import Ledger

_SPREAD = 0.6
"""Of the logarithm of a row's length, where only the mean is known: chats and instructions lie between 0.4 and 0.9."""

_SLICES = 24
_PACKED_SHARE = 0.97
"""How full packed sequences get where rows are short (best fit, longest first)."""


@dataclass(frozen=True)
class Lengths:
    """The lengths of the training rows as the trainer gets them, cut at the sequence length.

    `points` are (tokens, share of the rows) by rising length; the shares add up to 1. `measured` tells rows that were all
    read from a guess.
    """

    points: tuple[tuple[float, float], ...]
    longest: int
    rows: int | None = None
    evaluation_rows: int = 0
    measured: bool = False

    @cached_property
    def mean(self) -> float:
        """Tokens of a row on average."""
        return sum(tokens * share for tokens, share in self.points)

    @property
    def uniform(self) -> bool:
        """Whether all rows are about as long as the longest."""
        return self.mean > 0.97 * self.longest

    def padded(self, batch: int) -> float:
        """The expected length of the longest of `batch` rows drawn at random: what each row of the batch is padded to."""
        expected = below = 0.0
        for tokens, share in self.points:
            upto = min(1.0, below + share)
            expected += tokens * (upto**batch - below**batch)
            below = upto
        return expected if below > 0 else float(self.longest)

    def rows_per_sequence(self, max_length: int) -> float:
        """How many rows one packed sequence of `max_length` tokens holds on average; at least 1.

        Two rows that are each longer than half of the sequence never share one.
        """
        alone = sum(share for tokens, share in self.points if tokens > max_length / 2)
        filled = self.mean / (max_length * _PACKED_SHARE)
        return 1 / max(alone, min(filled, 1.0), 1e-6)

    @classmethod
    def full(cls, max_length: int, rows: int | None = None, evaluation_rows: int = 0) -> Lengths:
        """Rows that all fill the sequence length: what is safe to assume where nothing is known."""
        return cls(((float(max_length), 1.0),), max_length, rows, evaluation_rows)

    @classmethod
    def about(
        cls, mean: float, max_length: int, rows: int | None = None, evaluation_rows: int = 0
    ) -> Lengths:
        """Rows of `mean` tokens on average, of which no more is known: lognormal, some as long as the sequence."""
        middle = math.log(max(mean, 1.0)) - _SPREAD**2 / 2
        normal = NormalDist(middle, _SPREAD)
        tokens = [math.exp(normal.inv_cdf((i + 0.5) / _SLICES)) for i in range(_SLICES)]
        points = tuple((min(t, float(max_length)), 1 / _SLICES) for t in tokens)
        return cls(points, max_length, rows, evaluation_rows)

    @classmethod
    def from_ledger(cls, ledger: Ledger, max_length: int) -> Lengths:
        """The lengths that an inspection counted, as they are when cut at `max_length`. The bins of the ledger's histogram
        are shifted so that the mean is exact where the ledger was made for the same length."""
        counted = sum(ledger.histogram.counts)
        longest = max(1, min(max_length, ledger.quantiles.most or max_length))
        rows = ledger.train_rows
        if not counted or not rows:
            return cls.full(longest, rows, ledger.evaluation_rows)
        edges = ledger.histogram.edges
        middles = [min((low + high) / 2, float(longest)) for low, high in zip(edges, edges[1:], strict=False)]
        points = [(m, n / counted) for m, n in zip(middles, ledger.histogram.counts, strict=False) if n]
        if ledger.max_length == max_length and ledger.tokens:
            mean = sum(tokens * share for tokens, share in points)
            factor = ledger.tokens / rows / mean
            points = [(min(tokens * factor, float(longest)), share) for tokens, share in points]
        return cls(tuple(points), longest, rows, ledger.evaluation_rows, measured=True)
