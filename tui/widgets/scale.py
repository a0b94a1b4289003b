"""Axes: the range to show, round ticks on it, and numbers short enough to stand beside them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

CLIP_SHARE = 0.05
"""Points beyond the range are left out of it only while they are at most this share of all points."""


@dataclass(frozen=True, slots=True)
class Range:
    """The y range that is drawn, and how many points lie beyond it."""

    low: float
    high: float
    above: int = 0
    below: int = 0


def nice_step(span: float, most: int) -> float:
    """The least of 1, 2, 5 × 10ⁿ that divides `span` (> 0) into at most `most` (≥ 1) parts."""
    raw = span / max(1, most)
    power = 10.0 ** math.floor(math.log10(raw))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= raw * (1 - 1e-9)), 10 * power)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, rising, at most `most` + 1 of them."""
    step = nice_step(high - low, most)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [index * step for index in range(first, last + 1)]


def number(value: float, step: float | None = None) -> str:
    """`value` in as few characters as tell it from its neighbours `step` away: `0.38`, `2.5`, `6e-5`, `12K`.

    Without `step`: three significant digits.
    """
    if abs(value) < 1e-290 or (step and abs(value) < step * 1e-6):
        return "0"
    size = abs(value)
    if step is None:
        step = 10.0 ** (math.floor(math.log10(size)) - 2)
    least = min(size, step) if size < 1 else step
    if size >= 1e6 or (size < 1 and least < 1e-4 and size < 1e-2):
        digits = max(0, min(8, math.floor(math.log10(size)) - math.floor(math.log10(step) + 1e-9)))
        mantissa, exponent = f"{value:.{digits}e}".split("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}"
    if size >= 10_000 and step >= 100:
        return f"{value / 1000:.{0 if step >= 1000 else 1}f}K"
    digits = max(0, min(9, -math.floor(math.log10(step) + 1e-9)))
    return f"{value:.{digits}f}"


def robust_range(values: Sequence[float]) -> Range:
    """The y range of `values` (finite, at least one), without a few that dwarf the rest.

    Values further than three times the spread of the middle 80 % from it are left out when they are few, so
    that an untrained model's first losses do not flatten the curve; they are counted. A constant gets room
    around it.
    """
    ordered = sorted(values)
    count = len(ordered)
    low, high, above, below = ordered[0], ordered[-1], 0, 0
    if count >= 12:
        tenth, ninetieth = ordered[count // 10], ordered[-1 - count // 10]
        reach = 3 * (ninetieth - tenth)
        if reach > 0:
            over = count - bisect_left(ordered, math.nextafter(ninetieth + reach, math.inf))
            under = bisect_left(ordered, tenth - reach)
            allowed = max(3, int(count * CLIP_SHARE))
            if 0 < over <= allowed and high - ninetieth > 1.5 * reach:
                above, high = over, ordered[count - over - 1]
            if 0 < under <= allowed and tenth - low > 1.5 * reach:
                below, low = under, ordered[under]
    return Range(low, high, above, below)


def framed(found: Range, rows: int) -> tuple[Range, list[float]]:
    """`found` widened to round numbers, and the ticks that a plot of `rows` rows carries."""
    # Outside 1e±290 a difference or a quotient of two values would overflow.
    low, high = (max(-1e290, min(1e290, value)) for value in (found.low, found.high))
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, 1e-290):
        room = size * 0.1 if size > 1e-280 else 1.0
        low, high = low - room, high + room
    elif low > 0 and low < 0.35 * high and not found.below:
        low = 0.0
    most = max(1, min(6, (rows + 1) // 3))
    step = nice_step(high - low, most)
    for part in (step / 5, step / 2, step):
        bottom, top = math.floor(low / part + 1e-9) * part, math.ceil(high / part - 1e-9) * part
        marks = ticks(bottom, top, most)
        if len(marks) > 1:
            break
    return Range(bottom, top, found.above, found.below), marks


def log_framed(found: Range, rows: int) -> tuple[Range, list[float]]:
    """`found`, in powers of ten, widened to numbers that begin with 1, 2 or 5, and the ticks (powers, too) that fit."""
    low, high = found.low, found.high
    if high - low < 0.05:
        low, high = low - 0.03, high + 0.03
    fine = [
        math.log10(factor) + power
        for power in range(math.floor(low) - 1, math.ceil(high) + 1)
        for factor in (1, 2, 5)
    ]
    marks = [mark for mark in fine if low - 1e-9 <= mark <= high + 1e-9]
    most = max(2, min(6, (rows + 1) // 3))
    if len(marks) < 2:  # less than between two of them: round numbers on the bent axis
        marks = [math.log10(value) for value in ticks(10**low, 10**high, most) if value > 0]
    elif len(marks) > most:
        whole = [mark for mark in marks if abs(mark - round(mark)) < 1e-9]
        marks = whole if len(whole) > 1 else marks
        marks = marks[:: math.ceil(len(marks) / most)]
    return Range(min([low, *marks]), max([high, *marks]), found.above, found.below), marks
