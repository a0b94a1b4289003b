"""Events of a run as its workers write them: signed by a live process or by one that has gone."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from finetui.core.runs import event_log, store
from finetui.core.runs.event_log import Record
from finetui.core.runs.events import (
    Event,
    Started,
    Step,
)

HOST = socket.gethostname()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.RunFolder:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    folder = store.create("try")
    folder.recipe.write_text("version: 1\n")
    return folder


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def write(run: store.RunFolder, *happened: Event, start: float | None = None, gap: float = 1.0) -> None:
    """Appends events `gap` seconds apart, the last one now unless `start` says otherwise."""
    seq = len(run.events.read_bytes().splitlines()) if run.events.exists() else 0
    first = time.time() - gap * (len(happened) - 1) if start is None else start
    with run.events.open("ab") as file:
        for i, event in enumerate(happened):
            file.write(event_log.encode(Record(seq + i + 1, first + i * gap, event)))


def signed(process: subprocess.Popen[bytes], job: str = "train") -> Started:
    return Started(job, process.pid, psutil.Process(process.pid).create_time(), HOST, "try")


def gone(job: str = "train") -> Started:
    return Started(job, 2**22 + 1, 1.0, HOST, "try")


def step(n: int, loss: float = 1.0, total: int = 10, seconds: float = 2.0) -> Step:
    return Step(n, total, n / max(1, total), loss, 2e-4, tokens_per_second=100.0, seconds=seconds)
