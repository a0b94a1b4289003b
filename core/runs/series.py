"""Points of one line, thinned as they arrive so that a run of any length costs the same to hold and to draw.

A million steps must neither fill the wizard's memory nor hide a spike: beyond a limit, neighbours share a bucket that keeps
its first, lowest, highest and last point. Buckets double in width as the run grows.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from operator import itemgetter

LIMIT = 512
"""Buckets that a `Thinned` holds at most; each keeps up to four points."""
FINE = 2048
"""The newest points of a `Pyramid` that are kept as they came: between so many and twice as many."""
COARSE = 4096
"""Buckets of a `Pyramid` for all that is older."""

Point = tuple[float, float]

FIRST, LOWEST, HIGHEST, LAST = range(4)


class Thinned:
    """An append-only series with bounded memory. `bad` counts values that were NaN or infinite, `total` the
    good ones."""

    __slots__ = ("_buckets", "_cache", "_limit", "_width", "bad", "last", "total")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
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
                if len(self._buckets) > self._limit:
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
        """The points kept, by x; at most four times the limit. Do not change the list."""
        if self._cache is None:
            self._cache = sorted(
                {point for bucket in self._buckets.values() for point in bucket}, key=itemgetter(0)
            )
        return self._cache

    def cut(self, x: float) -> None:
        """Forget the points at `x` and after it. Of the bucket that `x` parts, what it kept before `x` stays."""
        self._cache = None
        kept: dict[float, list[Point]] = {}
        for key, bucket in self._buckets.items():
            before = [point for point in bucket if point[0] < x]
            if before:
                kept[key] = [
                    before[0],
                    min(before, key=itemgetter(1)),
                    max(before, key=itemgetter(1)),
                    max(before, key=itemgetter(0)),
                ]
        self._buckets = kept

    def _fold(self) -> None:
        """Halve the number of buckets."""
        if self._width:
            self._width *= 2
        else:
            self._width = (max(self._buckets) - min(self._buckets)) / (self._limit // 2)
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
        if len(buckets) > self._limit // 2 + self._limit // 4 + 2:
            self._fold()


def reduced(points: Sequence[Point], low: float, high: float, count: int) -> list[Point]:
    """Of `points` (by x) those from `low` to `high`, and one beyond either end: of each of `count` equal columns the
    first, lowest, highest and last. Where there are no more than four in a column, all of them."""
    start = max(0, bisect_left(points, low, key=itemgetter(0)) - 1)
    end = min(len(points), bisect_right(points, high, key=itemgetter(0)) + 1)
    if end - start <= 4 * count or not high > low:
        return list(points[start:end])
    found: list[Point] = []
    wide = (high - low) / count
    at = start
    while at < end:
        column = math.floor((points[at][0] - low) / wide)
        until = bisect_left(points, low + (column + 1) * wide, at + 1, end, key=itemgetter(0))
        if until - at <= 4:
            found += points[at:until]
        else:
            held = points[at:until]
            least, most = min(held, key=itemgetter(1)), max(held, key=itemgetter(1))
            inner = (least, most) if least[0] <= most[0] else (most, least)
            found += dict.fromkeys((held[0], *inner, held[-1]))
        at = until
    return found


class Pyramid:
    """One line of a run of any length: the newest points whole, the older ones in buckets that keep their extremes.

    x rises; `cut` takes back what a resume does again. `bad` counts values that were NaN or infinite. `view` gives what a
    drawing of some columns needs, at a cost that follows the columns and not the run.
    """

    __slots__ = ("_bad_at", "_fine", "_old", "_seen", "bad", "last", "low", "total")

    def __init__(self) -> None:
        self._fine: list[Point] = []
        self._old = Thinned(COARSE)
        self._bad_at: deque[float] = deque(maxlen=FINE)
        self._seen: tuple[tuple[object, ...], list[Point]] | None = None
        self.bad = 0
        self.total = 0
        self.last: float | None = None
        self.low: Point | None = None
        """The lowest point so far; not known any more once a cut took it back."""

    def add(self, x: float, y: float) -> None:
        """Add one point; its `x` is greater than those before."""
        if not math.isfinite(y):
            self.bad += 1
            self._bad_at.append(x)
            return
        self.total += 1
        self.last = y
        fine = self._fine
        fine.append((x, y))
        if self.low is None or y < self.low[1]:
            self.low = (x, y)
        if len(fine) >= 2 * FINE:
            self._old.extend(fine[:FINE])
            del fine[:FINE]
            self._seen = None

    def cut(self, x: float) -> None:
        """Forget the points at `x` and after it."""
        fine = self._fine
        if fine and fine[0][0] < x:
            del fine[bisect_left(fine, x, key=itemgetter(0)) :]
        else:
            fine.clear()
            self._old.cut(x)
        while self._bad_at and self._bad_at[-1] >= x:
            self._bad_at.pop()
            self.bad -= 1
        self._seen = None
        held = self.points()
        self.last = held[-1][1] if held else None
        self.low = min(held, key=itemgetter(1)) if held else None

    @property
    def thinned(self) -> bool:
        """Whether some points have been left out (never an extreme one)."""
        return self._old.thinned

    @property
    def first_x(self) -> float | None:
        """Where the line begins."""
        old = self._old.points()
        return old[0][0] if old else self._fine[0][0] if self._fine else None

    @property
    def last_x(self) -> float | None:
        """Where the line ends."""
        return self._fine[-1][0] if self._fine else self._old.points()[-1][0] if self._old.points() else None

    def recent(self, count: int) -> list[Point]:
        """The newest points as they came, `count` of them at most (and never more than are kept whole)."""
        return self._fine[-count:] if count > 0 else []

    def points(self) -> list[Point]:
        """Every point that is kept, by x."""
        return [*self._old.points(), *self._fine]

    def view(self, low: float, high: float, columns: int) -> list[Point]:
        """What a drawing of x from `low` to `high` in so many columns needs: at most four points of each, the
        extremes always among them, and one point beyond either end."""
        fine = self._fine
        old = self._old.points()
        if not old:
            return reduced(fine, low, high, columns)
        key = (low, high, columns)
        if self._seen is None or self._seen[0] != key:
            self._seen = (key, reduced(old, low, high, columns))
        held = self._seen[1]
        if not fine or high < fine[0][0]:
            return [*held, *fine[:1]] if fine and held and held[-1][0] <= high else held
        newer = reduced(fine, low, high, columns)
        return [*held, *newer] if low <= fine[0][0] else newer


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
