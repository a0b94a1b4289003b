"""The worker as a process: warm and cold, alone on its run, and gone when nobody needs it."""

from __future__ import annotations

import ast
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from finetui.core import atomic
from finetui.core.runs import notice, state
from finetui.core.runs.events import (
    Checkpoint,
    Continued,
    Device,
    Ended,
    Evaluation,
    Exported,
    Paused,
    Progress,
    Sample,
    Started,
    Step,
    Warned,
)
from finetui.core.runs.store import RunFolder
from finetui.core.worker.events import EventWriter
from tests import waiting

from . import harness


def warm(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "finetui.core.worker", "warm", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def test_a_warm_worker_does_the_job_it_is_given(
    tiny_model: Path, tiny_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, writes = tmp_path / "told", "import os, sys; open(sys.argv[1], 'a').write(repr(dict(os.environ)))"
    monkeypatch.setenv("FINETUI_NOTIFY", shlex.join([sys.executable, "-c", writes, str(told)]))
    monkeypatch.setenv("HF_TOKEN", "hf_canaryCANARYcanary")
    worker = warm(tmp_path / "warm")
    harness.until((tmp_path / "warm/ready").exists, worker)
    run = harness.make_run(harness.recipe(tiny_model, tiny_rows, max_steps=3))
    (run.control / "save").touch()  # asked for between the start and the worker's look
    atomic.write_text(tmp_path / "warm/go", json.dumps({"job": "train", "run": str(run.path), "formats": []}))
    assert harness.finish(worker, run) == 0
    (started,) = harness.events(run, Started)
    assert started.pid == worker.pid
    assert harness.ended(run).reason == "completed" and harness.events(run, Exported)
    assert "Unsloth" in run.log.read_text()  # what libraries print goes to the run's log
    assert Path(run.adapter / "adapter_config.json").is_file()
    harness.until(lambda: told.is_file() and told.read_text())
    environment = ast.literal_eval(told.read_text())  # the person's command, run by the worker, and once
    assert environment["FINETUI_RUN_STATE"] == "completed" and environment["FINETUI_RUN"] == run.id
    assert environment["FINETUI_RUN_NAME"] and "canaryCANARY" not in told.read_text()
    assert notice.of_status(run, state.status(run)) == "" and not notice.claim(
        run, started.pid, started.create_time
    )


def test_a_warm_worker_ends_with_its_folder(tmp_path: Path) -> None:
    worker = warm(tmp_path / "warm")
    harness.until((tmp_path / "warm/ready").exists, worker)
    (tmp_path / "warm").rename(tmp_path / "gone")
    assert worker.wait(harness.PATIENCE) == 0


def test_a_warm_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """A process in between starts the worker and dies."""
    script = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'finetui.core.worker', 'warm', sys.argv[1]], start_new_session=True)\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(3600)\n"
    )
    folder = tmp_path / "warm"
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    harness.until((folder / "ready").exists)
    assert worker.is_running()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    harness.until(lambda: waiting.has_ended(worker.pid))


def test_a_second_worker_is_refused_and_requests_are_served(tiny_model: Path, tiny_rows: Path) -> None:
    run = harness.make_run(
        harness.recipe(tiny_model, tiny_rows, max_steps=100_000, epochs=1000.0, sample_count=1)
    )
    first = harness.start("train", run)
    harness.until(lambda: harness.losses(run), first)
    second = harness.start("resume", run)
    assert harness.finish(second, run) == 2
    assert "another worker" in run.log.read_text()
    assert len(harness.events(run, Started)) == 1 and not harness.events(run, Ended)

    for name, kind in (("save", Checkpoint), ("sample", Sample), ("evaluate", Evaluation)):
        before = len(harness.events(run, kind))
        (run.control / name).touch()
        harness.until(lambda kind=kind, before=before: len(harness.events(run, kind)) > before, first)
    harness.until(lambda: not list(run.control.iterdir()), first)

    (run.control / "pause").touch()
    harness.until(lambda: harness.events(run, Paused), first)
    (paused,) = harness.events(run, Paused)
    assert max(harness.losses(run)) == paused.step
    for name, kind in (("save", Checkpoint), ("sample", Sample), ("evaluate", Evaluation)):
        (run.control / name).touch()  # served while it waits
        harness.until(lambda kind=kind: harness.events(run, kind)[-1].step == paused.step, first)
    readings = len(harness.events(run, Device))
    harness.until(lambda: len(harness.events(run, Device)) > readings + 1, first)
    assert max(harness.losses(run)) == paused.step and not harness.events(run, Continued)
    (run.control / "continue").touch()
    harness.until(lambda: max(harness.losses(run)) > paused.step, first)
    (continued,) = harness.events(run, Continued)
    assert continued.step == paused.step and continued.seconds > 1

    (run.control / "pause").touch()
    harness.until(lambda: len(harness.events(run, Paused)) == 2, first)
    first.send_signal(signal.SIGTERM)
    assert harness.finish(first, run) == 0
    steps = [step.step for step in harness.events(run, Step)]
    assert steps == list(range(1, len(steps) + 1))
    assert harness.ended(run).reason == "stopped"
    assert harness.events(run, Checkpoint)[-1].step == harness.events(run, Paused)[-1].step == steps[-1]
    assert (run.adapter / "adapter_model.safetensors").is_file()


