"""Measures what trainings really take on a GPU, and compares the predictions of `core/memory.py` with it.

`python -m tests.bench.gpu.memory_grid` trains every point of the grid for a few steps (about ten minutes on an H100), many
side by side, and adds them to memory_points.csv beside this file; points that stand there are not measured again. `--compare`
only compares the table. Needs an NVIDIA GPU with Unsloth and bitsandbytes, no network.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from . import shapes
from .memory_drawn import PARTS
from .memory_one import Point
from .memory_table import TABLE, add_to_table, card_of, compare, point_key, predicted_gib, read, read_table

CONTEXT_GIB = 0.6
PATIENCE = 240.0
"""Seconds without an answer after which a process is given up."""


class Card:
    """Hands out the GPU's memory to points that run side by side. Sizes in GiB."""

    def __init__(self, size: float) -> None:
        self._free = self._size = size
        self._changed = threading.Condition()

    def take(self, size: float) -> float:
        """Waits until `size` is free; what is larger than the card gets all of it."""
        size = min(size, self._size)
        with self._changed:
            while self._free < size:
                self._changed.wait()
            self._free -= size
        return size

    def give(self, size: float) -> None:
        with self._changed:
            self._free += size
            self._changed.notify_all()


class Chain(threading.Thread):
    """One process that measures its points in order; started again where it died or hung."""

    def __init__(
        self,
        points: list[Point],
        models: Path,
        card: Card,
        out: TextIO,
        logs: Path,
        end: float,
        slots: threading.Semaphore,
    ) -> None:
        super().__init__(daemon=True)
        self.slots = slots
        self.points, self.models, self.card, self.out, self.logs, self.end = (
            points,
            models,
            card,
            out,
            logs,
            end,
        )
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def _start(self) -> None:
        point = self.points[0]
        # A home of its own: processes that compile at the same time must not share Unsloth's compiled files.
        home = self.logs / f"home-{point.key.replace(' ', '-')}"
        environment = dict(os.environ) | {"FINETUI_HOME": str(home), "HF_HUB_OFFLINE": "1"}
        if point.card_gib:  # what Unsloth decides by the size of the card
            environment["UNSLOTH_FUSED_LINEAR_FLASH_MIN_ROWS"] = "0"
        log = (self.logs / f"{point.key.replace(' ', '-')}.log").open("a")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.gpu.memory_one", str(self.models)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
        answers: queue.Queue[str] = queue.Queue()
        self._answers = answers
        stream = self._process.stdout

        def read() -> None:
            assert stream is not None
            for line in stream:
                answers.put(line)
            answers.put("")

        threading.Thread(target=read, daemon=True).start()
        self._answer()

    def _answer(self) -> bool:
        try:
            line = self._answers.get(timeout=max(1.0, min(PATIENCE, self.end - time.monotonic())))
        except queue.Empty:
            line = ""
        if not line:
            self._stop()
            return False
        self.out.write(line)
        self.out.flush()
        return True

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def run(self) -> None:
        with self.slots:
            self._measure()

    def _measure(self) -> None:
        context = self.card.take(CONTEXT_GIB)
        for point in self.points:
            if time.monotonic() > self.end:
                break
            if self._process is None:
                self._start()
            taken = self.card.take(predicted_gib(point) * 1.15 + 0.3)
            try:
                if self._process is not None and self._process.stdin is not None:
                    self._process.stdin.write(json.dumps(dataclasses.asdict(point)) + "\n")
                    self._process.stdin.flush()
                    self._answer()
            except OSError:
                self._stop()
            finally:
                self.card.give(taken)
        self._stop()
        self.card.give(context)


def measure(
    points: Iterable[Point],
    models: Path,
    out: Path,
    logs: Path,
    card_gib: float,
    seconds: float,
    processes: int,
) -> None:
    """Measures `points` and writes each answer to `out`/points.jsonl as it comes."""
    chains: dict[str, list[Point]] = {}
    for point in points:
        chains.setdefault(point.key, []).append(point)
    divided = {point.shape for chain in chains.values() for point in chain if point.method == "dora"}
    for name in {point.shape for chain in chains.values() for point in chain}:
        if not (models / name / "model.safetensors").exists():
            shapes.make(name, models / name, zeros=name not in divided)
    end = time.monotonic() + seconds
    card = Card(card_gib)
    with (out / "points.jsonl").open("a") as file:
        slots = threading.Semaphore(processes)
        longest = sorted(chains.values(), key=lambda chain: -sum(p.length * p.batch for p in chain))
        threads = [Chain(chain, models, card, file, logs, end, slots) for chain in longest]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(1.0, end + 20 - time.monotonic()))
        for thread in threads:
            thread._stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models", type=Path, default=Path("/tmp/memory-models"), help="where the shapes are made"
    )
    parser.add_argument("--out", type=Path, default=Path("/tmp/memory-points"), help="where the answers go")
    parser.add_argument("--logs", type=Path, help="where the processes' logs go")
    parser.add_argument("--card-gib", type=float, default=70.0, help="GPU memory that may be filled")
    parser.add_argument("--seconds", type=float, default=900.0, help="when to stop")
    parser.add_argument("--processes", type=int, default=14, help="at most so many side by side")
    parser.add_argument("--part", choices=tuple(PARTS), action="append", help="a part of the grid")
    parser.add_argument(
        "--points", type=Path, help="a file of points, one JSON object a line, in place of the grid"
    )
    parser.add_argument(
        "--table", type=Path, nargs="+", help="add these points.jsonl to the table, and compare"
    )
    parser.add_argument("--compare", action="store_true", help="only compare the table")
    given = parser.parse_args()
    if given.table:
        for file in given.table:
            add_to_table(read(file), card_of(file), TABLE)
    if given.table or given.compare:
        compare(read_table())
        return
    if given.points:
        points = [Point(**json.loads(line)) for line in given.points.read_text().splitlines() if line]
    else:
        wanted = given.part or PARTS
        points = [point for name, part in PARTS.items() if name in wanted for point in part()]
    done = {point_key(row.point) for row in read_table()}
    points = [point for point in points if point_key(point) not in done]
    logs = given.logs or given.out
    logs.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    given.models.mkdir(parents=True, exist_ok=True)
    measure(points, given.models, given.out, logs, given.card_gib, given.seconds, given.processes)
    file = given.out / "points.jsonl"
    add_to_table(read(file), card_of(file), TABLE)
    compare(read_table())


if __name__ == "__main__":
    main()
