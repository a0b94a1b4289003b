"""How soon a thousand runs are listed: the first time, and from what was kept."""

from __future__ import annotations

import os
import shutil
import tempfile
import time

from finetui.core import paths
from finetui.core.runs.summary import Summaries

from .attach import write
from .measure import Result

RUNS = 1000


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = home
        first = write("many", 300)
        for number in range(1, RUNS):
            shutil.copytree(first.path, first.path.with_name(f"{first.id}-{number}"))
        start = time.perf_counter()
        assert len(Summaries().read()) == RUNS
        cold = time.perf_counter() - start
        start = time.perf_counter()
        assert len(Summaries().read()) == RUNS
        warm = time.perf_counter() - start
        kept = (paths.cache() / "runs.json").stat().st_size / 1000
    return [
        Result("a thousand runs, first", cold, 60, "s", f"{RUNS} runs of 300 steps, each read once"),
        Result("a thousand runs, again", warm, 0.5, "s", f"from what was kept, {kept:,.0f} KB"),
    ]
