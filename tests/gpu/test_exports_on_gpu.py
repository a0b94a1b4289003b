"""A model of 1.8 billion weights leaves in every form, and each is proven by who will use it."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetui.core.demo import heldout_path, train_path
from finetui.core.demo.recipe import demo_recipe
from finetui.core.export import FORMATS
from finetui.core.proof import LIMITS
from finetui.core.recipe import ExportFormat, Recipe
from finetui.core.runs.event_log import read_all
from finetui.core.runs.events import Exported, ModelReady, Proved
from finetui.core.runs.store import RunFolder
from finetui.core.worker.demo_model import prepare
from tests.worker import harness, stretched

WIDER = 4
STEPS = 30
PATIENCE = 3600.0
"""Seconds for all exports of one run: all quantizations of 1.8 billion weights take many minutes."""
FIRST: tuple[ExportFormat, ...] = ("adapter", "merged", "gguf_q8_0", "gguf_q4_k_m")
"""These leave at the end of the training; the others from the finished run, as a person would ask for them later."""


@dataclass(frozen=True)
class Left:
    """A finished run and what became of its exports, by format."""

    run: RunFolder
    exported: dict[str, Exported]
    proved: dict[str, Proved]


def asked(model: Path, precision: str) -> Recipe:
    """The demo's task on `model`, shorter, with no report by the way and no score at the end."""
    demo = demo_recipe()
    changes = {"max_steps": STEPS, "evaluate_every_steps": 0, "save_every_steps": 0, "sample_count": 0}
    return demo.model_copy(
        update={
            "name": f"wide-{precision}",
            "model": demo.model.model_copy(update={"source": str(model), "precision": precision}),
            "dataset": demo.dataset.model_copy(
                update={"source": str(train_path()), "evaluation_source": str(heldout_path())}
            ),
            "training": demo.training.model_copy(update={**changes, "learning_rate": 3e-4}),
            "export": demo.export.model_copy(update={"formats": FIRST}),
        }
    )


def tell(run: RunFolder, worker: subprocess.Popen[bytes]) -> int:
    """Prints each export and each proof as it is done, so that a run that is cut off has told what it did. Returns the worker's
    exit code."""
    told = len(finished(run))
    end = time.monotonic() + PATIENCE
    while True:
        code = worker.poll()
        for event in finished(run)[told:]:
            told += 1
            print(f"{run.path.name[-12:]} {event.format:<14} {words(event)}", flush=True)
        if code is not None:
            return code
        assert time.monotonic() < end, run.log.read_text(errors="replace")[-3000:]
        time.sleep(0.5)


def finished(run: RunFolder) -> list[Exported | Proved]:
    """The exports and proofs so far, in order."""
    return [r.event for r in read_all(run.events) if isinstance(r.event, Exported | Proved)]


def words(event: Exported | Proved) -> str:
    if isinstance(event, Exported):
        return f"{event.bytes / 2**20:8.0f} MiB {event.seconds:5.0f} s"
    measured = (
        f"agreement {event.agreement}, gap {event.gap}" if event.agreement is not None else event.sentence
    )
    return f"proof: {event.verdict}, {measured}, {event.seconds:.0f} s {'; '.join(event.failed)}"


def leave(recipe: Recipe, others: tuple[ExportFormat, ...]) -> Left:
    """Trains `recipe`, exports as it says, and then the `others`."""
    run = harness.make_run(recipe)
    assert tell(run, harness.start("train", run)) == 0, run.log.read_text(errors="replace")[-3000:]
    (ready,) = harness.events(run, ModelReady)
    print(f"{recipe.name}: {ready.parameters / 1e9:.2f} billion weights", flush=True)
    if others:
        code = tell(run, harness.start("export", run, *others))
        assert code == 0, run.log.read_text(errors="replace")[-3000:]
    return Left(
        run,
        {event.format: event for event in harness.events(run, Exported)},
        {event.format: event for event in harness.events(run, Proved)},
    )


@pytest.mark.parametrize("precision", ["16bit", "4bit"])
def test_every_form_answers_as_the_trained_model(tmp_path: Path, precision: str) -> None:
    model = stretched.make(prepare(), tmp_path / "wide", WIDER, rough=True)
    others = tuple(f for f in LIMITS if f not in FIRST and f in FORMATS) if precision == "16bit" else ()
    left = leave(asked(model, precision), others)  # pyright: ignore[reportArgumentType]
    assert set(left.exported) == set(left.proved) == {*FIRST, *others}
    wrong = {f: p.failed for f, p in left.proved.items() if p.verdict != "same"}
    assert not wrong
