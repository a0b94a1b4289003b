"""Several GPUs: queued runs start on each by themselves, the next waits for the first that is free, and each reads its own card."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetui.core import system
from finetui.core.runs import control, launch, queue, state
from finetui.core.runs.events import Device, ModelReady, Step
from finetui.core.runs.store import RunFolder
from tests.worker import harness


def cards(run: RunFolder) -> set[int]:
    """Numbers of the machine's GPUs that the run's readings call the others."""
    return {card.index for reading in harness.events(run, Device) for card in reading.cards}


def test_each_gpu_takes_a_run_and_the_next_waits_for_one(
    tiny_model: Path, tiny_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    count = len(system.snapshot().gpus)
    assert queue.devices() == tuple(str(index) for index in range(count))
    long = harness.recipe(tiny_model, tiny_rows, max_steps=100_000, epochs=1000.0)
    runs = [launch.new(long, queued=True) for _ in range(count + 1)]
    first, last = runs[:count], runs[count]
    try:
        for run in first:
            harness.until(lambda run=run: len(harness.events(run, Step)) > 20 and cards(run))
        assert all(queue.in_use(device) for device in queue.devices())
        used = [set(range(count)) - cards(run) for run in first]
        print(f"{count} GPUs, used by {used}; {last.id} is number {queue.position(last)} in the queue")
        assert sorted(map(tuple, used)) == [(index,) for index in range(count)]
        assert all(harness.events(run, ModelReady)[0].device == "cuda:0" for run in first)
        assert queue.position(last) == 1 and not harness.events(last, ModelReady)

        control.request(first[0], "stop")
        harness.until(lambda: len(harness.events(last, Step)) > 20 and cards(last))
        assert set(range(count)) - cards(last) == used[0], "on the card that has become free"
        assert state.status(first[1]).live and queue.places() == ()
    finally:
        for run in runs:
            if state.status(run).live:
                control.request(run, "stop")
        harness.until(lambda: not any(state.status(run).live for run in runs))
