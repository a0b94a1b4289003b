"""How soon the dashboard shows a run of a million steps, against one of a hundred; and its memory once all of it is read."""

from __future__ import annotations

import os
import tempfile
import time

import psutil

from finetui.core import recipe_file
from finetui.core.demo.recipe import demo_recipe
from finetui.core.runs import store
from finetui.core.runs.event_log import Record, encode
from finetui.core.runs.events import Device, Ended, Evaluation, Started, Step
from finetui.core.runs.store import RunFolder

from .measure import FINETUI, Result
from .paint import Terminal

STEPS = int(os.environ.get("FINETUI_BENCH_MANY", "1000000"))


def write(name: str, steps: int) -> RunFolder:
    """A run that ended after so many steps."""
    recipe = demo_recipe().model_copy(update={"name": name})
    run = store.create(name)
    recipe_file.save(recipe, run.recipe)
    began, seq = time.time() - steps, 1
    with run.events.open("wb") as file:
        file.write(encode(Record(1, began, Started("train", 2**22 - 3, 1.0, "elsewhere", name))))
        for n in range(1, steps + 1):
            seq += 1
            loss = 50.0 if n == steps // 3 else 0.4 + 2.0 / (1 + n / 5000) + 0.05 * (n % 7)
            step = Step(n, steps, n / 1000, loss, 1e-4, 0.5, n * 700, n * 200, 250.0, 0.9)
            file.write(encode(Record(seq, began + n, step)))
            if n % 100 == 0:
                seq += 2
                file.write(encode(Record(seq - 1, began + n, Device("cpu", "CPU", cpu_percent=90.0))))
                file.write(encode(Record(seq, began + n, Evaluation(n, 0.5 + 1.5 / (1 + n / 5000)))))
        file.write(encode(Record(seq + 1, began + steps, Ended("train", "completed", float(steps)))))
    return run


def _seconds(run: RunFolder, steps: int) -> float:
    terminal = Terminal([FINETUI, "attach", run.id])
    try:
        return terminal.until(f"{steps:,}/{steps:,}".encode())
    finally:
        terminal.end()


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = home
        short, long = write("short", 100), write("long", STEPS)
        pairs = [(_seconds(long, STEPS), _seconds(short, 100)) for _ in range(4)][1:]
        later = sorted(a - b for a, b in pairs)[len(pairs) // 2]
        size = long.events.stat().st_size / 1e6
        terminal = Terminal([FINETUI, "attach", long.id])
        try:
            terminal.until(f"{STEPS:,}/{STEPS:,}".encode())
            process, start = psutil.Process(terminal.pid), time.perf_counter()
            peak, quiet = 0, 0
            while quiet < 3 and time.perf_counter() - start < 300:  # reading it keeps a core busy
                before = sum(process.cpu_times()[:2])
                terminal.settle(1.0)
                quiet = quiet + 1 if sum(process.cpu_times()[:2]) - before < 0.2 else 0
                peak = max(peak, process.memory_info().rss)
            whole = time.perf_counter() - start - 3
        finally:
            terminal.end()
    told = f"{STEPS:,} steps, {size:,.0f} MB: {pairs[0][0]:.2f} s, 100 steps {pairs[0][1]:.2f} s"
    return [
        Result("attach, a million steps", later, 1.0, "s", "later than to 100 steps; " + told),
        Result(
            "attach, memory", peak / 2**20, 200, "MiB", f"resident at most; all was read after {whole:.1f} s"
        ),
    ]
