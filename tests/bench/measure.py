"""What the benchmarks share: paired runs, medians, and a table of ratios against their goals."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FINETUI = str(Path(sys.executable).with_name("finetui"))


@dataclass(frozen=True)
class Result:
    """One figure: `value` against `goal` (at most), in `unit`; `detail` says what was compared."""

    name: str
    value: float
    goal: float
    unit: str
    detail: str

    @property
    def met(self) -> bool:
        return self.value <= self.goal


def wall_seconds(command: Sequence[str]) -> float:
    """How long one run of `command` takes. Raises CalledProcessError where it fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    return time.perf_counter() - start


def paired_ratio(
    ours: Callable[[], float], theirs: Callable[[], float], rounds: int
) -> tuple[float, float, float]:
    """Runs both in turn, A B A B …, after one warm-up each. Returns the median of ratios, and both medians in seconds."""
    ours()
    theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in pairs)
    return ratio, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def show(results: Sequence[Result], as_json: bool) -> None:
    """Prints the results, one a line."""
    if as_json:
        print(json.dumps([{**asdict(r), "met": r.met} for r in results], indent=2))
        return
    for r in results:
        word = "met" if r.met else "MISSED"
        print(f"{r.name:<28} {r.value:8.2f} {r.unit:<4} goal ≤ {r.goal:g} {r.unit:<4} {word:<7} {r.detail}")
