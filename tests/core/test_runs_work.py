"""Launching, asking, killing and following, with real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from finetui.core.errors import FinetuiError
from finetui.core.runs import control, event_log, follow, history, launch, manifest, state, store, warm
from finetui.core.runs.curves import Curves
from finetui.core.runs.event_log import Record
from finetui.core.runs.events import (
    Checkpoint,
    Device,
    Ended,
    Evaluation,
    Event,
    Paused,
    Progress,
    Started,
    Step,
)
from tests.waiting import until

from .run_events import HOST, run

__all__ = ["run"]


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes that sleep; `words` are further arguments, there to be seen on their command line."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        code = "import subprocess, sys, time; print('up', flush=True); time.sleep(600)"
        child = subprocess.Popen(
            [sys.executable, "-c", code, *words], start_new_session=True, stdout=subprocess.PIPE
        )
        assert child.stdout and child.stdout.readline() == b"up\n"
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


def append(run: store.RunFolder, *records: Record) -> None:
    with run.events.open("ab") as file:
        file.write(b"".join(event_log.encode(r) for r in records))


def at_work(run: store.RunFolder, child: subprocess.Popen[bytes], shift: float = 0.0) -> None:
    made = psutil.Process(child.pid).create_time() + shift
    now = time.time()
    append(run, Record(1, now, Started("train", child.pid, made, HOST)), Record(2, now, Progress("train")))


def test_a_request_is_one_file_and_asking_twice_is_asking_once(run, process) -> None:
    at_work(run, process())
    control.request(run, "stop")
    control.request(run, "stop")
    control.request(run, "save")
    assert sorted(p.name for p in run.control.iterdir()) == ["save", "stop"]
    assert control.pending(run) == ("stop", "save")
    control.clear(run)
    assert control.pending(run) == ()


MOMENTS = {
    "loading": (("train", Progress("load")), "first step", "nothing was learned"),
    "at the first step": (("train", Progress("train", 0, 9)), "this step", "saves after this step"),
    "evaluating": (
        ("train", Step(4, 9, 0.1, 2.5, 1e-4), Progress("evaluate", 1, 3)),
        "step",
        "breaks the evaluation off, saves",
    ),
    "after an evaluation": (
        ("train", Step(4, 9, 0.1, 2.5, 1e-4), Progress("evaluate", 3, 3)),
        "this step",
        "saves after this step",
    ),
    "sampling": (
        ("train", Step(4, 9, 0.1, 2.5, 1e-4), Progress("sample", 1, 3)),
        "step",
        "samples off, saves",
    ),
    "resumed, loading": (("resume", Progress("load")), "first step", "nothing was learned"),
}
WAITING: tuple[control.Request, ...] = ("pause", "save", "evaluate", "sample")


def at(run: store.RunFolder, child: subprocess.Popen[bytes], job: str, *happened: Event) -> None:
    made = psutil.Process(child.pid).create_time()
    told = (Started(job, child.pid, made, HOST), *happened)
    append(run, *(Record(n, time.time(), event) for n, event in enumerate(told, 1)))


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_answer_to_a_request_is_what_follows_at_that_stage(run, process, moment: str) -> None:
    (job, *happened), after, stop = MOMENTS[moment]
    at(run, process(), job, *happened)
    answers = {name: control.request(run, name) for name in WAITING}
    assert all(after in answers[name] for name in WAITING if name != "pause"), answers
    assert answers["pause"].startswith("Pausing after") and answers["pause"] in control.PAUSING
    assert control.request(run, "continue") == "It goes on, without a pause."
    assert stop in control.request(run, "stop")


NO_STEPS = {
    "exporting at the end": ("train", Step(9, 9, 1.0, 2.5, 1e-4), Progress("export", 0, 2)),
    "scoring": ("resume", Step(9, 9, 1.0, 2.5, 1e-4), Progress("score", 0, 2)),
    "at the last evaluation": ("train", Step(9, 9, 1.0, 2.5, 1e-4), Progress("evaluate", 0, 2)),
    "an export": ("export", Progress("export", 0, 2)),
    "a verification that loads": ("verify", Progress("load")),
    "a probe": ("probe", Progress("load")),
}


@pytest.mark.parametrize("moment", NO_STEPS)
def test_what_no_step_would_answer_is_refused_and_a_stop_says_what_is_kept(run, process, moment: str) -> None:
    at(run, process(), *NO_STEPS[moment])
    for name in (*WAITING, "continue"):
        with pytest.raises(FinetuiError) as caught:
            control.request(run, name)
        assert caught.value.code == "no-steps" and "step" in caught.value.why
    assert control.pending(run) == ()
    assert control.request(run, "stop") == "Stopping: what is done is kept, and the rest is left out."
    assert state.status(run).eta_seconds is None


def test_a_result_that_waits_for_room_can_go_on_or_be_given_up(run, process) -> None:
    at(run, process(), "train", Step(9, 9, 1.0, 2.5, 1e-4), Progress("save", 0, 1), Paused(9))
    assert control.request(run, "continue") == "Going on."
    assert "given up" in control.request(run, "stop")
    with pytest.raises(FinetuiError):
        control.request(run, "save")


def test_no_pause_after_the_last_step(run, process) -> None:
    at(run, process(), "train", Step(8, 9, 1.0, 2.5, 1e-4))
    with pytest.raises(FinetuiError) as caught:
        control.request(run, "pause")
    assert caught.value.why == "Its last step is under way."
    assert "after this step" in control.request(run, "save")


@pytest.mark.parametrize(("checkpoint", "way"), [(True, "finetui resume"), (False, "finetui train")])
def test_who_stops_what_does_not_run_is_told_what_can_be_done(run, checkpoint: bool, way: str) -> None:
    kept = (Checkpoint(1, "checkpoints/checkpoint-1"),) if checkpoint else ()
    told = (
        Started("train", 2**22 + 1, 1.0, HOST),
        Step(1, 9, 0.1, 2.5, 1e-4),
        *kept,
        Ended("train", "stopped"),
    )
    append(run, *(Record(n, time.time(), event) for n, event in enumerate(told, 1)))
    with pytest.raises(FinetuiError) as caught:
        control.request(run, "stop")
    assert way in caught.value.fix


@pytest.mark.parametrize("name", control.REQUESTS)
def test_nobody_is_asked_where_no_worker_lives(run, process, name) -> None:
    child = process()
    at_work(run, child, shift=-10)  # the pid lives, but it is another process by now
    with pytest.raises(FinetuiError) as caught:
        control.request(run, name)
    assert caught.value.code == "run-not-running"
    assert list(run.control.iterdir()) == []
    with pytest.raises(FinetuiError):
        control.kill(run)
    assert child.poll() is None


def test_only_known_requests(run, process) -> None:
    at_work(run, process())
    with pytest.raises(ValueError):
        control.request(run, "../stop")  # type: ignore[arg-type]


def test_kill_spares_a_process_that_is_no_worker(run, process) -> None:
    child = process()
    at_work(run, child)
    with pytest.raises(FinetuiError) as caught:
        control.kill(run)
    assert caught.value.code == "not-a-worker"
    assert child.poll() is None


def test_kill_ends_a_worker_and_the_run_shows_as_crashed(run, process) -> None:
    child = process("finetui.core.worker", "train", str(run.path))
    at_work(run, child)
    control.kill(run)
    assert child.wait(60) == -signal.SIGKILL
    assert state.status(run).state == "crashed"
    with pytest.raises(FinetuiError) as caught:
        control.kill(run)
    assert caught.value.code == "run-not-running"


def test_kill_does_not_reach_another_machine(run) -> None:
    append(run, Record(1, time.time(), Started("train", 1, 1.0, "far-away")))
    with pytest.raises(FinetuiError) as caught:
        control.kill(run)
    assert caught.value.code == "run-elsewhere"


def test_a_worker_gets_a_session_its_own_log_and_no_import_from_where_it_stands(run, monkeypatch) -> None:
    monkeypatch.setattr(launch, "WORKER_MODULE", "json.tool")  # a stand-in that ends at once, with words
    (run.path / "json.py").write_text("raise SystemExit('imported from the run folder')")
    launch.start(run, "train")
    written = manifest.read(run)
    assert written and written.how == "cold" and written.host == HOST and written.starts == 1
    until(lambda: not state.worker_alive(written.pid, written.create_time, HOST))
    until(lambda: not psutil.pid_exists(written.pid))  # reaped: no zombie stays behind
    assert run.log.stat().st_mode & 0o077 == 0
    assert b"imported from the run folder" not in run.log.read_bytes()
    assert run.log.read_bytes()
    seen = state.status(run)
    assert seen.state == "crashed" and seen.pid == written.pid


def test_a_run_with_a_worker_takes_no_second_one(run, process) -> None:
    at_work(run, process())
    with pytest.raises(FinetuiError) as caught:
        launch.start(run, "resume")
    assert caught.value.code == "run-busy"
    assert not run.manifest.exists()


def test_too_little_disk_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(FinetuiError) as caught:
        launch.check_disk(tmp_path / "not" / "yet", shutil.disk_usage(tmp_path).free * 2)
    assert caught.value.code == "disk-full"
    launch.check_disk(tmp_path / "not" / "yet", 1)


def test_the_worker_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINETUI_HOME", "here")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    environment = launch.worker_environment()
    assert environment["FINETUI_HOME"] == str(tmp_path / "here")
    assert environment["UNSLOTH_DISABLE_STATISTICS"] == "1"
    assert environment["UNSLOTH_AUTO_INSTALL"] == "0"
    assert Path(environment["UNSLOTH_COMPILE_LOCATION"]).is_absolute()
    assert environment["HF_TOKEN"] == "hf_abcdefghijklmnop"
    assert os.environ["FINETUI_HOME"] == "here"


def test_relative_paths_become_absolute_and_hub_ids_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetui.core.recipe import DatasetSection, ModelSection, Recipe

    monkeypatch.chdir(tmp_path)
    beside = tmp_path / "recipes"
    (beside / "org").mkdir(parents=True)
    (beside / "rows.jsonl").write_text("{}")
    (beside / "org" / "model").mkdir()

    def sources(model: str, dataset: str) -> tuple[str, str]:
        made = Recipe(model=ModelSection(source=model), dataset=DatasetSection(source=dataset))
        after = launch.resolved(made, beside)
        return after.model.source, after.dataset.source

    assert sources("demo", "demo") == ("demo", "demo")
    assert sources("Qwen/Qwen3-0.6B", "mlabonne/FineTome-100k") == (
        "Qwen/Qwen3-0.6B",
        "mlabonne/FineTome-100k",
    )
    assert sources("org/model", "rows.jsonl") == (str(beside / "org/model"), str(beside / "rows.jsonl"))
    assert sources("./gone", "gone.csv") == (str(beside / "gone"), str(beside / "gone.csv"))


def test_a_warm_worker_that_died_is_not_given_a_job(run, monkeypatch) -> None:
    monkeypatch.setattr(launch, "WORKER_MODULE", "json.tool")
    waiting = warm.Warm.start()
    assert waiting.folder.is_dir()
    until(lambda: not waiting.alive)
    assert not waiting.ready
    launch.start(run, "train", warm=waiting)
    written = manifest.read(run)
    assert written and written.how == "cold" and written.pid != waiting.pid
    waiting.close()
    waiting.close()
    assert not waiting.folder.exists()


def test_a_run_that_cannot_be_resumed_says_why(run) -> None:
    append(
        run,
        Record(1, 1.0, Started("train", 2**22 + 1, 1.0, HOST)),
        Record(2, 2.0, Ended("train", "completed")),
    )
    with pytest.raises(FinetuiError) as trained:
        launch.check_resumable(run)
    run.events.unlink()
    append(
        run, Record(1, 1.0, Started("train", 2**22 + 1, 1.0, HOST)), Record(2, 2.0, Ended("train", "stopped"))
    )
    with pytest.raises(FinetuiError) as early:
        launch.check_resumable(run)
    assert trained.value.code == early.value.code == "nothing-to-resume"
    assert trained.value.what != early.value.what
    (run.checkpoints / "step-5").mkdir()
    launch.check_resumable(run)


def test_a_follower_gives_each_record_once_and_sees_the_end(run, process) -> None:
    child = process()
    follower = follow.Follower(run)
    assert follower.poll() == []
    assert follower.status.state == "starting"
    at_work(run, child)
    assert [r.seq for r in follower.poll()] == [1, 2]
    assert follower.poll() == []
    whole = event_log.encode(Record(3, time.time(), Step(1, 2, 0.5, 1.0, 1e-4)))
    with run.events.open("ab") as file:
        file.write(whole[:20])
        file.flush()
        assert follower.poll() == []
        file.write(whole[20:])
    assert [r.seq for r in follower.poll()] == [3]
    assert follower.status.step == 1
    child.kill()
    child.wait()
    append(run, Record(4, time.time(), Ended("train", "completed")))
    assert (
        follower.status.state == "completed"
    )  # its last word came between the poll and the look at the process
    assert [r.seq for r in follower.poll()] == [4]


def test_two_followers_see_the_same(run, process) -> None:
    at_work(run, process())
    first, second = follow.Follower(run), follow.Follower(run)
    assert first.poll() == second.poll() != []


def test_of_a_long_run_the_ends_come_first_and_all_of_it_follows(run, process) -> None:
    at_work(run, process())
    now, total, seq = time.time(), 120_000, 2
    with run.events.open("ab") as file:
        for n in range(1, total + 1):
            seq += 1
            file.write(
                event_log.encode(
                    Record(seq, now, Step(n, total, n / total, 1.0, 1e-4, 0.5, n, n, 100.0, 1.0))
                )
            )
            if n % 10_000 == 0:
                seq += 2
                file.write(event_log.encode(Record(seq - 1, now, Evaluation(n, 2.0 - n / total))))
                file.write(event_log.encode(Record(seq, now, Device("cpu", "x"))))
    assert run.events.stat().st_size > follow.LONG_BYTES
    follower = follow.Follower(run, keep=True)
    got = follower.poll()
    steps = [r.event.step for r in got if isinstance(r.event, Step)]
    assert steps == list(range(steps[0], total + 1)) and 1000 < len(steps) < total / 10
    assert follower.status.step == total and follower.skipped == 0 and follower.gap is not None
    append(run, Record(seq + 1, now + 1, Step(total + 1, total + 1, 1.0, 0.5, 1e-4)))
    assert [r.seq for r in follower.poll()] == [seq + 1]
    others: list[Record] = []
    curves = Curves()
    past = history.History(run.events, follower.gap, curves, others.append)
    assert past.read() and past.share == 1.0
    assert curves.steps + len(steps) == total and curves.newest == steps[0] - 1
    taken = follower.adopt(past.reducer)
    assert len([r for r in (*others, *taken) if isinstance(r.event, Evaluation)]) == 12
    assert follower.status.best_evaluation_loss == pytest.approx(1.0) and follower.status.step == total + 1
