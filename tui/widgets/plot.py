"""The chart as pure functions: numbers in, lines of styled text out. No application is needed to draw or to
test one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Literal

from rich.cells import cell_len
from textual.content import Content

from ...core.runs.series import Point, Smoothed
from ..theme import Glyphs, glyphs
from .canvas import Canvas, Line, ascii_cell, draw, named_cells
from .scale import Range, framed, log_framed, number, robust_range
from .text import clip, literal, run_length

Style = Literal["raw", "smoothed", "points"]
Run = tuple[str, str]

QUIET = "$text-disabled"
LABEL = "$text-muted"
GRID = "$secondary-muted"
TROUBLE = "$error"


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart.

    `style`: `raw` joins every point; `smoothed` shows the points faintly and their moving average over them;
    `points` marks each point and joins them faintly. `color` and `faint` are theme variables. `xs` and `ys`
    are as long as each other. `last` is the value for the legend (else the last finite y). `bad` adds to the
    count of values that are not finite, and `average` gives the smoothed points where the caller has them
    already. `label` is a letter that stands on the line, for lines that differ in their colour alone.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: str = "$accent"
    style: Style = "raw"
    faint: str = "$accent-muted"
    last: float | None = None
    bad: int = 0
    average: Sequence[Point] | None = None
    thinned: bool = False
    label: str = ""


def plain_words(value: float) -> str:
    """A place on the x axis in words."""
    return _whole(value)


@dataclass(frozen=True, slots=True)
class View:
    """What of a chart is shown, and how.

    `left` and `right` bound the x axis where they are given. `log`: the y axis counts in powers of ten. `cursor` is a place
    on the x axis with a line through it, `best` a point that is marked. `words` tells a place on the x axis.
    """

    left: float | None = None
    right: float | None = None
    log: bool = False
    cursor: float | None = None
    best: Point | None = None
    words: Callable[[float], str] = plain_words


def _finite(series: Series) -> tuple[list[Point], int]:
    """The good points of `series` by x, and how many were not."""
    pairs = good = list(zip(series.xs, series.ys, strict=True))
    if not (all(map(math.isfinite, series.xs)) and all(map(math.isfinite, series.ys))):
        good = [pair for pair in pairs if math.isfinite(pair[0]) and math.isfinite(pair[1])]
    good.sort(key=itemgetter(0))
    return good, series.bad + len(pairs) - len(good)


def _lines(series: Sequence[Series]) -> tuple[list[Line], dict[str, int]]:
    lines: list[Line] = []
    bad: dict[str, int] = {}
    for one in series:
        points, wrong = _finite(one)
        bad[one.name] = wrong
        if one.style == "smoothed":
            lines.insert(0, Line(points, one.faint, joined=len(points) < 3))
            average = one.average
            if average is None:
                smoothed = Smoothed()
                average = [(x, smoothed.add(y)) for x, y in points]
            lines.append(Line(list(average), one.color))
        elif one.style == "points":
            lines.insert(0, Line(points, one.faint))
            lines.append(Line(points, one.color, joined=False, marked=True))
        else:
            lines.append(Line(points, one.color, label=one.label))
    return lines, bad


def _legend(
    title: str,
    series: Sequence[Series],
    notes: Sequence[tuple[str, str]],
    bad: int,
    span: Range | None,
    thinned: bool,
    width: int,
    marks: Glyphs,
) -> list[Run]:
    """The first line: title, each series with its last value, what was left out, notes; cut by importance to
    `width`."""
    groups: list[tuple[int, list[Run]]] = []
    if title:
        groups.append((3, [(literal(title), "bold $accent")]))
    for one in series:
        finite = (y for y in reversed(one.ys) if math.isfinite(y))
        last = one.last if one.last is not None and math.isfinite(one.last) else next(finite, None)
        value = marks.dash if last is None else number(last)
        groups.append(
            (
                1,
                [
                    (literal(one.name) + " ", LABEL),
                    ((marks.point if one.style == "points" else marks.line) + " ", one.color),
                    (value, f"bold {one.color}"),
                ],
            )
        )
    if bad:
        groups.append((0, [(f"{marks.warn} {bad} NaN", f"bold {TROUBLE}")]))
    if span is not None:
        more = "+" if thinned else ""
        for count, word, mark in ((span.above, "above", marks.above), (span.below, "below", marks.below)):
            if count:
                groups.append((2, [(f"{mark} {count}{more} {word}", LABEL)]))
    groups.extend((4, [(f"{literal(name)} ", QUIET), (literal(value), LABEL)]) for name, value in notes)
    gap = 3
    while len(groups) > 1 and sum(run_length(runs) for _, runs in groups) + gap * (len(groups) - 1) > width:
        if gap > 2:
            gap = 2
            continue
        worst = max(range(len(groups)), key=lambda index: (groups[index][0], index))
        del groups[worst]
    line: list[Run] = []
    for _, runs in groups:
        if line:
            line.append((" " * gap, ""))
        line.extend(runs)
    if run_length(line) > width:
        plain = "".join(text for text, _ in line)
        return [(clip(plain, width), LABEL)]
    return line


def _row(
    canvas: Canvas,
    row: int,
    lines: Sequence[Line],
    arrows: dict[int, int],
    grid: bool,
    marks: Glyphs,
    named: dict[tuple[int, int], int],
    upright: int = -1,
    best: int = -1,
) -> list[Run]:
    runs: list[Run] = []
    for column in range(canvas.width):
        owner = canvas.owner[row][column]
        if column == best:
            mark, style = best_mark(marks), "bold $success"
        elif column == upright and (owner < 0 or not marks.unicode or column in arrows):
            mark, style = marks.axis, "bold $foreground"
        elif column == upright:
            mark, style = chr(0x2800 + canvas.bits[row][column]), "bold $foreground"
        elif column in arrows:
            mark, style = (marks.above if row == 0 else marks.below), lines[arrows[column]].color
        elif (row, column) in named:
            mark, style = lines[owner].label, f"bold {lines[owner].color}"
        elif owner < 0:
            mark, style = (marks.grid, GRID) if grid else (" ", "")
        elif marks.unicode:
            mark, style = chr(0x2800 + canvas.bits[row][column]), lines[owner].color
        else:
            faint = not lines[owner].joined and not lines[owner].marked
            mark = "o" if lines[owner].marked else ascii_cell(canvas.bits[row][column], faint)
            style = lines[owner].color
        if runs and runs[-1][1] == style:
            runs[-1] = (runs[-1][0] + mark, style)
        else:
            runs.append((mark, style))
    return runs


def best_mark(marks: Glyphs) -> str:
    """What marks the best point."""
    return "◆" if marks.unicode else "#"


def _axis_labels(
    low: float, high: float, unit: str, margin: int, width: int, words: Callable[[float], str]
) -> list[Run]:
    """The line under the x axis: its ends and, between them, the unit's name where there is room."""
    first, last = words(low), words(high)
    room = width - cell_len(first) - cell_len(last)
    if room < 1:
        return [(" " * margin, ""), (clip(last, width).rjust(width), QUIET)]
    middle = literal(unit)
    if cell_len(middle) + 4 > room:
        return [(" " * margin + first + " " * room + last, QUIET)]
    before = max(1, width // 2 - cell_len(first) - cell_len(middle) // 2)
    after = room - before - cell_len(middle)
    if after < 1:
        before, after = (
            (room - cell_len(middle)) // 2,
            room - cell_len(middle) - (room - cell_len(middle)) // 2,
        )
    return [(" " * margin + first + " " * before + middle + " " * after + last, QUIET)]


def _whole(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e9 else number(value)


def render_chart(
    series: Sequence[Series],
    width: int,
    height: int,
    *,
    title: str = "",
    unit: str = "step",
    x_max: float | None = None,
    notes: Sequence[tuple[str, str]] = (),
    empty: str = "waiting for the first step",
    view: View | None = None,
) -> list[Content]:
    """`height` lines of exactly `width` cells: a legend, the plot with its y axis, the x axis and its labels.

    `x_max` fixes the right end (the planned last step); a line that passes it widens the axis. `notes` are
    further (name, value) pairs of the legend, `view` zooms, marks and bends. Under 5 rows the x labels, the x axis and the legend go, in
    this order. Text is literal. Cost: O(points) to sort them into columns, O(cells) to draw.
    """
    marks = glyphs()
    if width < 1 or height < 1:
        return []
    view = view or View()
    series, hidden = _bent(series) if view.log else (series, 0)
    lines, bad_by_name = _lines(series)
    bad = sum(bad_by_name.values())
    thinned = any(one.thinned for one in series)
    with_labels, with_floor, with_legend = height >= 5, height >= 4, height >= 3
    rows = height - with_labels - with_floor - with_legend
    starts = [line.points[0][0] for line in lines if line.points]
    ends = [line.points[-1][0] for line in lines if line.points]
    left, right = 0.0, 1.0
    if starts:
        left = view.left if view.left is not None else min(0.0, *starts)
        planned = x_max if x_max is not None and math.isfinite(x_max) else ends[0]
        right = view.right if view.right is not None else max(*ends, planned, left)
        if right <= left:
            right = left + 1.0
    values = [value for line in lines for x, value in line.points if left <= x <= right]
    legend_of = partial(_legend, title, _unbent(series) if view.log else series, notes, bad)
    if not values:
        legend = legend_of(None, thinned, width, marks)
        words = empty if not starts else "nothing here; 0 shows all"
        return _empty(legend if with_legend else [], words, width, height)

    if view.log:
        span, labels = log_framed(robust_range(values), rows)
        span = Range(span.low, span.high, span.above, span.below + hidden)
        texts = [number(10**value) for value in labels]
    else:
        span, labels = framed(robust_range(values), rows)
        step = labels[1] - labels[0] if len(labels) > 1 else None
        texts = [number(value, step) for value in labels]
    legend = legend_of(span, thinned, width, marks)
    margin = max((len(text) for text in texts), default=0) + 2
    if width - margin < 8:
        texts, margin = [], 1
    canvas = Canvas(width - margin, rows)
    edges: dict[tuple[int, int], int] = {}
    for owner, line in enumerate(lines):
        draw(canvas, line, owner, (left, right), span, edges)
    named = named_cells(canvas, lines)

    at_row: dict[int, str] = {}
    for value, text in zip(labels, texts, strict=False):
        at_row[round((span.high - value) / (span.high - span.low) * (rows * 4 - 1)) >> 2] = text
    upright = best_column = best_row = -1
    scale_x = (canvas.width * 2 - 1) / (right - left)
    if view.cursor is not None and left <= view.cursor <= right:
        upright = int((view.cursor - left) * scale_x + 0.5) >> 1
    if view.best is not None and left <= view.best[0] <= right and (not view.log or view.best[1] > 0):
        value = math.log10(view.best[1]) if view.log else view.best[1]
        value = max(span.low, min(span.high, value))
        best_column = int((view.best[0] - left) * scale_x + 0.5) >> 1
        best_row = round((span.high - value) / (span.high - span.low) * (rows * 4 - 1)) >> 2
    found: list[Content] = [_line(legend, width)] if with_legend else []
    for row in range(rows):
        text = at_row.get(row)
        label = f"{text or '':>{margin - 2}} " if margin > 1 else ""
        arrows = {column: owner for (edge, column), owner in edges.items() if edge == row}
        bar = marks.tick if text is not None else marks.axis
        best = best_column if row == best_row else -1
        runs = _row(canvas, row, lines, arrows, text is not None, marks, named, upright, best)
        found.append(_line([(label, LABEL), (bar, QUIET), *runs], width))
    if with_floor:
        found.append(
            _line([(" " * (margin - 1) + marks.corner + marks.floor * (width - margin), QUIET)], width)
        )
    if with_labels:
        found.append(_line(_axis_labels(left, right, unit, margin, width - margin, view.words), width))
    return found


def _bent(series: Sequence[Series]) -> tuple[list[Series], int]:
    """`series` with the logarithms of their values, and how many had none."""
    hidden = 0
    found: list[Series] = []
    for one in series:
        points = [
            (x, math.log10(y) if math.isfinite(y) and y > 0 else y)
            for x, y in zip(one.xs, one.ys, strict=True)
        ]
        kept = [
            (x, new) for (x, new), y in zip(points, one.ys, strict=True) if not (math.isfinite(y) and y <= 0)
        ]
        hidden += len(points) - len(kept)
        average = one.average
        if average is not None:
            average = [(x, math.log10(y)) for x, y in average if math.isfinite(y) and y > 0]
        last = (
            one.last
            if one.last is not None
            else next((y for y in reversed(one.ys) if math.isfinite(y)), None)
        )
        xs, ys = [x for x, _ in kept], [y for _, y in kept]
        found.append(replace(one, xs=xs, ys=ys, average=average, last=last))
    return found, hidden


def _unbent(series: Sequence[Series]) -> list[Series]:
    """`series` for the legend, which tells the values themselves: each has its last one by itself."""
    return [replace(one, ys=()) for one in series]


def _empty(legend: list[Run], words: str, width: int, height: int) -> list[Content]:
    found = [_line(legend, width)] if legend else []
    body = height - len(found)
    text = clip(literal(words), width)
    for row in range(body):
        pad = " " * ((width - cell_len(text)) // 2)
        found.append(_line([(pad + text, QUIET)] if row == body // 2 else [], width))
    return found


def _line(runs: Sequence[Run], width: int) -> Content:
    used = run_length(runs)
    return Content.assemble(*runs, " " * max(0, width - used))
