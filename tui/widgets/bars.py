"""Bars that answer one question at a glance: does it fit, how far is it, how has it been."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from textual.content import Content
from textual.widget import Widget

from ..theme import Glyphs, glyphs
from .sparing import refresh_line
from .text import clip, clip_parts, literal, run_length, spread

Fit = Literal["ok", "tight", "over"]
Run = tuple[str, str]

EMPTY_STYLE = "$secondary-muted"
OTHERS_STYLE = "$secondary"


@dataclass(frozen=True, slots=True)
class Load:
    """What fills a bar, all in one unit: this run's share, what others hold, a marker for the prediction, the
    whole.

    None is a missing reading, which is never drawn as 0.
    """

    run: float | None
    total: float | None
    others: float = 0.0
    predicted: float | None = None


def bar(load: Load, cells: int, style: str, marks: Glyphs | None = None) -> list[Run]:
    """`cells` cells of bar: heavy for the run, dashed for the others, thin for what is free, and the
    prediction's mark.

    Each part has a glyph of its own, so it reads without colour. Anything above 0 shows at least half a cell,
    and a part that overflows stops at the end.
    """
    marks = marks or glyphs()
    if cells <= 0:
        return []
    if load.run is None or not load.total or not math.isfinite(load.run) or load.total <= 0:
        return [(marks.track * cells, EMPTY_STYLE)]

    def halves(value: float) -> int:
        count = round(max(0.0, min(1.0, value / load.total)) * cells * 2) if load.total else 0
        return max(count, 1) if value > 0 else 0

    run = min(halves(load.run), cells * 2)
    whole, half = divmod(run, 2)
    if not marks.unicode:
        whole, half = (run + 1) // 2, 0
    others = (
        max(0, min(cells, math.ceil(halves(load.run + load.others) / 2)) - whole - half)
        if load.others > 0
        else 0
    )
    free = cells - whole - half - others
    runs = [
        (marks.bar * whole, style),
        (marks.half_bar * half, style),
        (marks.bar_others * others, OTHERS_STYLE),
        (marks.track * free, EMPTY_STYLE),
    ]
    runs = [run for run in runs if run[0]]
    if load.predicted is None or load.predicted <= 0:
        return runs
    place = min(cells - 1, int(min(1.0, load.predicted / load.total) * cells))
    marked: list[Run] = []
    at = 0
    for text, color in runs:
        if at <= place < at + len(text):
            inside = place - at
            marked += [
                (text[:inside], color),
                (marks.marker, "bold $foreground"),
                (text[inside + 1 :], color),
            ]
        else:
            marked.append((text, color))
        at += len(text)
    return [run for run in marked if run[0]]


class Gauge(Widget):
    """Three lines: a label with its verdict and value, a bar, a caption.

    Memory                ✓ fits 7.6 of 24.0 GB
    ━━━━━━━━━╍╍╍╍────────┃─────────────────────
    weights 2.2 · activations 4.3 · …
    """

    DEFAULT_CSS = """
    Gauge { height: 3; width: 1fr; }
    """
    ALLOW_SELECT = False

    WORDS: ClassVar[dict[Fit, tuple[str, str]]] = {
        "ok": ("fits", "$success"),
        "tight": ("tight", "$warning"),
        "over": ("too much", "$error"),
    }

    def __init__(
        self,
        label: str,
        *,
        color: str = "$accent",
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """`color` is the theme variable of the run's share while nothing is over."""
        super().__init__(name=name, id=id, classes=classes)
        self._label = literal(label)
        self._color = color
        self._value: str | None = None
        self._load = Load(None, None)
        self._fit: Fit | None = None
        self._word: str | None = None
        self._caption = ""

    def show(
        self,
        value: str | None,
        load: Load,
        *,
        fit: Fit | None = None,
        word: str | None = None,
        caption: str = "",
        label: str | None = None,
    ) -> None:
        """Show a new reading: `value` in words (`7.6 of 24.0 GB`; None is missing), its `load`, and a
        verdict.

        `fit` brings a glyph, a colour and the word `fits`, `tight` or `too much`, which `word` replaces.
        """
        self._value = None if value is None else literal(value)
        self._load = load
        self._fit = fit
        self._word = None if word is None else literal(word)
        self._caption = literal(caption)
        if label is not None:
            self._label = literal(label)
        self.refresh()

    def render(self) -> Content:
        """The three lines at the present width."""
        marks, width = glyphs(), self.content_size.width
        right: list[Run] = []
        if self._fit is not None:
            word, color = self.WORDS[self._fit]
            mark = {"ok": marks.check, "tight": marks.warn, "over": marks.cross}[self._fit]
            right.append((f"{mark} {self._word or word} ", f"bold {color}"))
        if self._value is None:
            right.append((marks.dash, "$text-disabled"))
        else:
            right.append((self._value, "$foreground"))
        if len(right) > 1 and run_length(right) + 4 > width:
            right = right[-1:] if self._fit == "ok" else right[:1]
        style = "$error" if self._fit == "over" else self._color
        lines = [
            spread([(self._label, "$text-muted")], right, width),
            Content.assemble(*bar(self._load, width, style, marks)),
            Content.assemble((clip_parts(self._caption, width), "$text-disabled")),
        ]
        return Content("\n").join(lines)


