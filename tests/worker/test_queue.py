"""Runs that wait their turn, and a finished run trained longer: real workers on the tiny model."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from finetui.core.runs import launch, lineage, queue, state, turns
from finetui.core.runs.events import Started, Step

from . import harness


def test_runs_wait_their_turn_survive_a_kill_and_train_longer(
    tiny_model: Path, tiny_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    monkeypatch.setenv("UNSLOTH_FORCE_CPU", "1")
    made_of = harness.recipe(tiny_model, tiny_rows, max_steps=4)
    slot = queue.use(queue.CPU)
    assert slot is not None and queue.in_use(queue.CPU)
    first, second, third = (launch.new(made_of, queued=True) for _ in range(3))
    assert [state.status(run).queue_place for run in (first, second, third)] == [1, 2, 3]
    assert state.status(first).state == "queued" and state.status(first).live
    assert queue.move(third, 1) == 1 and queue.position(first) == 2
    assert queue.leave(second)
    harness.until(lambda: state.status(second).state == "stopped")

    waiting = state.status(third).pid  # nobody's death loses a place
    assert waiting is not None
    os.kill(waiting, signal.SIGKILL)
    harness.until(lambda: state.status(third).pid != waiting)
    assert queue.position(third) == 1
    slot.close()
    harness.until(lambda: state.status(third).state == "completed")
    harness.until(lambda: state.status(first).state == "completed")
    assert queue.places() == ()
    begun = [harness.events(run, Started)[0] for run in (third, first)]
    assert begun[0].create_time and begun[1].create_time
    turns.tend()

    plan = lineage.longer(first, steps=3)
    assert (plan.step, plan.total_steps) == (4, 7) and "rises again" in plan.words
    more = lineage.start_longer(plan)
    harness.until(lambda: not state.status(more).live)
    assert state.status(more).state == "completed", more.log.read_text()[-2000:]
    before, after = harness.events(first, Step), harness.events(more, Step)
    assert [step.step for step in after] == [1, 2, 3, 4, 5, 6, 7]
    assert after[:4] == before
    assert after[4].learning_rate < after[5].learning_rate == pytest.approx(made_of.training.learning_rate)
    assert state.status(first).step == 4 and lineage.origin(more) == lineage.Origin(first.id, "longer", 4)
