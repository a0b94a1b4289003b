"""The command as a process, and runs for it to find."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetui.core.runs import event_log, events, store
from finetui.core.runs.event_log import Record
from tests.waiting import PATIENCE_SECONDS


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass
class Cli:
    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "FINETUI_HOME": str(self.home), "COLUMNS": "100", **more}

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "finetui.tui", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=self.environment(**more),
            cwd=self.home,
        )

    def __call__(self, *words: str, **more: str) -> Result:
        process = self.start(*words, **more)
        out, err = process.communicate(timeout=240)
        assert "Traceback" not in out + err
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", out + err)
        return Result(process.returncode, out, err)


def finetui(*words: str) -> subprocess.CompletedProcess[str]:
    """The command with the environment of this process, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "finetui.tui", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    return Cli(tmp_path)


def make_run(*happened: events.Event, name: str = "try") -> store.RunFolder:
    run = store.create(name)
    run.recipe.write_text("version: 1\n")
    now = time.time()
    run.events.write_bytes(b"".join(event_log.encode(Record(i + 1, now, e)) for i, e in enumerate(happened)))
    return run
