"""A line chart that grows while a run trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget

from ..theme import glyphs
from .plot import Series, Style, render_chart
from .series import Point, Smoothed, Thinned

REDRAW_SECONDS = 0.25
"""Redraws are at least this far apart, however fast points come."""


@dataclass(slots=True)
class _Live:
    """One series as it grows: its thinned points and, for a smoothed one, their thinned average."""

    color: str
    faint: str
    style: Style
    points: Thinned = field(default_factory=Thinned)
    average: Thinned = field(default_factory=Thinned)
    smoothing: Smoothed = field(default_factory=Smoothed)
    last: float | None = None


class LineChart(Widget):
    """Lines in braille (or ASCII) with true axes.

        chart = LineChart(title="Loss", unit="step", empty="waiting for the first step")
        chart.add_series("train", "$accent", style="smoothed", faint="$accent-muted")
        chart.add_series("evaluation", "$success", style="points")
        chart.set_x_max(516)                    # the planned last step; None follows the data
        chart.extend("train", [(1, 3.1), (2, 2.9)])
        chart.set_notes([("rate", "6e-5")])

    Memory and drawing time do not grow with the number of points, and a spike is never thinned away. Later
    series are drawn over earlier ones.
    """

    DEFAULT_CSS = """
    LineChart { height: 1fr; min-height: 5; width: 1fr; min-width: 20; }
    """
    ALLOW_SELECT = False

    def __init__(
        self,
        title: str = "",
        unit: str = "step",
        empty: str = "waiting for the first step",
        *,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """`title` starts the legend, `unit` names the x axis, `empty` stands where there is no point yet."""
        super().__init__(name=name, id=id, classes=classes)
        self._title = title
        self._unit = unit
        self._empty = empty
        self._series: dict[str, _Live] = {}
        self._notes: tuple[tuple[str, str], ...] = ()
        self._x_max: float | None = None
        self._version = 0
        self._drawn: tuple[tuple[object, ...], Content] | None = None
        self._drawn_at = 0.0
        self._pending: Timer | None = None

    def add_series(
        self,
        name: str,
        color: str = "$accent",
        *,
        style: Style = "raw",
        faint: str = "$accent-muted",
        keep: float = 0.9,
    ) -> None:
        """Declare a line, or empty it if it exists. `color` and `faint` are theme variables; `keep` is the
        past's share in a smoothed line."""
        self._series[name] = _Live(color, faint, style, smoothing=Smoothed(keep))
        self._changed()

    def append(self, name: str, x: float, y: float) -> None:
        """Add one point to the series `name`. Raises KeyError for one that was not declared."""
        self.extend(name, ((x, y),))

    def extend(self, name: str, points: Iterable[Point]) -> None:
        """Add points (x, y), in the order of x, to the series `name`. NaN and infinities are counted in the
        legend.

        About 3 µs a point: give a long history in slices of a few thousand, so that keys are heard between.
        """
        live = self._series[name]
        added = list(points)
        live.points.extend(added)
        if live.style == "smoothed":
            live.average.extend((x, live.smoothing.add(y)) for x, y in added)
        live.last = live.average.last if live.style == "smoothed" else live.points.last
        self._changed()

    def set_points(self, name: str, points: Iterable[Point]) -> None:
        """Replace all points of the series `name`, as after a resume that rewrote history."""
        live = self._series[name]
        self._series[name] = _Live(
            live.color, live.faint, live.style, smoothing=Smoothed(live.smoothing.keep)
        )
        self.extend(name, points)

    def clear(self) -> None:
        """Empty every series; their declarations stay."""
        for name in self._series:
            self.set_points(name, ())

    def set_notes(self, notes: Sequence[tuple[str, str]]) -> None:
        """Further (name, value) pairs at the end of the legend."""
        if tuple(notes) != self._notes:
            self._notes = tuple(notes)
            self._changed()

    def set_x_max(self, x_max: float | None) -> None:
        """Fix the right end of the x axis, or let it follow the data."""
        if x_max != self._x_max:
            self._x_max = x_max
            self._changed()

    def set_title(self, title: str) -> None:
        """Change what the legend starts with."""
        if title != self._title:
            self._title = title
            self._changed()

    def _changed(self) -> None:
        """Redraw now if the last drawing is old enough, else once when it is; points in between share that
        drawing."""
        self._version += 1
        if self._pending is not None or not self.is_attached:
            return
        wait = self._drawn_at + REDRAW_SECONDS - monotonic()
        if wait <= 0:
            self._redraw()
        else:
            self._pending = self.set_timer(wait, self._redraw)

    def _redraw(self) -> None:
        self._pending = None
        self._drawn_at = monotonic()
        self.refresh()

    def render(self) -> Content:
        """The chart at the present size; drawn anew only if data, size or alphabet changed."""
        width, height = self.content_size
        key = (self._version, width, height, glyphs().unicode)
        if self._drawn is None or self._drawn[0] != key:
            lines = render_chart(
                [self._snapshot(name, live) for name, live in self._series.items()],
                width,
                height,
                title=self._title,
                unit=self._unit,
                x_max=self._x_max,
                notes=self._notes,
                empty=self._empty,
            )
            self._drawn = (key, Content("\n").join(lines))
        return self._drawn[1]

    @staticmethod
    def _snapshot(name: str, live: _Live) -> Series:
        points = live.points.points()
        return Series(
            name=name,
            xs=[x for x, _ in points],
            ys=[y for _, y in points],
            color=live.color,
            style=live.style,
            faint=live.faint,
            last=live.last,
            bad=live.points.bad,
            average=live.average.points() if live.style == "smoothed" else None,
            thinned=live.points.thinned,
        )
