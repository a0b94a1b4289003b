"""A run's state, derived from event files and from processes that really live or have really died."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest

from finetui.core.runs import event_log, manifest, state, store
from finetui.core.runs.event_log import Record
from finetui.core.runs.events import (
    Checkpoint,
    Device,
    Ended,
    Evaluation,
    Event,
    Exported,
    Progress,
    Started,
    Warned,
)
from finetui.core.worker.events import EventWriter
from tests.waiting import has_ended, until

from .run_events import HOST, gone, run, signed, sleeper, step, write

__all__ = ["run", "sleeper"]


UNHEARD = "The worker is alive, but its events cannot be written"


def test_a_worker_that_cannot_write_is_told_from_one_at_a_long_step(
    run: store.RunFolder, sleeper: subprocess.Popen[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    """Under a limit on the size of files. A full disk: test_full_disk.py."""
    write(run, signed(sleeper), step(1), start=time.time() - 60)
    assert state.status(run).unwritten == ""
    writer = EventWriter(run.events)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (run.events.stat().st_size, before[1]))
    try:
        writer.emit(step(2))
        writer.emit(step(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "File too large" in said
    assert state.status(run).unwritten.startswith(f"{UNHEARD}: File too large")
    writer.emit(step(4))
    assert state.status(run).unwritten == ""

    write(run, signed(sleeper), step(5), start=time.time() - 60)
    run.log.write_text(f"Unsloth\n{said}more\n")
    assert state.status(run).unwritten == "", "what is printed is no word of the worker's"


def test_a_fresh_folder_is_starting_and_an_old_empty_one_never_started(run: store.RunFolder) -> None:
    assert state.status(run).state == "starting"
    os.utime(run.path, (1, 1))
    seen = state.status(run)
    assert seen.state == "crashed"
    assert seen.card and seen.card.code == "never-started"


def test_a_run_at_work(run: store.RunFolder, sleeper: subprocess.Popen[bytes]) -> None:
    write(
        run,
        signed(sleeper),
        Progress("train", 3, 10, "steps"),
        step(1, 3.0),
        Evaluation(1, 2.5),
        step(2, 2.0),
        Evaluation(2, 2.9),
        step(3, 1.5),
        Warned("slow", "It is slow."),
        Checkpoint(3, "checkpoints/step-3"),
    )
    seen = state.status(run)
    assert (seen.state, seen.job, seen.stage, seen.step, seen.total_steps) == (
        "running",
        "train",
        "train",
        3,
        10,
    )
    assert (seen.loss, seen.evaluation_loss, seen.best_evaluation_loss, seen.best_evaluation_step) == (
        1.5,
        2.9,
        2.5,
        1,
    )
    assert seen.live and seen.card is None and seen.warnings == 1 and seen.checkpoint_step == 3
    assert 7.9 <= seen.seconds
    assert seen.eta_seconds is not None and 0 <= seen.eta_seconds <= 7 * 2.0


def test_after_an_evaluation_it_is_training_again(
    run: store.RunFolder, sleeper: subprocess.Popen[bytes]
) -> None:
    write(run, signed(sleeper), step(2), Progress("evaluate", 5, 5, "batches"), Evaluation(2, 0.5), step(3))
    now = state.status(run)
    assert (now.stage, now.stage_done, now.stage_total) == ("train", 3, 10)


def test_started_alone_is_starting(run: store.RunFolder, sleeper: subprocess.Popen[bytes]) -> None:
    write(run, signed(sleeper))
    assert state.status(run).state == "starting"


@pytest.mark.parametrize("reason", ["completed", "stopped", "failed"])
def test_the_end_has_its_reason(run: store.RunFolder, reason: str) -> None:
    write(run, gone(), step(1), Ended("train", reason, 42.0, what="Bad.", why="So.", fix="Do.", code="bad"))
    seen = state.status(run)
    assert seen.state == reason
    assert seen.seconds == 42.0 and seen.eta_seconds is None and not seen.live
    assert seen.card == (state.Card("Bad.", "So.", "Do.", "bad") if reason == "failed" else None)
    assert seen.trained == (reason == "completed")


def test_an_end_whose_reason_is_not_known_is_a_failure(run: store.RunFolder) -> None:
    write(run, gone(), Ended("train", "eaten by a bear"))
    assert state.status(run).state == "failed"


@pytest.mark.parametrize(
    ("log", "code"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out-of-memory-gpu"),
        ("OSError: [Errno 28] No space left on device", "disk-full"),
        ("Traceback…\nMemoryError", "out-of-memory-host"),
        ("Killed", "killed"),
        ("Fatal Python error: Segmentation fault", "native-crash"),
        ("Traceback (most recent call last):\n  …\nValueError: bad \x1b[31mthing", "crashed"),
        ("all is well", "vanished"),
        (None, "vanished"),
    ],
)
def test_a_worker_that_vanished_has_crashed_with_what_the_log_knows(
    run: store.RunFolder, log: str | None, code: str
) -> None:
    write(run, gone(), step(1))
    if log is not None:
        run.log.write_text(log)
    seen = state.status(run)
    assert seen.state == "crashed" and seen.card is not None
    assert seen.card.code == code
    assert seen.card.what and seen.card.why and seen.card.fix
    assert "\x1b" not in seen.card.why
    assert "start it again" in seen.card.fix.lower()
    (run.checkpoints / "step-1").mkdir()
    again = state.status(run).card
    assert again and f"finetui resume {run.id}" in again.fix


FORGED = "RuntimeError: CUDA out of memory"
DYING = f"""
import os, sys
from pathlib import Path
from finetui.core.worker import logs
logs.redirect(Path(sys.argv[1]))
logs.keep_last_words(Path(sys.argv[2]))
print({FORGED!r}, flush=True)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os.kill(os.getpid(), 9)", "vanished"),
        ("raise ValueError('bad')", "crashed"),
        ("raise MemoryError", "out-of-memory-host"),
        ("os.kill(os.getpid(), 11)", "native-crash"),
        ("os.abort()", "native-crash"),
        ("print('  what():  std::bad_alloc', flush=True); os.abort()", "out-of-memory-host"),
    ],
)
def test_a_printed_row_is_no_cause_of_death(run: store.RunFolder, end: str, code: str) -> None:
    write(run, gone(), step(1))
    run.last_words.write_text("MemoryError of an earlier worker")
    argv = [sys.executable, "-c", f"{DYING}\nprint('100%\\n100%', flush=True)\n{end}"]
    ended = subprocess.run([*argv, str(run.log), str(run.last_words)], check=False)
    assert ended.returncode != 0 and FORGED in run.log.read_text()
    card = state.status(run).card
    assert card is not None and card.code == code, card


