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
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from . import shapes
from .memory_one import Point
from .memory_table import TABLE, add_to_table, card_of, compare, point_key, predicted_gib, read, read_table

CONTEXT_GIB = 0.6
PATIENCE = 240.0
"""Seconds without an answer after which a process is given up."""


_BIG = ("Qwen3-8B", "Mistral-7B", "Llama-3.1-8B", "Qwen2.5-7B")
_MIDDLE = ("Llama-3.2-3B", "Gemma-2-2B", "Qwen3-4B", "SmolLM3-3B", "Phi-4-mini")

_UNPACKED = ("Gemma-2-2B",)
"""Unsloth packs no rows for these."""

_TRACED = (("Llama-3.2-1B", "4bit"), ("Qwen3-8B", "4bit"), ("Gemma-2-2B", "4bit"))
"""Where each allocation of the peak is asked for by name as well: it takes seconds."""


def _most_tokens(name: str) -> int:
    """Tokens of a batch that are trained in a second or two."""
    return 6144 if name in _BIG else 8192 if name in _MIDDLE else 16384


def fit_points() -> Iterator[Point]:
    """The points that the constants of `core/memory.py` are fitted to, the most telling first."""
    names = (
        "Llama-3.2-1B",
        "Qwen2.5-0.5B",
        "Llama-3.2-3B",
        "Qwen3-8B",
        "Gemma-2-2B",
        "Mistral-7B",
        "Qwen3-0.6B",
    )
    for name in names:
        most, four = _most_tokens(name), "4bit"
        whole, both = "16bit", ("16bit", "4bit")
        for precision in both:
            trace = (name, precision) in _TRACED
            yield Point(name, precision, 2048, 2, trace=trace)
            yield Point(name, precision, 1024, 2, checkpointing=False, trace=trace)
        for precision in both:
            yield Point(name, precision, 512, 1, rank=8)
        for precision in both:
            yield Point(name, precision, most // 2, 2)
            if name not in _UNPACKED:
                yield Point(name, precision, 2048, 2, packing=True, rows="short")
        yield Point(name, four, 512, 8, checkpointing=False, rank=32)
        yield Point(name, whole, 512, 4, checkpointing=False, rank=32)
        yield Point(name, whole, 512, most // 512, rank=128, optimizer="adamw_8bit")
        yield Point(name, four, 2048, 1, rank=128)
        yield Point(name, four, 4096, 1, targets="attention")
        yield Point(name, whole, 1024, 1, rank=64, targets="attention", checkpointing=False)
        yield Point(name, four, 2 * most, 1, rank=32)
        yield Point(name, whole, most, 1, rank=64)
        yield Point(name, whole, 1024, 4, rank=16)
        yield Point(name, four, 1024, 8, rank=16)


def other_points() -> Iterator[Point]:
    """Families that Unsloth trains in another way, and things of which one look is enough."""
    for name in ("Gemma-3-1B", "Phi-4-mini", "SmolLM3-3B", "Qwen3-MoE-8L"):
        for precision in ("16bit", "4bit"):
            trace = precision == "4bit" and name != "SmolLM3-3B"
            yield Point(name, precision, 2048, 2, trace=trace)
            yield Point(name, precision, 1024, 2, checkpointing=False, trace=trace)
        for precision in ("16bit", "4bit"):
            yield Point(name, precision, 512, 4, rank=64)
            yield Point(name, precision, 8192, 1)
    for name in ("Llama-3.2-1B", "Qwen3-8B"):
        yield Point(name, "4bit", 2048, 2, card_gib=24.0)
        yield Point(name, "4bit", 1024, 6, card_gib=24.0)
    for name in ("Qwen2.5-0.5B", "Llama-3.2-1B", "Qwen3-1.7B"):
        yield Point(name, "16bit", 1024, 4, method="full")
        yield Point(name, "16bit", 2048, 2, method="full", optimizer="adamw_8bit")
        yield Point(name, "32bit", 512, 2, method="full", checkpointing=False)
        yield Point(name, "4bit", 1024, 4, method="dora")
        yield Point(name, "8bit", 1024, 4)
    yield Point("Llama-3.2-1B", "16bit", 2048, 2, dropout=0.1)
    yield Point("Llama-3.2-1B", "4bit", 2048, 2, dropout=0.1)


def held_out_points() -> Iterator[Point]:
    """Points that nothing is fitted to: other shapes of the same families, and other settings of known ones."""
    draw = random.Random(20)
    others = (
        "Llama-3.1-8B",
        "Qwen3-4B",
        "Qwen3-1.7B",
        "SmolLM2-1.7B",
        "Qwen2.5-1.5B",
        "Qwen2.5-7B",
        "SmolLM2-135M",
    )
    for name in (*others, "Llama-3.2-3B", "Gemma-2-2B"):
        for index in range(12):
            precision = ("16bit", "4bit")[index % 2]
            length = draw.choice((512, 700, 1024, 1500, 2048, 3000, 4096, 6144, 8192, 12288))
            limit, checkpointing = _most_tokens(name), index // 2 not in (2, 5)
            if not checkpointing:
                limit //= 4
                length = min(length, limit)
            batch = max(1, min(32, draw.choice((limit, limit // 2, limit // 4)) // length))
            packing = index // 2 == 3 and name not in _UNPACKED
            yield Point(
                name,
                precision,
                length,
                batch,
                rank=draw.choice((8, 16, 32, 64, 128)),
                checkpointing=checkpointing,
                packing=packing,
                rows="short" if packing else "full",
                optimizer=draw.choice(("adamw_torch", "adamw_torch", "adamw_8bit")),
                targets="attention" if index // 2 == 4 else "all",
                split="held-out",
            )


def mixed_points() -> Iterator[Point]:
    """Packed rows of many lengths, as real ones are; nothing is fitted to them."""
    for name, length, batch in (
        ("Qwen2.5-1.5B", 2048, 4),
        ("Llama-3.1-8B", 4096, 1),
        ("Qwen3-1.7B", 1024, 6),
        ("SmolLM2-135M", 2048, 8),
        ("Llama-3.2-1B", 1024, 3),
        ("SmolLM3-3B", 2048, 2),
    ):
        for precision in ("16bit", "4bit"):
            yield Point(name, precision, length, batch, packing=True, rows="mixed", split="held-out")
    yield Point(
        "Qwen2.5-1.5B", "16bit", 1024, 2, packing=True, rows="mixed", checkpointing=False, split="held-out"
    )
    yield Point(
        "Llama-3.2-1B", "4bit", 2048, 2, packing=True, rows="mixed", targets="attention", split="held-out"
    )


def evaluation_points() -> Iterator[Point]:
    """Batches of held-out rows that are much larger than the training's; nothing is fitted to them."""
    for name, precision, length, batch, evaluated in (
        ("Llama-3.2-1B", "16bit", 1024, 1, 16),
        ("Llama-3.2-1B", "4bit", 2048, 1, 8),
        ("Qwen2.5-0.5B", "16bit", 512, 2, 64),
        ("Qwen3-8B", "4bit", 1024, 1, 16),
        ("SmolLM2-1.7B", "4bit", 512, 1, 32),
        ("Gemma-2-2B", "16bit", 1024, 1, 8),
    ):
        yield Point(name, precision, length, batch, evaluation_batch=evaluated, split="held-out")
    for name in (
        "Llama-3.2-3B",
        "Qwen3-1.7B",
    ):  # rows of many lengths side by side are padded, and need a mask
        yield Point(name, "4bit", 450, 2, evaluation_batch=32, rows="mixed", split="held-out")


def long_points() -> Iterator[Point]:
    """Rows of more than 12,288 tokens; nothing is fitted to them."""
    for name, precision, length, batch in (
        ("Qwen2.5-0.5B", "16bit", 16384, 2),
        ("Llama-3.2-1B", "4bit", 32768, 1),
        ("SmolLM2-1.7B", "16bit", 24576, 1),
        ("Qwen3-4B", "4bit", 32768, 1),
        ("Llama-3.1-8B", "4bit", 16384, 1),
        ("Llama-3.1-8B", "16bit", 32768, 1),
    ):
        yield Point(name, precision, length, batch, split="held-out")


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


PARTS = {
    "fit": fit_points,
    "other": other_points,
    "held-out": held_out_points,
    "mixed": mixed_points,
    "evaluation": evaluation_points,
    "long": long_points,
}


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
