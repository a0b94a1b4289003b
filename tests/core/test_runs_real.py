"""A warm worker, really warmed: real Unsloth on a tiny random model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from finetui.core.recipe import DatasetSection, ExportSection, ModelSection, Recipe, TrainingSection
from finetui.core.runs import control, launch, manifest, state, warm
from tests.waiting import has_ended, until
from tests.worker import tiny

SECONDS = 600


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("UNSLOTH_FORCE_CPU", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_job_given_to_a_warm_worker_is_done_by_it(tmp_path: Path) -> None:
    tiny.make(tmp_path / "model")
    tiny.write_rows(tmp_path / "rows.jsonl", 40)
    recipe = Recipe(
        name="warmed",
        model=ModelSection(source=str(tmp_path / "model"), max_length=64),
        dataset=DatasetSection(source=str(tmp_path / "rows.jsonl")),
        training=TrainingSection(epochs=500, evaluate_every_steps=0, sample_count=0, batch_size=4),
        export=ExportSection(formats=("adapter",)),
    )
    waiting = warm.Warm.start()
    spare = warm.Warm.start()
    assert waiting.alive and not waiting.ready
    run = launch.new(recipe, warm=waiting)  # before its imports are done
    try:
        assert not waiting.alive  # it is taken
        waiting.close()  # and no longer ours to end
        written = manifest.read(run)
        assert written and written.how == "warm" and written.pid == waiting.pid
        assert state.status(run).state == "starting"
        until(lambda: state.status(run).step >= 1 or not state.status(run).live)
        seen = state.status(run)
        assert seen.state == "running" and seen.pid == waiting.pid
        control.request(run, "stop-now")
        until(lambda: not state.status(run).live)
        assert state.status(run).state == "stopped"
        assert control.pending(run) == ()
        until(lambda: not psutil.pid_exists(waiting.pid))  # gone, and no zombie of this process
    finally:
        if waiting.process.poll() is None:
            waiting.process.kill()
        spare.close()
    until(lambda: spare.process.poll() is not None)
    assert not spare.folder.exists()


def test_a_warm_worker_ends_with_the_process_that_started_it() -> None:
    code = (
        "from finetui.core.runs.warm import Warm\nimport time\nw = Warm.start()\nprint(w.pid, flush=True)\n"
        "while w.alive and not w.ready: time.sleep(0.1)\nprint(w.alive, flush=True)\ntime.sleep(600)"
    )
    wizard = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert wizard.stdout
    process = psutil.Process(int(wizard.stdout.readline()))
    try:
        assert wizard.stdout.readline() == "True\n"
        wizard.kill()
        wizard.communicate()
        until(lambda: has_ended(process.pid))
    finally:
        wizard.kill()
        if process.is_running():
            process.kill()