def test_a_real_worker_killed_is_crashed_at_once_and_a_zombie_is_dead(
    run: store.RunFolder, sleeper: subprocess.Popen[bytes]
) -> None:
    write(run, signed(sleeper), step(1))
    assert state.status(run).live
    sleeper.send_signal(signal.SIGKILL)
    until(lambda: has_ended(sleeper.pid))
    assert state.status(run).state == "crashed"  # nobody has waited for it: it is a zombie still


def test_a_reused_pid_is_not_the_worker(run: store.RunFolder, sleeper: subprocess.Popen[bytes]) -> None:
    made = psutil.Process(sleeper.pid).create_time()
    assert state.worker_alive(sleeper.pid, made, HOST) is True
    assert state.worker_alive(sleeper.pid, made - 5, HOST) is False
    write(run, Started("train", sleeper.pid, made - 5, HOST), step(1))
    assert state.status(run).state == "crashed"


@pytest.mark.parametrize("pid", [-1, 0, 2**31, 2**80])
def test_a_pid_that_cannot_be(pid: int) -> None:
    assert state.worker_alive(pid, 1.0, HOST) is False


def test_another_host_is_believed_while_it_speaks(run: store.RunFolder) -> None:
    write(run, Started("train", 1, 1.0, "far-away"), Progress("train"), step(1))
    seen = state.status(run)
    assert seen.state == "running" and seen.elsewhere and seen.host == "far-away"
    run.events.unlink()
    write(run, Started("train", 1, 1.0, "far-away"), step(1), start=1000.0)
    os.utime(run.events, (1002, 1002))
    seen = state.status(run)
    assert seen.state == "crashed" and seen.elsewhere and seen.card and seen.card.code == "no-word"


def launched(run: store.RunFolder, process: subprocess.Popen[bytes], job: str, ts: float) -> None:
    made = psutil.Process(process.pid).create_time()
    manifest.write(run, manifest.Manifest(job, process.pid, made, HOST, ts))


def test_a_new_worker_that_has_not_spoken_yet_is_starting(
    run: store.RunFolder, sleeper: subprocess.Popen[bytes]
) -> None:
    write(run, gone(), step(4), Ended("train", "stopped", 3.0))
    launched(run, sleeper, "resume", time.time())
    seen = state.status(run)
    assert (seen.state, seen.job, seen.pid, seen.step) == ("starting", "resume", sleeper.pid, 4)
    sleeper.kill()
    sleeper.wait()
    assert state.status(run).state == "crashed"


def test_a_second_worker_that_was_turned_away_does_not_hide_the_first(
    run: store.RunFolder, sleeper: subprocess.Popen[bytes]
) -> None:
    write(run, signed(sleeper), Progress("train"), step(4))
    manifest.write(run, manifest.Manifest("resume", 2**22 + 1, 1.0, HOST, time.time() + 1))
    seen = state.status(run)
    assert (seen.state, seen.job, seen.pid) == ("running", "train", sleeper.pid)


def test_an_export_after_training(run: store.RunFolder, sleeper: subprocess.Popen[bytes]) -> None:
    write(run, gone(), step(10), Ended("train", "completed", 3.0))
    write(run, signed(sleeper, "export"), Progress("export", 1, 2))
    assert (state.status(run).state, state.status(run).job) == ("running", "export")
    write(
        run,
        Exported("gguf_f16", "exports/a", 5),
        Exported("gguf_f16", "exports/b", 6),
        Ended("export", "failed"),
    )
    seen = state.status(run)
    assert seen.state == "failed" and seen.trained
    assert [e.path for e in seen.exports] == ["exports/b"]


