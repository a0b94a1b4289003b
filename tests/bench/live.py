"""What the dashboard costs while a run reports fifty events a second: processor, bytes to the terminal, and how soon a key
shows; in a real pty of 120 × 36."""

from __future__ import annotations

import os
import select
import statistics
import tempfile
import threading
import time

import psutil

from finetui.core import recipe_file
from finetui.core.demo.recipe import demo_recipe
from finetui.core.runs import manifest, store
from finetui.core.runs.event_log import Record, encode
from finetui.core.runs.events import Device, Progress, Started, Step
from finetui.core.runs.store import RunFolder

from .measure import FINETUI, Result
from .paint import Terminal

SECONDS = 20.0
A_SECOND = 50
KEYS = 40


def _run() -> RunFolder:
    run = store.create("live")
    recipe_file.save(demo_recipe(), run.recipe)
    me = psutil.Process()
    start = Started("train", me.pid, me.create_time(), manifest.this_host(), "live")
    now = time.time()
    run.events.write_bytes(
        encode(Record(1, now, start)) + encode(Record(2, now, Progress("train", 0, 100_000)))
    )
    return run


def _report(run: RunFolder, stop: threading.Event) -> None:
    """Steps as a fast training writes them, with a reading of the machine a second."""
    n, seq, next_at = 0, 2, time.monotonic()
    while not stop.is_set():
        n += 1
        seq += 1
        event = (
            Device(
                "cpu", "CPU", cpu_percent=80.0 + n % 17, run_bytes=10**9 + n * 1000, total_bytes=24 * 10**9
            )
            if n % A_SECOND == 0
            else Step(
                n,
                100_000,
                n / 1000,
                0.4 + 20 / (10 + n) + 0.05 * (n % 7),
                1e-4,
                0.5,
                n * 700,
                n * 200,
                250.0,
                0.02,
            )
        )
        with run.events.open("ab") as file:
            file.write(encode(Record(seq, time.time(), event)))
        next_at += 1 / A_SECOND
        stop.wait(max(0.0, next_at - time.monotonic()))


def _key_seconds(terminal: Terminal, key: bytes) -> float:
    """From a key to the next bytes that answer it: the tab line names the pane in chevrons."""
    terminal.seen = b""
    start = time.perf_counter()
    os.write(terminal.fd, key)
    while "‹".encode() not in terminal.seen:
        if not select.select([terminal.fd], [], [], 10)[0]:
            raise TimeoutError("no answer to a key")
        terminal.seen += os.read(terminal.fd, 65536)
    return time.perf_counter() - start


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = home
        run, stop = _run(), threading.Event()
        threading.Thread(target=_report, args=(run, stop), daemon=True).start()
        terminal = Terminal([FINETUI, "attach", run.id])
        try:
            terminal.until(b"Stop")
            terminal.settle(5)
            process = psutil.Process(terminal.pid)
            before, terminal.seen = process.cpu_times(), b""
            terminal.settle(SECONDS)
            after = process.cpu_times()
            share = 100 * (after.user + after.system - before.user - before.system) / SECONDS
            rate = len(terminal.seen) / SECONDS / 1000
            times = []
            for number in range(KEYS):
                terminal.settle(0.15 + 0.013 * (number % 7))
                times.append(1000 * _key_seconds(terminal, b"\t"))
        finally:
            stop.set()
            terminal.end()
    late = statistics.quantiles(times, n=20)[-1]
    return [
        Result(
            "dashboard's processor", share, 10, "%", f"of one core, at {A_SECOND} events a second, 120 × 36"
        ),
        Result("dashboard's bytes", rate, 5, "KB/s", "to the terminal"),
        Result(
            "a key shows",
            late,
            50,
            "ms",
            f"95th percentile of {KEYS}; median {statistics.median(times):.0f} ms",
        ),
    ]
