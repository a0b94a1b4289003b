"""Memory and time, predicted: two gauges at the right where it is wide, one line where it is not."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget

from ...core.text import counted, duration_words
from ..theme import glyphs
from ..wizard import Wizard
from .bars import Fit, Gauge, Load, bar
from .text import run_length

GIB = 1024**3
WORKDAY_SECONDS = 8 * 3600
"""The time gauge's scale is logarithmic, from ten seconds to a working day."""


@dataclass(frozen=True)
class Outlook:
    """What a recipe would take here, in the words that the gauges show. None is not known."""

    memory: str | None = None
    memory_load: Load = Load(None, None)
    memory_caption: str = ""
    fit: Fit | None = None
    time: str | None = None
    time_load: Load = Load(None, None)
    time_caption: str = ""


def time_words(low: float, high: float) -> str:
    """A rough range of seconds: `2–5 min`."""
    dash = "–" if glyphs().unicode else "-"
    if high < 90:
        return f"{max(1, round(low))}{dash}{max(2, round(high))} s"
    if high < 90 * 60:
        return f"{max(1, round(low / 60))}{dash}{max(2, round(high / 60))} min"
    return f"{low / 3600:.2g}{dash}{high / 3600:.2g} h"


def outlook(wizard: Wizard) -> Outlook:
    """The present estimates; pure arithmetic."""
    import math

    estimate, machine = wizard.memory(), wizard.machine
    memory, load, caption, fit = None, Load(None, None), "", None
    if machine is not None:
        total = machine.total_bytes / GIB
        if estimate is None:
            load = Load(None, total)
        else:
            need, free = estimate.total_bytes, machine.free_bytes
            fit = "ok" if need < 0.85 * free else "tight" if need < 1.05 * free else "over"
            memory = f"~{need / GIB:.1f} of {total:.{0 if total >= 100 else 1}f} GiB"
            load = Load(need / GIB, total, others=max(0.0, (machine.total_bytes - free) / GIB))
            largest = max(estimate.parts, key=lambda part: part.bytes)
            caption = f"rough estimate · {largest.name} {largest.bytes / GIB:.1f}"
    pace, plan = wizard.pace(), wizard.plan()
    time, time_load, time_caption = None, Load(None, None), ""
    if plan is not None:
        time_caption = f"{counted(plan.steps, 'step')} · {plan.share:.2g} × your data"
    if pace is not None:
        time = "~" + time_words(pace.low, pace.high)
        if plan is not None and plan.steps != pace.steps:  # packed: fewer, longer rows
            time_caption = f"{counted(pace.steps, 'step')} · {plan.share:.2g} × your data"
        share = math.log(max(1.0, pace.seconds / 10)) / math.log(WORKDAY_SECONDS / 10)
        time_load = Load(min(1.0, share), 1.0)
    return Outlook(memory, load, caption, fit, time, time_load, time_caption)


class SideGauges(Vertical):
    """The two gauges under the explanation."""

    def compose(self) -> ComposeResult:
        yield Gauge("Memory", id="memory")
        yield Gauge("Time", color="$success", id="time")

    def show(self, now: Outlook) -> None:
        """Show new estimates."""
        self.query_one("#memory", Gauge).show(
            now.memory, now.memory_load, fit=now.fit, caption=now.memory_caption
        )
        self.query_one("#time", Gauge).show(now.time, now.time_load, caption=now.time_caption)


class LineGauges(Widget):
    """Both estimates in one line: `Memory ━━━───── ~1.9 of 23.4 GiB ✓ fits   Time ~2–5 min`."""

    DEFAULT_CSS = "LineGauges { height: 1; width: 1fr; }"
    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._now = Outlook()

    def show(self, now: Outlook) -> None:
        """Show new estimates."""
        self._now = now
        self.refresh()

    def render(self) -> Content:
        now, width, marks = self._now, self.content_size.width, glyphs()
        memory = [("Memory ", "$text-muted"), (now.memory or marks.dash, "$foreground")]
        if now.fit is not None:
            word, color = Gauge.WORDS[now.fit]
            mark = {"ok": marks.check, "tight": marks.warn, "over": marks.cross}[now.fit]
            memory.append((f" {mark} {word}", f"bold {color}"))
        time = [("Time ", "$text-muted"), (now.time or marks.dash, "$foreground")]
        room = width - run_length(memory) - run_length(time) - 3
        if room >= 9:
            style = "$error" if now.fit == "over" else "$accent"
            memory = [
                memory[0],
                *bar(now.memory_load, min(16, room - 1), style, marks),
                (" ", ""),
                *memory[1:],
            ]
        gap = width - run_length(memory) - run_length(time)
        if gap < 2:
            return Content.assemble(*memory).truncate(width)
        return Content.assemble(*memory, " " * gap, *time)


def elapsed_words(seconds: float) -> str:
    """How long ago, roughly: `3 min ago`, `2 h ago`, `5 days ago`."""
    if seconds < 3600:
        return f"{duration_words(seconds // 60 * 60) if seconds >= 60 else 'moments'} ago"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h ago"
    return f"{seconds / 86400:.0f} days ago"