@pytest.mark.parametrize(
    ("training", "job", "reason", "called"),
    [
        ("completed", "export", "failed", ("completed", "export failed")),
        ("completed", "verify", "failed", ("completed", "proof failed")),
        ("completed", "export", "", ("completed", "export crashed")),
        ("completed", "export", "stopped", ("completed", "")),
        ("stopped", "export", "failed", ("stopped", "export failed")),
        ("stopped", "export", "completed", ("stopped", "")),
        ("failed", "", "", ("failed", "")),
        ("completed", "resume", "failed", ("failed", "")),
    ],
)
def test_a_run_is_called_by_its_training(
    run: store.RunFolder, training: str, job: str, reason: str, called: tuple[str, str]
) -> None:
    write(run, gone(), step(10), Ended("train", training, 10_800.0))
    if job:
        write(run, gone(job), *((Ended(job, reason, 12.0, "It cannot be."),) if reason else ()))
    seen = state.status(run)
    assert (seen.standing, seen.aside) == called
    assert (seen.card is not None) == (seen.state in ("failed", "crashed"))


def test_the_training_takes_what_its_jobs_took(run: store.RunFolder) -> None:
    write(run, gone(), step(1), step(2), start=1000.0, gap=50.0)  # which vanished after 100 s
    assert state.status(run).training_seconds == 100.0
    write(run, gone("resume"), step(3), Ended("resume", "completed", 10_000.0), start=5000.0)
    write(run, gone("export"), Ended("export", "completed", 12.0), start=20_000.0)
    seen = state.status(run)
    assert (seen.seconds, seen.training_seconds) == (12.0, 10_100.0)
    write(run, gone(), step(1), start=30_000.0, gap=7.0)
    assert state.status(run).training_seconds == 7.0  # it was begun anew


def test_a_resumed_run_shows_its_newest_attempt(
    run: store.RunFolder, sleeper: subprocess.Popen[bytes]
) -> None:
    write(run, gone(), step(1), Evaluation(1, 0.3), step(2, 0.9), Evaluation(2, 0.1), step(3, 0.8))
    write(run, signed(sleeper, "resume"), Progress("train"), step(2, 0.7))
    seen = state.status(run)
    assert (seen.step, seen.loss, seen.job) == (2, 0.7, "resume")
    assert (seen.best_evaluation_loss, seen.best_evaluation_step) == (0.3, 1)  # step 2 was taken back


def many(run: store.RunFolder, count: int, *before: Event) -> None:
    write(run, *before)
    seq, ts = len(before) + 1, time.time()
    with run.events.open("ab") as file:
        file.write(
            b"".join(
                event_log.encode(Record(seq + i, ts, step(i + 1, float(i), count))) for i in range(count)
            )
        )


def test_a_long_run_is_told_from_its_two_ends(run: store.RunFolder, sleeper: subprocess.Popen[bytes]) -> None:
    many(run, 30_000, signed(sleeper), Progress("train"), Evaluation(0, 5.0))
    for i in range(2_000):
        with run.events.open("ab") as file:
            file.write(event_log.encode(Record(40_000 + i, time.time(), Device("cuda", "x" * 400))))
    assert run.events.stat().st_size > 4 * state.WHOLE_BYTES
    seen = state.status(run)
    assert (seen.state, seen.job, seen.step, seen.total_steps) == ("running", "train", 30_000, 30_000)
    assert seen.best_evaluation_loss is None  # not all was read


def test_a_long_run_whose_resume_stands_in_the_middle(
    run: store.RunFolder, sleeper: subprocess.Popen[bytes]
) -> None:
    write(run, gone(), step(1), start=time.time() - 100)
    launched(run, sleeper, "resume", time.time() - 50)
    many(run, 20_000)
    with run.events.open("ab") as file:
        file.write(event_log.encode(Record(50_000, time.time() + 1, Progress("evaluate"))))
    lines = run.events.read_bytes().splitlines(keepends=True)
    padding = b"".join(event_log.encode(Record(3 + i, time.time() - 90, step(i + 2))) for i in range(3000))
    run.events.write_bytes(b"".join(lines[:2]) + padding + b"".join(lines[2:]))
    seen = state.status(run)
    assert (seen.state, seen.job, seen.pid) == ("running", "resume", sleeper.pid)


def test_the_manifest_is_read_back_and_a_broken_one_is_none(run: store.RunFolder) -> None:
    written = manifest.Manifest(
        "export", 5, 2.5, HOST, 7.5, "warm", ("adapter", "merged"), versions={"a": "1"}
    )
    manifest.write(run, written)
    assert manifest.read(run) == written
    assert run.manifest.stat().st_mode & 0o077 == 0
    assert json.loads(run.manifest.read_text())["v"] == 1
    for broken in (b"", b"{", b"[]", b'{"pid": "x"}', b"\xff", b"[" * 100_000):
        run.manifest.write_bytes(broken)
        assert manifest.read(run) is None
