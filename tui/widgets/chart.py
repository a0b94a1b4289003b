"""A line chart that grows while a run trains: zoomed, panned, bent and read with keys."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from time import monotonic

from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget

from ...core.runs.curves import AXES, Axis, Places
from ...core.runs.series import Point, Pyramid
from ...core.text import count_words, duration_words
from ..theme import glyphs
from .plot import Series, Style, View, plain_words, render_chart
from .scale import number
from .sparing import changed_regions

REDRAW_SECONDS = 0.25
"""Redraws are about this far apart, however fast points come."""
JITTER_SECONDS = 0.05
"""A redraw that is due so soon goes with the figures that are new now: one writing to the terminal in place of two."""
LEAST_STEPS = 8.0
"""No closer view than of so many steps."""
UNITS: dict[Axis, str] = {"step": "step", "tokens": "tokens", "time": "time", "epoch": "epoch"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart, drawn from a pyramid. `average` goes with the style `smoothed`; `mark_lowest` marks its lowest
    point; `places` tell where its steps lie, where they are not those of the whole chart; `label` stands on the line."""

    name: str
    points: Pyramid
    color: str = "$accent"
    style: Style = "raw"
    faint: str = "$accent-muted"
    average: Pyramid | None = None
    mark_lowest: bool = False
    places: Places | None = None
    label: str = ""


@dataclass(slots=True)
class Look:
    """How charts are looked at; several may share one. `window` and `cursor` are in steps; None shows all, or no cursor."""

    axis: Axis = "step"
    log: bool = False
    window: tuple[float, float] | None = None
    cursor: float | None = None
    version: int = 0

    def turn_axis(self) -> None:
        """The next way to count along."""
        self.axis = AXES[(AXES.index(self.axis) + 1) % len(AXES)]
        self.version += 1

    def turn_log(self) -> None:
        """Linear, or in powers of ten."""
        self.log = not self.log
        self.version += 1

    def whole(self) -> None:
        """All of it, and no cursor."""
        self.window = self.cursor = None
        self.version += 1

    def place(self, cursor: float | None) -> None:
        """Puts the cursor at a step, and follows it with the view."""
        if cursor != self.cursor:
            self.cursor = cursor
            self.version += 1
            if self.window is not None and cursor is not None:
                low, high = self.window
                shift = min(0.0, cursor - low) + max(0.0, cursor - high)
                self.window = (low + shift, high + shift)


def axis_words(axis: Axis, value: float) -> str:
    """A place on the x axis: `1,200`, `3.4M`, `2 min`, `0.75`."""
    if axis == "tokens":
        return count_words(max(0, round(value)))
    if axis == "time":
        return duration_words(max(0.0, value))
    if axis == "epoch":
        return number(value, 0.01) if value else "0"
    return plain_words(round(value)) if abs(value) >= 20 else plain_words(round(value, 1))


