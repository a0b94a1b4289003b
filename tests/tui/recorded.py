"""Runs written event by event, as a worker writes them, for screens to follow."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace

import psutil

from finetui.core import recipe_file
from finetui.core.demo.recipe import demo_recipe
from finetui.core.recipe import Recipe
from finetui.core.runs import event_log, events, manifest, store
from finetui.core.runs.event_log import Record
from finetui.core.runs.events import Event
from finetui.core.runs.store import RunFolder

GIB = 1024**3
PROMPTS = (
    "My kettle leaks since Tuesday, I want my money back!",
    "I rarely write reviews, but this electric bike deserves one.",
    "My parcel was given to the wrong Müller and he is away till June.",
)
ANSWERS = (
    '{"category": "defect", "urgency": "high", "product": "kettle", "summary": "leaks, wants a refund"}',
    '{"category": "praise", "urgency": "low", "product": "electric bike", "summary": "loves the ride"}',
    '{"category": "delivery", "urgency": "medium", "product": "parcel", "summary": "delivered to a neighbour"}',
)
BASE = "I'm sorry to hear that. As a text-based AI, I do not have access to your order, but here are some steps that may help."


@dataclass
class Recording:
    """Writes a run's events with growing times. `end` is the clock of the newest event."""

    run: RunFolder
    clock: float = field(default_factory=lambda: time.time() - 400)
    seq: int = 0

    def add(self, *told: Event, after: float = 0.01) -> Recording:
        """Appends events, each `after` seconds after the one before."""
        lines = []
        for event in told:
            self.seq += 1
            self.clock += after
            lines.append(event_log.encode(Record(self.seq, self.clock, event)))
        with self.run.events.open("ab") as file:
            file.write(b"".join(lines))
        return self

    def raw(self, line: bytes) -> Recording:
        """Appends bytes as they are."""
        with self.run.events.open("ab") as file:
            file.write(line)
        return self

    def started(
        self, pid: int | None = None, job: str = "train", create_time: float | None = None
    ) -> Recording:
        """A worker's signature: that of `pid`, or of a process that has gone."""
        alive = pid is not None
        made = create_time if create_time is not None else psutil.Process(pid).create_time() if alive else 1.0
        return self.add(events.Started(job, pid or 2**22 - 3, made, manifest.this_host(), "demo"))

    def ready(self) -> Recording:
        """Up to the first step."""
        return self.add(
            events.Progress("start", text="importing Unsloth"),
            events.Progress("load", text="weights"),
            device(0),
            events.ModelReady(134_515_008, 4_884_480, "cpu", "bfloat16", 269_060_552, load_seconds=9.8),
            events.Progress("tokenize", 373, 373, "rows"),
            events.DatasetReady("messages", 333, 40, 0, 30_393, 11_368, longest=110),
            events.Progress("baseline", 0, 3, "prompts"),
            *samples(0),
            events.Progress("train", 0, 74, "steps"),
            after=3.0,
        )

    def train(self, first: int, last: int, total: int = 74, every: int = 20) -> Recording:
        """Steps `first` to `last`, with evaluations, samples and readings between."""
        for n in range(first, last + 1):
            self.add(step(n, total), device(n), after=1.1)
            if every and n % every == 0:
                self.add(events.Evaluation(n, 0.35 + 1.7 * math.exp(-n / 18), 2.0), *samples(n), after=0.5)
            if n % 40 == 0:
                self.add(events.Checkpoint(n, f"checkpoints/checkpoint-{n}"))
        return self

    def finished(self) -> Recording:
        """Score, exports and the end."""
        sides = events.ScoreSide(0, 0, 0), events.ScoreSide(40, 37, 12)
        examples = tuple(events.ScoreExample(p, a, BASE, a) for p, a in zip(PROMPTS, ANSWERS, strict=True))
        return self.add(
            events.Progress("save", 1, 1, "adapter"),
            events.Progress("score", 80, 80, "answers"),
            events.Scored(40, *sides, examples),
            events.Progress("export", 0, 2, "formats"),
            events.Exported("adapter", "exports/adapter", 21_954_560, 269_060_552, 1.0, "python -c '…' exports/adapter 'Hello!'"),
            events.Exported(
                "gguf_q8_0", "exports/gguf_q8_0/demo-q8_0.gguf", 144_811_200, 269_060_552, 9.0,
                "ollama create demo -f exports/gguf_q8_0/Modelfile && ollama run demo",
            ),
            events.Proved("adapter", "same", "It answers as the trained model did: 8 of 8 answers word for word.", "PEFT"),
            events.Proved("gguf_q8_0", "differs", "89.0% of the answers' tokens are chosen alike.", "llama.cpp", 0.89),
            events.Ended("train", "completed", 178.0),
            after=2.0,
        )  # fmt: skip


def step(n: int, total: int, loss: float | None = None) -> events.Step:
    """A step of a run that learns."""
    value = loss if loss is not None else 0.33 + 2.2 * math.exp(-n / 14) + 0.12 * math.sin(n * 2.3)
    return events.Step(
        n,
        total,
        n * 1.75 / 74,
        value,
        1e-3 * (1 - n / max(1, total)),
        0.6 + 0.2 * math.sin(n),
        n * 720,
        n * 270,
        251.5,
        1.1,
    )


def device(n: int) -> events.Device:
    """A reading of a machine without a GPU."""
    run = int((1.2 + 0.5 * min(1, n / 20)) * GIB)
    others = int(2.3 * GIB)
    return events.Device(
        "cpu",
        name="CPU",
        total_bytes=int(23.5 * GIB),
        used_bytes=run + others,
        run_bytes=run,
        others_bytes=others,
        host_used_bytes=run + others,
        host_total_bytes=int(23.5 * GIB),
        cpu_percent=88 + 10 * math.sin(n / 3),
        disk_free_bytes=51 * GIB,
    )


def holding(gib: float) -> events.Device:
    """A reading of a machine without a GPU while the run holds so much."""
    return replace(device(0), run_bytes=int(gib * GIB))


def gpu(n: int) -> events.Device:
    """A reading of one with a GPU."""
    return events.Device(
        "cuda:0",
        name="NVIDIA GeForce RTX 4090",
        total_bytes=24 * GIB,
        used_bytes=int(10.5 * GIB),
        run_bytes=int(7.4 * GIB),
        others_bytes=int(3.1 * GIB),
        reserved_bytes=int(7.0 * GIB),
        peak_reserved_bytes=int(7.5 * GIB),
        utilization_percent=97.0 - n % 5,
        temperature_celsius=64.0,
        power_watts=341.0,
        power_limit_watts=450.0,
        host_used_bytes=11 * GIB,
        host_total_bytes=64 * GIB,
        cpu_percent=12.0,
        disk_free_bytes=800 * GIB,
    )


def samples(n: int) -> tuple[events.Sample, ...]:
    """The three prompts, answered."""
    return tuple(
        events.Sample(n, i, prompt, BASE if n == 0 else ANSWERS[i], ANSWERS[i])
        for i, prompt in enumerate(PROMPTS)
    )


def new(recipe: Recipe | None = None) -> Recording:
    """A fresh run folder with a recipe and no event yet."""
    made = recipe or demo_recipe()
    run = store.create(made.name)
    recipe_file.save(made, run.recipe)
    return Recording(run)


def sleeper() -> subprocess.Popen[bytes]:
    """A process that lives until its parent ends it, to stand for a worker."""
    code = "import sys; sys.stdin.read()"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True, env=dict(os.environ)
    )
