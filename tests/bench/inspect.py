"""The inspection of a large JSONL file: how soon something is seen, the ledger's speed against `datasets` and the same
tokenizer, memory, the second look, and what it costs an event loop that polls it.

FINETUI_BENCH_ROWS sets the size: 30,000 rows by default, 1,000,000 (about 1 GB) for the goals as they stand.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from finetui.core import dataset
from finetui.core.dataset_inspect import Inspector
from finetui.core.recipe import DatasetSection, ModelSection, Recipe

from .measure import Result, wall_seconds

ROWS = int(os.environ.get("FINETUI_BENCH_ROWS", "30000"))
PREPARE = "from finetui.core.worker import demo_model; print(demo_model.prepare())"
BARE = """
import sys
sys.modules["torch"] = None
from transformers import AutoTokenizer
AutoTokenizer.from_pretrained(sys.argv[1])
"""
BASELINE = """
import os, sys
os.nice(5)  # as the inspector
from datasets import disable_progress_bars, load_dataset
from transformers import AutoTokenizer
disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
rows = load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[3])
def tokenize(batch):
    return tokenizer(["\\n".join(m["content"] for m in talk) for talk in batch["messages"]])
print(sum(1 for _ in range(len(rows.map(tokenize, batched=True)))))
"""


def write_rows(path: Path, count: int) -> None:
    """`count` talks of some 930 bytes each."""
    chosen = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(chosen.choices(letters, k=chosen.choice((2, 3, 3, 4, 5, 6, 8)))) for _ in range(4000)]
    with path.open("w", encoding="ascii") as file:
        for _ in range(count):
            talk = [
                {"role": "user", "content": " ".join(chosen.choices(words, k=chosen.randint(20, 90)))},
                {"role": "assistant", "content": " ".join(chosen.choices(words, k=chosen.randint(20, 150)))},
            ]
            file.write(json.dumps({"messages": talk}) + "\n")


@dataclass
class Look:
    """One inspection, watched from an event loop that polls it ten times a second. Seconds; memory in bytes."""

    ready: float = 0.0
    done: float = 0.0
    most_memory: int = 0
    longest_gap: float = 0.0
    longest_block: float = 0.0
    """The most of one gap that was ours, not spent in waiting for a processor."""

    async def watch(self, recipe: Recipe) -> Look:
        started = time.perf_counter()
        inspector = Inspector.start(recipe)
        child = psutil.Process(inspector._process.pid)  # pyright: ignore[reportPrivateUsage]
        try:
            polled = 0.0
            last, worked, waited = time.perf_counter(), time.process_time(), _waited()
            while not self.done:
                await asyncio.sleep(0.005)
                now, work, wait = time.perf_counter(), time.process_time(), _waited()
                gap = now - last - 0.005
                ours = min(gap, max(work - worked, gap - (wait - waited)))
                self.longest_gap, self.longest_block = (
                    max(self.longest_gap, gap),
                    max(self.longest_block, ours),
                )
                last, worked, waited = now, work, wait
                if now - polled < 0.1:
                    continue
                polled = now
                state = inspector.poll()
                if state.error is not None:
                    raise state.error
                if state.ready and not self.ready:
                    self.ready = now - started
                if state.ledger is not None and state.ledger.complete:
                    assert state.ledger.read == ROWS
                    self.done = now - started
                self.most_memory = max(self.most_memory, child.memory_info().rss)
        finally:
            inspector.close()
        return self


def _waited() -> float:
    """How long the threads of this process have waited for a processor so far, in sum. Seconds, of Linux's schedstat."""
    seconds = 0.0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            seconds += int(file.read_bytes().split()[1]) / 1e9
    return seconds


def measure() -> list[Result]:
    model = subprocess.run(
        [sys.executable, "-c", PREPARE], check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.jsonl")
        write_rows(rows, ROWS)
        section = DatasetSection(source=str(rows))
        recipe = Recipe(name="bench", model=ModelSection(source=model, max_length=512), dataset=section)
        os.environ["FINETUI_HOME"] = folder
        started = time.perf_counter()
        facts = dataset.inspect(section)
        look_seconds = time.perf_counter() - started
        assert facts.first
        first = asyncio.run(Look().watch(recipe))
        second = asyncio.run(Look().watch(recipe))
        bare = wall_seconds([sys.executable, "-c", BARE, model])
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", BASELINE, str(rows), model, folder + "/datasets"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"},
        )
        theirs = time.perf_counter() - started
        size = f"{ROWS:,} rows, {rows.stat().st_size / 1e6:,.0f} MB"
    speed = f"{size}: {ROWS / first.done:,.0f} rows/s, datasets + tokenizer {ROWS / theirs:,.0f} rows/s"
    return [
        Result("format and first rows", look_seconds, 2.0, "s", size),
        Result(
            "first rows with their mask",
            first.ready / bare,
            2.5,
            "×",
            f"{first.ready:.2f} s; Python with the bare tokenizer {bare:.2f} s",
        ),
        Result("ledger", first.done / theirs, 2.0, "×", speed),
        Result("inspector's memory", first.most_memory / 2**20, 1500, "MiB", size),
        Result("second look", second.done, 2.0, "s", "from the shelf, tokenizer not loaded"),
        Result(
            "event loop",
            1000 * first.longest_block,
            50.0,
            "ms",
            f"the longest gap {1000 * first.longest_gap:.0f} ms, what waits for a processor included",
        ),
    ]
