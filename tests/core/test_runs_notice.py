"""The person's own command at the end of a run."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path

import psutil
import pytest

from finetui.core.runs import event_log, events, notice, state, store
from finetui.core.runs.event_log import Record
from finetui.core.runs.store import RunFolder
from tests.waiting import until

WRITES = (
    "import json, os, sys; open(sys.argv[1], 'a').write(json.dumps([dict(os.environ), sys.argv[2:]]) + '\\n')"
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    return store.create("kiosk")


def _asks(monkeypatch: pytest.MonkeyPatch, target: Path, *words: str) -> None:
    monkeypatch.setenv(notice.VARIABLE, shlex.join([sys.executable, "-c", WRITES, str(target), *words]))


def _written(target: Path) -> list[tuple[dict[str, str], list[str]]]:
    until(lambda: target.exists() and target.read_text().endswith("\n"), "for the command")
    return [(a, b) for a, b in map(json.loads, target.read_text().splitlines())]


def _crashed(run: RunFolder, reason: str | None = None) -> None:
    told: list[events.Event] = [events.Started("train", 2**22 - 3, 1.0, state.manifest.this_host(), "kiosk")]
    if reason:
        told.append(events.Ended("train", reason, 3.0))
    run.events.write_bytes(
        b"".join(event_log.encode(Record(n + 1, time.time(), e)) for n, e in enumerate(told))
    )


def test_it_is_told_once_without_a_shell_and_without_tokens(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "told"
    _asks(monkeypatch, target, "$(touch canary)", "; touch canary")
    monkeypatch.setenv("HF_TOKEN", "hf_canaryCANARYcanary")
    _crashed(run)
    status = state.status(run)
    assert status.state == "crashed"
    assert notice.of_status(run, status) == "" and notice.of_status(run, status) == ""
    ((environment, words),) = _written(target)
    assert words == ["$(touch canary)", "; touch canary"] and not list(tmp_path.rglob("canary"))
    assert "canaryCANARY" not in json.dumps(environment)
    assert (environment["FINETUI_RUN"], environment["FINETUI_RUN_STATE"]) == (run.id, "crashed")
    assert environment["FINETUI_RUN_NAME"] == "kiosk" and environment["FINETUI_RUN_JOB"] == "train"
    time.sleep(0.2)
    assert len(_written(target)) == 1


@pytest.mark.parametrize(
    "program",
    ["while True: pass", "while True: print('flood' * 1000)", "import os; os.kill(os.getpid(), 9)", "1 / 0"],
    ids=["hangs", "floods", "is killed", "fails"],
)
def test_nobody_waits_for_it_and_no_zombie_is_left(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    pid = tmp_path / "pid"
    said = f"import os, sys; open(sys.argv[1], 'a').write(f'{{os.getpid()}}\\n'); {program}"
    if program.startswith("while"):
        said = said.replace("; while", "\nwhile")
    monkeypatch.setenv(notice.VARIABLE, shlex.join([sys.executable, "-c", said, str(pid)]))
    _crashed(run)
    status = state.status(run)
    with store.alone(run):  # as a worker that tells of trouble
        assert notice.of_status(run, status) == "" and notice.of_status(run, status) == ""
    until(lambda: pid.exists() and pid.read_text(), "for the command")
    [number] = map(int, pid.read_text().split())
    with store.alone(run):  # it holds nothing of the run
        pass
    if program.startswith("while"):
        psutil.Process(number).kill()
    until(lambda: not psutil.pid_exists(number), "for its end, without a zombie")


def test_a_home_that_is_not_there_keeps_nobody_from_being_told(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _asks(monkeypatch, tmp_path / "told")
    monkeypatch.setenv("HOME", "/nonexistent")
    _crashed(run)
    assert notice.of_status(run, state.status(run)) == ""
    assert len(_written(tmp_path / "told")) == 1


def test_a_worker_tells_its_end_where_it_can_note_nothing_and_nobody_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _asks(monkeypatch, tmp_path / "told")
    gone = RunFolder(tmp_path / "gone")
    assert notice.claim(gone, os.getpid(), 1.0) and not notice.claim(gone, os.getppid(), 1.0)


def test_what_cannot_be_run_is_said(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notice.VARIABLE, "/no/such/program --now")
    _crashed(run, "completed")
    assert notice.of_status(run, state.status(run)) == "", "its worker has told it"
    _crashed(run)
    status = state.status(run)
    assert "FINETUI_NOTIFY could not be run" in notice.of_status(run, status)
    monkeypatch.setenv(notice.VARIABLE, "an 'open quote")
    assert notice.command() == [] and notice.of_status(run, status) == ""
    monkeypatch.delenv(notice.VARIABLE)
    assert not notice.claim(run, 1, 1.0)
