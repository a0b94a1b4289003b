"""Runs that are stopped, killed or damaged go on as if nothing had happened."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import sys
from pathlib import Path

import pytest

from finetui.core.recipe import Recipe
from finetui.core.runs import best, checkpoints, state
from finetui.core.runs.event_log import read_all
from finetui.core.runs.events import Checkpoint, Device, Ended, Started, Step
from finetui.core.runs.store import RunFolder

from . import harness

STEPS = 80  # enough of them that a test on a busy machine still meets the worker at work


@pytest.fixture(scope="module")
def made_of(tiny_model: Path, tiny_rows: Path) -> Recipe:
    return harness.recipe(
        tiny_model,
        tiny_rows,
        max_steps=STEPS,
        save_every_steps=4,
        evaluate_every_steps=1,  # so that whatever step a run ends at is one that evaluates
        gradient_accumulation_steps=2,
        dropout=0.1,
    )


@pytest.fixture(scope="module")
def never_stopped(made_of: Recipe) -> RunFolder:
    return harness.trained(made_of)


def assert_same_losses(run: RunFolder, reference: RunFolder) -> None:
    found, expected = harness.losses(run), harness.losses(reference)
    assert sorted(found) == sorted(expected) == list(range(1, STEPS + 1))
    assert all(abs(found[step] - expected[step]) < 1e-4 for step in expected), (found, expected)
    last = [harness.events(r, Step)[-1] for r in (run, reference)]
    assert last[0].tokens == last[1].tokens and last[0].trained_tokens == last[1].trained_tokens


def test_a_stopped_run_resumes_with_the_same_losses(made_of: Recipe, never_stopped: RunFolder) -> None:
    run = harness.make_run(made_of)
    worker = harness.start("train", run)
    harness.until(lambda: len(harness.losses(run)) >= 5, worker)
    (run.control / "stop").touch()
    assert harness.finish(worker, run) == 0
    stopped_at = max(harness.losses(run))
    assert stopped_at < STEPS
    assert harness.ended(run).reason == "stopped"
    assert harness.events(run, Checkpoint)[-1].step == stopped_at
    assert (run.adapter / "adapter_model.safetensors").is_file()
    assert not list(run.control.iterdir())

    assert harness.finish(harness.start("resume", run), run) == 0
    assert [e.reason for e in harness.events(run, Ended)] == ["stopped", "completed"]
    assert [s.step for s in harness.events(run, Step)] == list(range(1, STEPS + 1))
    assert_same_losses(run, never_stopped)


def test_a_run_goes_on_from_the_step_that_it_was_gone_back_to(
    made_of: Recipe, never_stopped: RunFolder
) -> None:
    training = made_of.training.model_copy(update={"checkpoints_kept": 5, "keep_best": False})
    run = harness.make_run(made_of.model_copy(update={"training": training}))
    worker = harness.start("train", run)
    harness.until(lambda: len(harness.events(run, Checkpoint)) >= 3, worker)
    (run.control / "stop").touch()
    assert harness.finish(worker, run) == 0
    assert max(harness.losses(run)) > 8
    best.go_back(run, 4)

    def again() -> list[int]:
        """The steps of the newest attempt."""
        told = [r.event for r in read_all(run.events) if isinstance(r.event, Started | Step)]
        since = max(at for at, event in enumerate(told) if isinstance(event, Started))
        return [event.step for event in told[since:] if isinstance(event, Step)]

    before = len(harness.events(run, Checkpoint))
    worker = harness.start("resume", run)
    harness.until(lambda: len(harness.events(run, Checkpoint)) > before, worker)
    worker.send_signal(signal.SIGKILL)
    worker.wait(harness.PATIENCE)
    assert again()[0] == 5

    newest = max(saved.step for saved in harness.events(run, Checkpoint)[before:])
    assert harness.finish(harness.start("resume", run), run) == 0
    assert again()[0] == newest + 1, "what the person left behind is not come back to"
    assert_same_losses(run, never_stopped)


def test_a_killed_run_falls_back_to_the_last_whole_checkpoint(
    made_of: Recipe, never_stopped: RunFolder
) -> None:
    run = harness.make_run(made_of)
    worker = harness.start("train", run)
    harness.until(lambda: len(harness.events(run, Checkpoint)) >= 3, worker)
    worker.send_signal(signal.SIGKILL)
    assert worker.wait(harness.PATIENCE) == -signal.SIGKILL
    assert not harness.events(run, Ended)
    with run.log.open("a") as log:
        log.write("RuntimeError: CUDA out of memory\n")  # a row, printed by a library
    card = state.status(run).card
    assert card is not None and card.code == "vanished", card
    newest = max(run.checkpoints.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    weights = newest / "adapter_model.safetensors"
    if weights.exists():
        os.truncate(weights, weights.stat().st_size // 2)

    assert harness.finish(harness.start("resume", run), run) == 0
    assert "checkpoint-damaged" in harness.codes(run)
    assert_same_losses(run, never_stopped)


def test_a_disk_that_takes_nothing_costs_a_checkpoint_and_not_the_run(
    made_of: Recipe, never_stopped: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events, log and checkpoints all meet a real limit on the size of files (EFBIG) while the worker trains. The person's
    command, which inherits the limit, makes a folder of what it is told."""
    writes = 'import os, sys; os.mkdir(f\'{sys.argv[1]}/{os.environ["FINETUI_RUN_STATE"]} {os.environ["FINETUI_RUN_MESSAGE"][:40]}\')'
    monkeypatch.setenv("FINETUI_NOTIFY", shlex.join([sys.executable, "-c", writes, str(tmp_path)]))
    run = harness.make_run(made_of)
    worker = harness.start("train", run)
    harness.until(lambda: harness.events(run, Checkpoint), worker)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    for request in ("save", "stop", "pause"):  # the last is only taken once the run waits, unsaved
        (run.control / request).touch()
        harness.until(lambda request=request: not (run.control / request).exists(), worker)
    before = [p for p in run.checkpoints.iterdir() if (p / checkpoints.SEAL).exists()]
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    harness.until(lambda: "stop-unsaved" in harness.codes(run), worker)  # it waits, and loses nothing
    assert before and all(checkpoints.damage(path) is None for path in before)
    assert "checkpoint-skipped" in harness.codes(run)
    (run.control / "continue").touch()
    assert harness.finish(worker, run) == 0
    assert harness.ended(run).reason == "completed"
    harness.until(lambda: len(list(tmp_path.iterdir())) == 3)
    told = sorted(path.name for path in tmp_path.iterdir())
    assert told[0] == "completed tiny: completed", told
    assert told[1].startswith("trouble The checkpoint of") and told[2].startswith("trouble The run waits"), (
        told
    )
    assert [r.seq for r in read_all(run.events)] == list(range(1, len(read_all(run.events)) + 1))
    assert_same_losses(run, never_stopped)


def test_sigterm_saves_and_a_second_one_is_harmless(made_of: Recipe) -> None:
    run = harness.make_run(made_of)
    worker = harness.start("train", run)
    harness.until(lambda: harness.losses(run), worker)
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGHUP)  # as the system does where a login ends
    worker.send_signal(signal.SIGTERM)
    assert harness.finish(worker, run) == 0
    assert harness.ended(run).reason == "stopped"
    assert harness.events(run, Checkpoint)[-1].step == max(harness.losses(run)) < STEPS


def test_stop_now_saves_nothing(made_of: Recipe) -> None:
    run = harness.make_run(
        made_of.model_copy(update={"training": made_of.training.model_copy(update={"save_every_steps": 0})})
    )
    worker = harness.start("train", run)
    harness.until(lambda: harness.losses(run), worker)
    (run.control / "stop-now").touch()
    assert harness.finish(worker, run) == 0
    assert harness.ended(run).reason == "stopped" and max(harness.losses(run)) < STEPS
    assert not run.adapter.exists() and not list(run.checkpoints.iterdir())
    assert harness.events(run, Device)