class LineChart(Widget):
    """Lines in braille (or ASCII) with true axes.

        chart = LineChart("Loss", look)
        chart.show([Line("train", curves.loss, style="smoothed", average=curves.average)], curves.places, 516)

    Drawing costs what its columns cost, however long the run; a spike is never left out. Later lines are drawn over
    earlier ones.
    """

    DEFAULT_CSS = """
    LineChart { height: 1fr; min-height: 5; width: 1fr; min-width: 20; }
    """
    ALLOW_SELECT = False

    def __init__(
        self,
        title: str = "",
        look: Look | None = None,
        empty: str = "waiting for the first step",
        *,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """`title` starts the legend, `empty` stands where there is no point yet."""
        super().__init__(id=id, classes=classes)
        self.look = look or Look()
        self._title = title
        self._empty = empty
        self._lines: tuple[Line, ...] = ()
        self._places = Places()
        self._total = 0
        self._notes: tuple[tuple[str, str], ...] = ()
        self._shown: object = None
        self._version = 0
        self._drawn: tuple[tuple[object, ...], list[Content]] | None = None
        self._drawn_at = 0.0
        self._pending: Timer | None = None

    def show(
        self,
        lines: Sequence[Line],
        places: Places,
        total: int = 0,
        notes: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Shows `lines` up to the planned step `total` (0 follows the data), with further (name, value) pairs in the
        legend. Call it as often as you like: it draws when something changed, at most four times a second."""
        now = (
            tuple((line, line.points.total, line.points.bad, line.points.last_x) for line in lines),
            total,
            tuple(notes),
            self.look.version,
        )
        if now == self._shown:
            return
        self._shown = now
        self._lines, self._places, self._total, self._notes = tuple(lines), places, total, tuple(notes)
        self._changed()

    def set_title(self, title: str) -> None:
        """Changes what the legend starts with."""
        if title != self._title:
            self._title = title
            self._changed()

    def _changed(self) -> None:
        """Redraw now if the last drawing is old enough, else once when it is."""
        self._version += 1
        if self._pending is not None or not self.is_attached:
            return
        wait = self._drawn_at + REDRAW_SECONDS - monotonic()
        if wait <= JITTER_SECONDS:
            self._redraw()
        else:
            self._pending = self.set_timer(wait, self._redraw)

    def _redraw(self) -> None:
        """Draws, and sends the terminal only the cells that are new."""
        self._pending = None
        self._drawn_at = monotonic()
        before = self._drawn
        now = self._drawing()
        if before is None or before[0][2:] != now[0][2:]:
            self.refresh()
            return
        regions = changed_regions(before[1], now[1])
        if regions:
            self.refresh(*regions)

    # ── Looking closer ──

    def looked(self) -> None:
        """Draws at once after a key changed the look: an answer must not wait."""
        self._version += 1
        self._redraw()

    def bounds(self) -> tuple[float, float]:
        """The first and the last step that there is, or that is planned."""
        ends = [line.points.last_x or 0.0 for line in self._lines]
        return 0.0, max([*ends, float(self._total), 1.0])

    def _seen(self) -> tuple[float, float]:
        return self.look.window or self.bounds()

    def _newest(self) -> float:
        return max([line.points.last_x or 0.0 for line in self._lines], default=0.0)

    def zoom(self, factor: float) -> None:
        """Looks closer (`factor` < 1) around the cursor or the newest step, or from further away."""
        low, high = self._seen()
        first, last = self.bounds()
        wide = max(LEAST_STEPS, (high - low) * factor)
        if wide >= last - first:
            self.look.window = None
        else:
            centre = self.look.cursor if self.look.cursor is not None else min(high, self._newest())
            share = max(0.0, min(1.0, (centre - low) / (high - low))) if high > low else 0.5
            left = max(first, min(last - wide, centre - share * wide))
            self.look.window = (left, left + wide)
        self.look.version += 1
        self.looked()

    def pan(self, share: float) -> None:
        """Moves the view along by a share of its width."""
        if self.look.window is None:
            return
        low, high = self.look.window
        first, last = self.bounds()
        shift = max(first - low, min(last - high, share * (high - low)))
        self.look.window = (low + shift, high + shift)
        self.look.version += 1
        self.looked()

    def move(self, columns: int) -> None:
        """Moves the cursor by so many columns, to the nearest step that is drawn."""
        if not self._lines or self._lines[0].points.last_x is None:
            return
        low, high = self._seen()
        cell = (high - low) / max(8, self.content_size.width - 6)
        at = self.look.cursor if self.look.cursor is not None else min(high, self._newest())
        held = self._lines[0].points.view(low - (high - low), high + (high - low), 1200)
        wanted = at + columns * max(cell, 1e-9)
        found = _nearest(held, wanted)
        if found is not None and found[0] == at:  # the next one, however far
            index = bisect_left(held, at, key=itemgetter(0)) + (1 if columns > 0 else -1)
            found = held[max(0, min(len(held) - 1, index))]
        if found is not None:
            self.look.place(found[0])
            self.looked()

    # ── Drawing ──

    def render(self) -> Content:
        """The chart at the present size; drawn anew only if data, look, size or alphabet changed."""
        return Content("\n").join(self._drawing()[1])

    def _drawing(self) -> tuple[tuple[object, ...], list[Content]]:
        width, height = self.content_size
        key = (self._version, self.look.version, width, height, glyphs().unicode)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = (key, self._draw(width, height))
        return self._drawn

    def _draw(self, width: int, height: int) -> list[Content]:
        look, axis = self.look, self.look.axis
        low, high = self._seen()
        series = [self._snapshot(line, low, high, max(8, width) * 2) for line in self._lines]
        title, cursor = self._title, None
        if look.cursor is not None:
            cursor = self._places.of(look.cursor, axis)
            title = f"{title} at step {look.cursor:,.0f}"
            if axis != "step":
                title += f", {axis_words(axis, cursor)}"
        notes = list(self._notes) if look.cursor is None else []
        if look.log:
            notes.insert(0, ("log", ""))
        best = self._best()
        window = look.window is not None
        return render_chart(
            series,
            width,
            height,
            title=title,
            unit=UNITS[axis],
            x_max=None if axis == "time" else self._places.of(self._total, axis) if self._total else None,
            notes=notes,
            empty=self._empty,
            view=View(
                left=self._places.of(low, axis) if window else None,
                right=self._places.of(high, axis) if window else None,
                log=look.log,
                cursor=cursor,
                best=best,
                words=lambda value: axis_words(axis, value),
            ),
        )

    def _best(self) -> Point | None:
        for line in self._lines:
            if line.mark_lowest and line.points.low is not None:
                x, y = line.points.low
                return ((line.places or self._places).of(x, self.look.axis), y)
        return None

    def _snapshot(self, line: Line, low: float, high: float, columns: int) -> Series:
        axis = self.look.axis
        places = line.places or self._places
        fine = columns if axis == "step" else 2 * columns
        points = line.points.view(low, high, fine)
        average = line.average.view(low, high, fine) if line.average is not None else None
        last = (line.average or line.points).last
        if self.look.cursor is not None:
            there = _nearest(average if average else points, self.look.cursor)
            last = there[1] if there is not None else math.nan
        moved = points if axis == "step" else [(places.of(x, axis), y) for x, y in points]
        if average is not None and axis != "step":
            average = [(places.of(x, axis), y) for x, y in average]
        return Series(
            name=line.name,
            xs=[x for x, _ in moved],
            ys=[y for _, y in moved],
            color=line.color,
            style=line.style,
            faint=line.faint,
            last=last,
            bad=line.points.bad,
            average=average,
            thinned=line.points.thinned,
            label=line.label,
        )


def _nearest(points: Sequence[Point], x: float) -> Point | None:
    """The point of `points` (by x) nearest to `x`."""
    if not points:
        return None
    at = bisect_left(points, x, key=itemgetter(0))
    return min(points[max(0, at - 1) : at + 1], key=lambda point: abs(point[0] - x))