class ProgressLine(Widget):
    """One line: a bar and its percentage, with an optional word before. No animation: over SSH it would be
    traffic."""

    DEFAULT_CSS = """
    ProgressLine { height: 1; width: 1fr; }
    """
    ALLOW_SELECT = False

    def __init__(
        self,
        *,
        color: str = "$accent",
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """`color` is the theme variable of the part that is done."""
        super().__init__(name=name, id=id, classes=classes)
        self._color = color
        self._done: float | None = None
        self._text = ""
        self._after: str | None = None
        self._sent: Content | None = None

    def on_resize(self) -> None:
        self._sent = None

    def show(self, done: float | None, text: str = "", after: str | None = None) -> None:
        """`done` from 0 to 1, or None where it is not known; `text` before the bar; `after` instead of the
        percentage."""
        before = (self._done, self._text, self._after)
        self._done = done if done is not None and math.isfinite(done) else None
        self._text = literal(text)
        self._after = None if after is None else literal(after)
        if before != (self._done, self._text, self._after) and self.content_size.width:
            self._sent = refresh_line(self, self._sent, self.render())

    def render(self) -> Content:
        """The line at the present width."""
        marks, width = glyphs(), self.content_size.width
        share = None if self._done is None else max(0.0, min(1.0, self._done))
        # 100 % only when it is all done
        known = (
            marks.dash if share is None else f"{100 if share >= 1 else min(99, int(share * 100 + 1e-9))} %"
        )
        after = (self._after or known).rjust(5)
        text = clip(self._text, max(0, width - 20))
        before = text + "  " if text else ""
        runs: list[Run] = [(before, "$text-muted")] if before else []
        room = width - run_length(runs) - len(after) - 1
        if room >= 4:
            color = "$success" if share == 1 else self._color
            runs += [*bar(Load(share, 1.0), room, color, marks), (" ", "")]
        runs.append((after, "$foreground"))
        return Content.assemble(*runs)


def sparkline(
    values: Sequence[float | None], cells: int, low: float, high: float, lines: int, marks: Glyphs
) -> list[str]:
    """`lines` strings of `cells` characters, top first: the newest value at the right, a gap for None."""
    levels = marks.levels
    steps = len(levels)
    columns: list[list[str]] = []
    for value in list(values)[-cells:]:
        if value is None or not math.isfinite(value):
            columns.append([" "] * lines)
            continue
        share = 0.0 if high <= low else max(0.0, min(1.0, (value - low) / (high - low)))
        level = max(1, round(share * steps * lines))
        stack = [
            levels[max(0, min(steps, level - line * steps)) - 1] if level > line * steps else " "
            for line in range(lines)
        ]
        columns.append(stack[::-1])
    columns = [[" "] * lines] * (cells - len(columns)) + columns
    return ["".join(column[line] for column in columns) for line in range(lines)]


class History(Widget):
    """The last readings as a sparkline, the newest at the right; a missing reading is a gap.

    Its height, one line or two, is its CSS height.
    """

    DEFAULT_CSS = """
    History { height: 1; width: 1fr; }
    """
    ALLOW_SELECT = False

    def __init__(
        self,
        *,
        low: float = 0.0,
        high: float | None = 100.0,
        color: str = "$success",
        keep: int = 240,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """`low` and `high` bound the scale; `high` None follows the largest reading shown. `keep` readings
        are held."""
        super().__init__(name=name, id=id, classes=classes)
        self._low, self._high, self._color = low, high, color
        self._values: deque[float | None] = deque(maxlen=keep)

    def push(self, value: float | None) -> None:
        """Add the newest reading; None where there was none."""
        self._values.append(value)
        self.refresh()

    def show(self, values: Iterable[float | None]) -> None:
        """Replace all readings."""
        self._values.clear()
        self._values.extend(values)
        self.refresh()

    def render(self) -> Content:
        """The sparkline at the present size."""
        marks = glyphs()
        width, height = self.content_size
        shown = list(self._values)[-width:] if width else []
        known = [value for value in shown if value is not None and math.isfinite(value)]
        if not known:
            return Content.assemble((marks.dash, "$text-disabled"))
        high = self._high if self._high is not None else max(known)
        rows = sparkline(shown, width, self._low, high, max(1, height), marks)
        return Content.assemble(("\n".join(rows), self._color))