def test_a_stop_during_the_import_ends_before_training(tiny_model: Path, tiny_rows: Path) -> None:
    run = harness.make_run(harness.recipe(tiny_model, tiny_rows))
    worker = harness.start("train", run)
    harness.until(lambda: harness.events(run, Started), worker)
    (run.control / "stop").touch()
    assert harness.finish(worker, run) == 0
    assert harness.ended(run).reason == "stopped" and not harness.events(run, Step)


@pytest.fixture
def talkative(tiny_model: Path, tiny_rows: Path) -> RunFolder:
    """A run whose samples take a while: forty prompts, of which no answer comes to its end."""
    recipe = harness.recipe(tiny_model, tiny_rows, max_steps=100_000, epochs=1000.0, sample_count=20)
    asked = tuple(f"Which colour is {number}?" for number in range(20))
    training = recipe.training.model_copy(update={"sample_prompts": asked, "evaluate_every_steps": 0})
    data = recipe.dataset.model_copy(update={"evaluation_share": 0.5})
    return harness.make_run(recipe.model_copy(update={"training": training, "dataset": data}))


def samplings(run: RunFolder) -> int:
    """How often the worker has begun to answer the prompts."""
    return sum(told.stage == "sample" and told.done == 0 for told in harness.events(run, Progress))


@pytest.mark.parametrize("request_name", ["stop", "stop-now", "SIGTERM"])
def test_a_stop_ends_the_answers_before_the_first_step(talkative: RunFolder, request_name: str) -> None:
    run, worker = talkative, harness.start("train", talkative)
    harness.until(lambda: samplings(run), worker)
    if request_name == "SIGTERM":
        worker.send_signal(signal.SIGTERM)
    else:
        (run.control / request_name).touch()
    assert harness.finish(worker, run) == 0
    assert harness.ended(run).reason == "stopped"
    assert not harness.events(run, Sample) and not harness.events(run, Step)
    assert (
        not run.adapter.exists() and not list(run.checkpoints.iterdir()) and not list(run.control.iterdir())
    )


@pytest.mark.parametrize("request_name", ["stop", "stop-now"])
def test_a_stop_ends_the_answers_between_two_steps_and_other_requests_wait(
    talkative: RunFolder, request_name: str
) -> None:
    run, worker = talkative, harness.start("train", talkative)
    harness.until(lambda: samplings(run), worker)
    for name in ("pause", "save", "evaluate"):  # asked for while it answers
        (run.control / name).touch()
    harness.until(lambda: harness.events(run, Paused), worker)
    (paused,) = harness.events(run, Paused)
    at_once = [[e.step for e in harness.events(run, kind)] for kind in (Step, Checkpoint, Evaluation, Sample)]
    assert at_once == [[1], [1], [1], [0] * 40 + [1] * 40] and paused.step == 1

    (run.control / "continue").touch()
    harness.until(lambda: harness.events(run, Continued), worker)
    (run.control / "sample").touch()
    harness.until(lambda: samplings(run) == 3, worker)
    (run.control / request_name).touch()
    assert harness.finish(worker, run) == 0
    steps = harness.losses(run)
    assert harness.ended(run).reason == "stopped" and not list(run.control.iterdir())
    assert len(harness.events(run, Sample)) == 80, "those that were cut short are not told"
    assert [told.stage for told in harness.events(run, Progress)].count("train") == 1
    saved = [told.step for told in harness.events(run, Checkpoint)]
    assert saved == ([1, max(steps)] if request_name == "stop" else [1])
    assert run.adapter.exists() == (request_name == "stop") and len(harness.events(run, Paused)) == 1


def test_a_wrong_command_line_says_how() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "finetui.core.worker", "dance"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "usage:" in done.stderr


@pytest.mark.parametrize("tail", [b"", b'{"v":1,"seq":3,"ts":1.0,"ki'])
def test_the_writer_goes_on_where_the_file_ends(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.emit(Evaluation(1, 2.0))
    writer.emit(Evaluation(2, 1.0))
    writer.close()
    with path.open("ab") as file:
        file.write(tail)
    again = EventWriter(path)
    again.emit(Evaluation(3, 0.5))
    again.close()
    from finetui.core.runs.event_log import read_all

    assert [(r.seq, r.event) for r in read_all(path)] == [
        (n, Evaluation(n, loss)) for n, loss in ((1, 2.0), (2, 1.0), (3, 0.5))
    ]


def test_the_writer_tells_each_kind_of_warning_once(tmp_path: Path) -> None:
    heard: list[str] = []
    writer = EventWriter(tmp_path / "none" / "events.jsonl", lambda warned: heard.append(warned.code))
    for code in ("a", "b", "a", "a"):
        writer.emit(Warned(code, "Something is wrong."))
    assert heard == ["a", "b"], "also where it cannot be written"


def test_events_wait_while_they_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    writer = EventWriter(folder / "events.jsonl")
    writer.emit(Evaluation(1, 2.0))  # no such folder: an OSError inside, none outside
    folder.mkdir()
    writer.emit(Evaluation(2, 1.0))
    from finetui.core.runs.event_log import read_all

    assert [(r.seq, r.event) for r in read_all(folder / "events.jsonl")] == [
        (1, Evaluation(1, 2.0)),
        (2, Evaluation(2, 1.0)),
    ]
