"""A stop ends the evaluation under way, a pause waits for its end, and neither changes what is learned."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from finetui.core.recipe import Recipe
from finetui.core.runs import control
from finetui.core.runs.events import Checkpoint, Ended, Evaluation, Paused, Progress, Step, Warned
from finetui.core.runs.store import RunFolder

from . import harness, tiny

STEPS, EVERY, HELD_OUT = 8, 4, 800


@pytest.fixture(scope="module")
def made_of(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Few steps, and evaluations that take seconds: one row a batch."""
    rows = tiny.write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 2 * HELD_OUT)
    return harness.recipe(
        tiny_model,
        rows,
        evaluation_share=0.5,
        max_steps=STEPS,
        evaluate_every_steps=EVERY,
        evaluation_batch_size=1,
        dropout=0.1,
    )


@pytest.fixture(scope="module")
def never_stopped(made_of: Recipe) -> RunFolder:
    run = harness.trained(made_of)
    assert [told.step for told in harness.events(run, Evaluation)] == [EVERY, STEPS]
    return run


def until_evaluating(run: RunFolder, worker: subprocess.Popen[bytes], *, after: int) -> None:
    """Waits until an evaluation goes on, `after` so many that were done."""

    def going_on() -> bool:
        stages = [told for told in harness.events(run, Progress) if told.stage == "evaluate"]
        ends = sum(told.done == told.total for told in stages)
        return ends == after and bool(stages) and 0 < stages[-1].done < HELD_OUT

    harness.until(going_on, worker)


def ask(run: RunFolder, worker: subprocess.Popen[bytes], request: str) -> None:
    if request.startswith("SIG"):
        worker.send_signal(signal.Signals[request])
    else:
        (run.control / request).touch()


def cut(run: RunFolder) -> int:
    """How many batches of the evaluation that was broken off were done."""
    (told,) = [told for told in harness.events(run, Warned) if told.code == "evaluation-cut"]
    return int(told.why.split()[0])


def assert_same(run: RunFolder, reference: RunFolder) -> None:
    assert [e.reason for e in harness.events(run, Ended)] == ["stopped", "completed"]
    assert [told.step for told in harness.events(run, Step)] == list(range(1, STEPS + 1))
    assert harness.losses(run) == pytest.approx(harness.losses(reference), abs=1e-4)
    last = [harness.events(one, Evaluation)[-1] for one in (run, reference)]
    assert last[0].step == last[1].step == STEPS and last[0].loss == pytest.approx(last[1].loss, abs=1e-4)


@pytest.mark.parametrize("request_name", ["stop", "SIGTERM"])
def test_a_stop_ends_the_evaluation_and_the_run_goes_on_as_if_it_had_not(
    made_of: Recipe, never_stopped: RunFolder, request_name: str
) -> None:
    run = harness.make_run(made_of)
    worker = harness.start("train", run)
    until_evaluating(run, worker, after=0)
    ask(run, worker, request_name)
    assert harness.finish(worker, run) == 0
    assert cut(run) < HELD_OUT // 2 and not harness.events(run, Evaluation)
    assert [told.step for told in harness.events(run, Checkpoint)] == [EVERY] == [max(harness.losses(run))]
    assert (run.adapter / "adapter_model.safetensors").is_file() and not list(run.control.iterdir())

    assert harness.finish(harness.start("resume", run), run) == 0
    assert [told.step for told in harness.events(run, Evaluation)] == [STEPS]
    assert_same(run, never_stopped)


def test_the_last_evaluation_that_a_stop_ends_is_made_when_the_run_goes_on(
    made_of: Recipe, never_stopped: RunFolder
) -> None:
    run = harness.make_run(made_of)
    worker = harness.start("train", run)
    until_evaluating(run, worker, after=1)
    ask(run, worker, "SIGINT")
    assert harness.finish(worker, run) == 0
    assert cut(run) < HELD_OUT // 2 and not list(run.exports.iterdir())
    assert [told.step for told in harness.events(run, Evaluation)] == [EVERY]
    assert [told.step for told in harness.events(run, Checkpoint)] == [STEPS]

    assert harness.finish(harness.start("resume", run), run) == 0
    assert [told.step for told in harness.events(run, Evaluation)] == [EVERY, STEPS]
    assert_same(run, never_stopped)


def test_stop_now_in_an_evaluation_saves_nothing(made_of: Recipe) -> None:
    run = harness.make_run(made_of)
    worker = harness.start("train", run)
    until_evaluating(run, worker, after=0)
    assert "breaks the evaluation off" in control.request(run, "stop-now")
    assert harness.finish(worker, run) == 0
    assert cut(run) < HELD_OUT // 2 and max(harness.losses(run)) == EVERY
    assert harness.ended(run).reason == "stopped" and not harness.events(run, Evaluation)
    assert (
        not run.adapter.exists() and not list(run.checkpoints.iterdir()) and not list(run.control.iterdir())
    )


def test_a_pause_waits_for_the_evaluation_and_a_stop_ends_one_in_the_pause(made_of: Recipe) -> None:
    run = harness.make_run(made_of)
    worker = harness.start("train", run)
    until_evaluating(run, worker, after=0)
    assert "after the evaluation" in control.request(run, "pause")
    harness.until(lambda: harness.events(run, Paused), worker)
    assert [told.step for told in harness.events(run, Evaluation)] == [EVERY] == [max(harness.losses(run))]
    assert [told.step for told in harness.events(run, Paused)] == [
        EVERY
    ] and "evaluation-cut" not in harness.codes(run)

    control.request(run, "evaluate")
    until_evaluating(run, worker, after=1)
    control.request(run, "stop")
    assert harness.finish(worker, run) == 0
    assert cut(run) < HELD_OUT // 2 and len(harness.events(run, Evaluation)) == 1
    assert harness.ended(run).reason == "stopped" and max(harness.losses(run)) == EVERY
    assert [told.step for told in harness.events(run, Checkpoint)] == [EVERY]
