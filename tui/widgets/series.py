"""Points of one line, thinned as they arrive so that a run of any length costs the same to hold and to draw.

A million steps must neither fill the wizard's memory nor hide a spike: beyond `LIMIT` points, neighbours
share a bucket that keeps its first, lowest, highest and last point. Buckets double in width as the run grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from operator import itemgetter

LIMIT = 512
"""Buckets held at most; each keeps up to four points."""

Point = tuple[float, float]

FIRST, LOWEST, HIGHEST, LAST = range(4)


class Thinned:
    """An append-only series with bounded memory. `bad` counts values that were NaN or infinite, `total` the
    good ones."""

    __slots__ = ("_buckets", "_cache", "_width", "bad", "last", "total")

    def __init__(self) -> None:
        self._width = 0.0
        self._buckets: dict[float, list[Point]] = {}
        self._cache: list[Point] | None = None
        self.bad = 0
        self.total = 0
        self.last: float | None = None

    @property
    def thinned(self) -> bool:
        """Whether some points have been left out (never an extreme one)."""
        return self._width > 0

    def append(self, x: float, y: float) -> None:
        """Add one point; `x` may come in any order. A value that is not finite is counted, not kept."""
        self.extend(((x, y),))

    def extend(self, points: Iterable[Point]) -> None:
        """Add many points."""
        isfinite, floor = math.isfinite, math.floor
        self._cache = None
        for point in points:
            x, y = point
            if not (isfinite(x) and isfinite(y)):
                self.bad += 1
                continue
            self.total += 1
            self.last = y
            held = self._buckets.get(floor(x / self._width) if self._width else x)
            if held is None:
                self._buckets[floor(x / self._width) if self._width else x] = [point, point, point, point]
                if len(self._buckets) > LIMIT:
                    self._fold()
                continue
            if x >= held[LAST][0]:
                held[LAST] = point
            elif x < held[FIRST][0]:
                held[FIRST] = point
            if y < held[LOWEST][1]:
                held[LOWEST] = point
            elif y > held[HIGHEST][1]:
                held[HIGHEST] = point

    def points(self) -> list[Point]:
        """The points kept, by x; at most four times `LIMIT`. Do not change the list."""
        if self._cache is None:
            self._cache = sorted(
                {point for bucket in self._buckets.values() for point in bucket}, key=itemgetter(0)
            )
        return self._cache

    def _fold(self) -> None:
        """Halve the number of buckets."""
        if self._width:
            self._width *= 2
        else:
            self._width = (max(self._buckets) - min(self._buckets)) / (LIMIT // 2)
        buckets: dict[float, list[Point]] = {}
        for bucket in self._buckets.values():
            key = math.floor(bucket[FIRST][0] / self._width)
            held = buckets.get(key)
            if held is None:
                buckets[key] = bucket
            else:
                buckets[key] = [
                    min(held[FIRST], bucket[FIRST], key=itemgetter(0)),
                    min(held[LOWEST], bucket[LOWEST], key=itemgetter(1)),
                    max(held[HIGHEST], bucket[HIGHEST], key=itemgetter(1)),
                    max(held[LAST], bucket[LAST], key=itemgetter(0)),
                ]
        self._buckets = buckets
        if len(buckets) > LIMIT // 2 + LIMIT // 4 + 2:
            self._fold()


class Smoothed:
    """Exponential moving average without the bias of its start, as in Adam (arXiv 1412.6980, section 3)."""

    __slots__ = ("_mean", "_weight", "keep")

    def __init__(self, keep: float = 0.9) -> None:
        """`keep` in [0, 1) is the share of the past in each new value."""
        self.keep = keep
        self._mean = 0.0
        self._weight = 0.0

    def add(self, value: float) -> float:
        """The average after `value`; a value that is not finite leaves it unchanged and gives NaN."""
        if not math.isfinite(value):
            return math.nan
        self._mean = self.keep * self._mean + (1 - self.keep) * value
        self._weight = self.keep * self._weight + (1 - self.keep)
        return self._mean / self._weight
