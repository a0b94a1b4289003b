"""Lines drawn in dots: a canvas of braille cells, and how points come to stand on it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from ...core.runs.series import Point
from .scale import Range

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Braille bits by row, then column, of the 2 × 4 dots of a cell (Unicode 15, section 21.1)."""


LABEL_EVERY = 16
"""A line's label stands about so many columns apart,"""
LABEL_APART = 6
"""and the one at its end not nearer than this to the one before."""


@dataclass(slots=True)
class Line:
    """Points ready to draw: sorted by x, all finite."""

    points: list[Point]
    color: str
    joined: bool = True
    marked: bool = False
    label: str = ""


@dataclass(slots=True)
class Canvas:
    """Braille dots of `width` × `height` cells. The line drawn last owns a cell: its dots and its colour."""

    width: int
    height: int
    bits: list[list[int]] = field(init=False)
    owner: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.bits = [[0] * self.width for _ in range(self.height)]
        self.owner = [[-1] * self.width for _ in range(self.height)]

    def dot(self, x: int, y: int, owner: int) -> None:
        """One dot of the line `owner`, from the left and from the top."""
        row, column = y >> 2, x >> 1
        owners, bits = self.owner[row], self.bits[row]
        if owners[column] != owner:
            owners[column] = owner
            bits[column] = 0
        bits[column] |= _DOTS[y & 3][x & 1]

    def stroke(self, x0: int, y0: int, x1: int, y1: int, owner: int) -> None:
        """A straight line of dots; at most the larger of the two distances, so O(cells) for a whole chart."""
        across, down = x1 - x0, y1 - y0
        span = max(abs(across), abs(down), 1)
        half = span // 2
        for part in range(1, span + 1):
            self.dot(x0 + (across * part + half) // span, y0 + (down * part + half) // span, owner)


def _columns(points: Sequence[Point], low: float, high: float, count: int) -> dict[int, list[Point]]:
    """First, lowest, highest and last point of each of `count` dot columns."""
    scale = (count - 1) / (high - low) if high > low else 0.0
    found: dict[int, list[Point]] = {}
    start, total = 0, len(points)
    while start < total:
        column = math.floor((points[start][0] - low) * scale + 0.5)
        end = (
            bisect_left(points, low + (column + 0.5) / scale, start + 1, key=itemgetter(0))
            if scale
            else total
        )
        held = points[start:end]
        if end - start > 4:
            least, most = min(held, key=itemgetter(1)), max(held, key=itemgetter(1))
            inner = [least, most] if least[0] <= most[0] else [most, least]
            held = [held[0], *inner, held[-1]]
        found.setdefault(column, []).extend(held)
        start = end
    return found


def draw(
    canvas: Canvas,
    line: Line,
    owner: int,
    xs: tuple[float, float],
    span: Range,
    edges: dict[tuple[int, int], int],
) -> None:
    """Put `line` on `canvas`; cells where it leaves the range at the top (0) or bottom (height − 1) go to
    `edges`."""
    tall = canvas.height * 4 - 1
    scale = tall / (span.high - span.low)
    before: tuple[int, int] | None = None
    most = canvas.width * 2
    for column, held in _columns(line.points, *xs, most).items():
        if column < 0 or column >= most:  # beyond the view: only the way there is seen
            x, value = held[-1] if column < 0 else held[0]
            inside = _at_edge(line.points, x, xs)
            if not line.joined or inside is None:
                continue
            place = round((span.high - max(span.low, min(span.high, inside))) * scale)
            at = 0 if column < 0 else most - 1
            if before is not None:
                canvas.stroke(*before, at, place, owner)
            before = (at, place)
            continue
        for _, value in held:
            place = round((span.high - max(span.low, min(span.high, value))) * scale)
            if value > span.high or value < span.low:
                edges[(0 if value > span.high else canvas.height - 1, column >> 1)] = owner
            if line.joined and before is not None:
                canvas.stroke(*before, column, place, owner)
            else:
                canvas.dot(column, place, owner)
            if line.marked:
                for across in (column & ~1, column | 1):
                    canvas.dot(across, place, owner)
                    canvas.dot(across, place + (1 if place < tall else -1), owner)
            before = (column, place)


def _at_edge(points: Sequence[Point], x: float, xs: tuple[float, float]) -> float | None:
    """The value where the line from `x`, outside, crosses the edge of the view; None where it does not enter it."""
    edge = xs[0] if x < xs[0] else xs[1]
    at = bisect_left(points, edge, key=itemgetter(0))
    if not 0 < at < len(points):
        return None
    (x0, y0), (x1, y1) = points[at - 1], points[at]
    return y0 + (y1 - y0) * ((edge - x0) / (x1 - x0)) if x1 > x0 else y1


def named_cells(canvas: Canvas, lines: Sequence[Line]) -> dict[tuple[int, int], int]:
    """The cells, as (row, column), where a line shows its label: every so often where it is in sight, and near its end.

    The lines begin at different columns, so that two which lie on each other are still both named.
    """
    found: dict[tuple[int, int], int] = {}
    named = [owner for owner, line in enumerate(lines) if line.label]
    for place, owner in enumerate(named):
        cells = {
            column: row
            for row in range(canvas.height)
            for column in range(canvas.width)
            if canvas.owner[row][column] == owner
        }
        due = LABEL_EVERY * place // len(named)
        for column in sorted(cells):
            if column >= due or (column == max(cells) and due - column <= LABEL_EVERY - LABEL_APART):
                found[cells[column], column] = owner
                due = column + LABEL_EVERY
    return found


def ascii_cell(bits: int, faint: bool) -> str:
    """The ASCII character nearest to a cell's dots: high, middle or low; `.` for raw values behind an
    average."""
    if faint:
        return "." if bits & 0xE4 else "'"
    top, bottom = bool(bits & 0x1B), bool(bits & 0xE4)
    return "*" if top and bottom else "'" if top else "."
