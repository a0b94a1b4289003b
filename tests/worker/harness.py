"""Runs made and workers started as the product does it, and ways to wait that never sleep and hope."""

from __future__ import annotations

import atexit
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from finetui.core import recipe_file
from finetui.core.recipe import (
    DatasetSection,
    ExportSection,
    LoraSection,
    ModelSection,
    Recipe,
    TrainingSection,
)
from finetui.core.runs import store
from finetui.core.runs.event_log import read_all
from finetui.core.runs.events import Ended, Event, Step, Warned
from finetui.core.runs.store import RunFolder

PATIENCE = 300.0
"""Seconds. A loaded machine takes half a minute for Unsloth's import alone."""

E = TypeVar("E", bound=Event)


def recipe(model: Path, rows: Path, **changes: object) -> Recipe:
    """A recipe for the tiny model; `changes` are fields of any section, such as `batch_size=2`."""
    sections = {
        "model": ModelSection,
        "dataset": DatasetSection,
        "lora": LoraSection,
        "training": TrainingSection,
        "export": ExportSection,
    }
    values: dict[str, dict[str, object]] = {
        "model": {"source": str(model), "max_length": 128},
        "dataset": {"source": str(rows), "evaluation_share": 0.1},
        "lora": {"rank": 4, "alpha": 8, "gradient_checkpointing": False},
        "training": {
            "epochs": 100.0,
            "max_steps": 6,
            "batch_size": 4,
            "learning_rate": 5e-3,
            "evaluate_every_steps": 0,
            "save_every_steps": 0,
            "sample_count": 0,
        },
        "export": {"formats": ("adapter",)},
    }
    for name, value in changes.items():
        section = next(key for key, kind in sections.items() if name in kind.model_fields)
        values[section][name] = value
    return Recipe(
        name="tiny",
        model=ModelSection.model_validate(values["model"]),
        dataset=DatasetSection.model_validate(values["dataset"]),
        lora=LoraSection.model_validate(values["lora"]),
        training=TrainingSection.model_validate(values["training"]),
        export=ExportSection.model_validate(values["export"]),
    )


def make_run(made_of: Recipe) -> RunFolder:
    run = store.create(made_of.name)
    recipe_file.save(made_of, run.recipe)
    return run


def start(job: str, run: RunFolder, *rest: str) -> subprocess.Popen[bytes]:
    with run.log.open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "finetui.core.worker", job, str(run.path), *rest],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=run.path,
            start_new_session=True,
        )
    atexit.register(
        worker.kill
    )  # a test that failed half-way leaves nothing at work; a dead one is not touched
    return worker


def finish(worker: subprocess.Popen[bytes], run: RunFolder) -> int:
    """Waits for the worker's end. Returns its exit code; a hang fails with the end of the log."""
    try:
        return worker.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        worker.kill()
        raise AssertionError(run.log.read_text(errors="replace")[-3000:]) from None


def trained(made_of: Recipe) -> RunFolder:
    """A new run of `made_of`, trained by a worker to its end."""
    run = make_run(made_of)
    assert finish(start("train", run), run) == 0, run.log.read_text(errors="replace")[-3000:]
    return run


def until(condition: Callable[[], object], worker: subprocess.Popen[bytes] | None = None) -> None:
    """Waits for `condition`; fails when the worker ends first or patience does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert worker is None or worker.poll() is None or condition(), (
            f"the worker ended with {worker.returncode}"
        )
        time.sleep(0.05)


def events(run: RunFolder, kind: type[E]) -> list[E]:
    """The run's events of one kind, in order."""
    return [r.event for r in read_all(run.events) if isinstance(r.event, kind)]


def losses(run: RunFolder) -> dict[int, float]:
    """Loss by step; the newest attempt at a step counts."""
    return {step.step: step.loss for step in events(run, Step)}


def ended(run: RunFolder) -> Ended:
    """The run's last end."""
    return events(run, Ended)[-1]


def codes(run: RunFolder) -> list[str]:
    return [warned.code for warned in events(run, Warned)]
