"""The command line over a real worker: real Unsloth on a tiny random model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetui.core.runs import state, store
from finetui.tui.commands import exits
from tests.waiting import until
from tests.worker import tiny

SECONDS = 600
"""A loaded machine takes minutes for what takes seconds."""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `finetui` in a folder that holds `recipe.yaml`, `model/` and `rows.jsonl`."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    tiny.make(tmp_path / "model")
    tiny.write_rows(tmp_path / "rows.jsonl", 40)
    (tmp_path / "recipe.yaml").write_text(
        "name: tiny\n"
        "model: {source: model, max_length: 64}\n"
        "dataset: {source: rows.jsonl}\n"
        "training: {epochs: 200, batch_size: 4, evaluate_every_steps: 0, save_every_steps: 4, sample_count: 0}\n"
    )
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetui.tui", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "UNSLOTH_FORCE_CPU": "1", "HF_HUB_OFFLINE": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for run in store.all_runs():  # no worker outlives its test, whatever failed
        seen = state.status(run)
        if seen.live and seen.pid:
            os.kill(seen.pid, signal.SIGKILL)


def the_run() -> store.RunFolder:
    until(lambda: bool(store.all_runs()))
    return store.all_runs()[0]


def saved(run: store.RunFolder) -> bool:
    return (state.status(run).checkpoint_step or 0) >= 4


def test_ctrl_c_saves_and_stops_and_resume_goes_on_to_the_end(
    cli: Callable[..., subprocess.Popen[str]],
) -> None:
    follower = cli("train", "recipe.yaml", "--set", "training.max_steps=400", "--set", "training.epochs=1000")
    run = the_run()
    until(lambda: state.status(run).step >= 2 or follower.poll() is not None)
    follower.send_signal(signal.SIGINT)
    out, err = follower.communicate(timeout=SECONDS)
    assert follower.returncode == exits.INTERRUPTED, out + err
    assert "the worker saves after this step" in err and "stopped" in out and "step 1/400" in out
    seen = state.status(run)
    assert seen.state == "stopped" and seen.checkpoint_step == seen.step < 400
    assert str(run.path.parents[3] / "rows.jsonl") in run.recipe.read_text()

    resumed = cli("resume", "last", "--json")
    until(lambda: state.status(run).job == "resume" and state.status(run).step > seen.step)
    stopping = cli("stop", "last")
    assert stopping.wait(SECONDS) == exits.OK
    out, err = resumed.communicate(timeout=SECONDS)
    assert resumed.returncode == exits.STOPPED, out + err
    told = [json.loads(line) for line in out.splitlines()]
    assert told[0]["kind"] == "started" and told[0]["job"] == "resume"
    assert told[-1]["kind"] == "ended" and told[-1]["reason"] == "stopped"
    steps = [event["step"] for event in told if event["kind"] == "step"]
    assert steps[0] == seen.step + 1 and steps == sorted(set(steps))


def test_a_run_survives_its_follower_and_a_killed_worker_is_a_crash(
    cli: Callable[..., subprocess.Popen[str]],
) -> None:
    follower = cli("train", "recipe.yaml", "--json")
    run = the_run()
    until(lambda: state.status(run).step >= 1 or follower.poll() is not None)
    follower.kill()
    follower.communicate()
    at = state.status(run)
    assert at.state == "running"
    until(lambda: state.status(run).step >= at.step + 3 and saved(run))
    assert cli("resume", "last").wait(SECONDS) == exits.REFUSED  # one worker at a time
    assert cli("stop", "last", "--kill").wait(SECONDS) == exits.OK
    until(lambda: not state.status(run).live)
    attached = cli("attach", "tiny")
    out, _ = attached.communicate(timeout=SECONDS)
    assert attached.returncode == exits.CRASHED
    assert f"finetui resume {run.id}" in out and "without a word" in out


def test_a_finished_training_ends_with_0_and_its_export(cli: Callable[..., subprocess.Popen[str]]) -> None:
    done = cli("train", "recipe.yaml", "--set", "training.max_steps=2")
    out, err = done.communicate(timeout=SECONDS)
    assert done.returncode == exits.OK, out + err
    assert "step 2/2" in out and "export     adapter" in out and "next:" in out
    assert out.splitlines()[-1].startswith("done       train completed in ")
    assert "\x1b" not in out
