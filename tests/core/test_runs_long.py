"""A run of thousands of steps is judged by all of it, not by its two ends."""

from __future__ import annotations

import subprocess

import pytest

from finetui.core.runs import checkpoints, event_log, follow, retry, state, store, summary
from finetui.core.runs.event_log import Record
from finetui.core.runs.events import Checkpoint, Device, Ended, Evaluation, Event, Started
from finetui.core.runs.history import fold

from .run_events import gone, run, signed, sleeper, step, write

__all__ = ["run", "sleeper"]

STEPS = 12_000


def trained(run: store.RunFolder, worker: Started, steps: int = STEPS) -> None:
    """The lowest held-out loss at 3,000, the only checkpoint at 5,000, and no end."""
    told: list[Event] = [worker]
    for n in range(1, steps + 1):
        told.append(step(n, 2.0 - n / steps, steps))
        if n % 10 == 0:
            told.append(Device("cpu", "CPU", cpu_percent=90.0))
        if n % 1000 == 0:
            told.append(Evaluation(n, 0.2 if n == 3000 else 1.2))
    told.insert(
        told.index(step(5001, 2.0 - 5001 / steps, steps)), Checkpoint(5000, "checkpoints/checkpoint-5000")
    )
    write(run, *told)
    folder = run.checkpoints / "checkpoint-5000"
    folder.mkdir()
    (folder / "weights").write_text("w")
    checkpoints.seal(folder)
    assert run.events.stat().st_size > state.WHOLE_BYTES


def test_the_best_is_found_wherever_it_stands(run: store.RunFolder) -> None:
    trained(run, gone())
    (one,) = summary.Summaries().read()
    assert (one.best, one.best_evaluation_step, one.evaluation_loss) == (0.2, 3000, 1.2)
    assert (one.step, one.loss, one.state) == (STEPS, 1.0, "crashed")
    assert summary.matching([one], "best<0.5") == [one]


def test_a_run_at_work_is_told_on_from_where_it_was_read(
    run: store.RunFolder, sleeper: subprocess.Popen[bytes]
) -> None:
    trained(run, signed(sleeper))
    summaries = summary.Summaries()
    (one,) = summaries.read()
    assert (one.state, one.best) == ("running", 0.2)
    with run.events.open("ab") as file:
        file.write(event_log.encode(Record(99_990, 2e9, Evaluation(STEPS, 0.1))))
    (one,) = summaries.read()
    assert (one.best, one.best_evaluation_step) == (0.1, STEPS)
    with run.events.open("ab") as file:
        file.write(event_log.encode(Record(99_991, 2e9 + 1, Ended("train", "completed", 60.0))))
    for told in (summaries.read(), summary.Summaries().read()):
        assert (told[0].state, told[0].best) == ("completed", 0.1)


def test_what_is_skimmed_and_what_is_decoded_give_the_same(run: store.RunFolder) -> None:
    trained(run, gone())
    write(run, gone("resume"), *(step(n, 0.9, STEPS) for n in range(5001, 7000)), Evaluation(6999, 0.7))
    every, skimmed = state.Reducer(), fold(run.events)[0]
    for record in event_log.read_all(run.events):
        every.add(record)
    for name in (
        "started",
        "step",
        "evaluation",
        "best",
        "checkpoint",
        "last_ts",
        "warnings",
        "_attempt_steps",
    ):
        assert getattr(skimmed, name) == getattr(every, name), name
    assert skimmed._job_seconds == pytest.approx(every._job_seconds)
    assert skimmed.eta_seconds() == pytest.approx(every.eta_seconds(), abs=2.0)


@pytest.mark.parametrize("number", [b"9" * 5000, b"1e5", b"-1", b"null", b'"7"'])
def test_a_step_that_is_none_is_passed_over(run: store.RunFolder, number: bytes) -> None:
    trained(run, gone())
    content = run.events.read_bytes()
    line = content.splitlines(keepends=True)[100]
    run.events.write_bytes(
        content.replace(line, line.replace(b'"step":', b'"step":' + number + b',"x":', 1), 1)
    )
    assert follow.whole_status(run).step == STEPS


def test_a_retry_goes_on_from_the_checkpoint_that_stands_there(run: store.RunFolder) -> None:
    trained(run, gone())
    plan = retry.plan(run)
    assert (plan.job, plan.new, plan.step) == ("resume", False, 5000) and "step 5,000" in plan.words
