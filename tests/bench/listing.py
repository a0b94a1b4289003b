"""How soon a thousand runs are listed: the first time, and from what was kept; and what Home takes of a core meanwhile."""

from __future__ import annotations

import os
import shutil
import tempfile
import time

import psutil

from finetui.core import paths
from finetui.core.runs.summary import Summaries

from .attach import write
from .measure import FINETUI, Result, wall_seconds
from .paint import Terminal

RUNS = 1000
STEPS = 1000
IDLE_SECONDS = 10.0


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = home
        first = write("many", STEPS)
        for number in range(1, RUNS):
            shutil.copytree(first.path, first.path.with_name(f"{first.id}-{number}"))
        start = time.perf_counter()
        assert len(Summaries().read()) == RUNS
        cold = time.perf_counter() - start
        start = time.perf_counter()
        assert len(Summaries().read()) == RUNS
        warm = time.perf_counter() - start
        command = wall_seconds([FINETUI, "runs"])
        home_share = _idle_home()
        kept = (paths.cache() / "runs.json").stat().st_size / 1000
    return [
        Result("a thousand runs, first", cold, 60, "s", f"{RUNS} runs of {STEPS:,} steps, each read once"),
        Result("a thousand runs, again", warm, 0.5, "s", f"from what was kept, {kept:,.0f} KB"),
        Result("finetui runs, a thousand", command, 2, "s", "the command, from what was kept"),
        Result("idle Home, a thousand runs", home_share, 10, "%", "of a core, looking every two seconds"),
    ]


def _idle_home() -> float:
    """Percent of a core that Home takes once it lists the runs."""
    terminal = Terminal([FINETUI])
    try:
        terminal.until(b"Past runs")
        terminal.settle(IDLE_SECONDS / 2)
        times = psutil.Process(terminal.pid).cpu_times
        before = sum(times()[:2])
        terminal.settle(IDLE_SECONDS)
        return 100 * (sum(times()[:2]) - before) / IDLE_SECONDS
    finally:
        terminal.end()
