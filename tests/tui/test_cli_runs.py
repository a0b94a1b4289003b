"""Runs by command: listed, attached to and stopped, and left alone by a follower that ends."""

from __future__ import annotations

import errno
import json
import re
import signal
import subprocess
import time

import psutil
import pytest

from finetui.core.runs import event_log, silence, store
from finetui.core.runs.event_log import Record
from finetui.core.runs.events import Ended, Progress, Sample, Started, Step
from finetui.tui.commands import exits
from tests.waiting import until

from ..core.run_events import HOST, gone, sleeper
from .command_line import Cli, cli, make_run

__all__ = ["cli", "sleeper"]


def at_work(process: subprocess.Popen[bytes]) -> store.RunFolder:
    made = psutil.Process(process.pid).create_time()
    return make_run(
        Started("train", process.pid, made, HOST), Progress("train", 0, 9), Step(1, 9, 0.1, 2.5, 1e-4)
    )


def test_the_list_of_runs(cli: Cli, sleeper: subprocess.Popen[bytes]) -> None:
    assert "No run" in cli("runs").out and json.loads(cli("runs", "--json").out) == []
    done = make_run(gone(), Step(9, 9, 1.0, float("nan"), 1e-4), Ended("train", "completed", 61), name="done")
    live = at_work(sleeper)
    make_run(gone(), name="lost\x1b[31m")
    rows = {row["run"]: row for row in json.loads(cli("runs", "--json").out)}
    assert rows[done.id]["state"] == "completed" and rows[done.id]["loss"] is None
    assert rows[live.id]["state"] == "running" and rows[live.id]["step"] == 1
    assert sum(row["state"] == "crashed" for row in rows.values()) == 1
    text = cli("runs").out
    assert re.search(rf"{done.id} +completed +step 9/9 · loss nan · took 1 min 01 s", text)
    assert re.search(rf"{live.id} +running", text)


@pytest.mark.parametrize(
    ("reason", "code"),
    [("completed", exits.OK), ("stopped", exits.STOPPED), ("failed", exits.FAILED), ("", exits.CRASHED)],
)
def test_attach_tells_how_it_ended(cli: Cli, reason: str, code: int) -> None:
    ended = (Ended("train", reason, 5.0, "It broke.", "So.", "Do."),) if reason else ()
    run = make_run(
        gone(), Step(1, 9, 0.1, 2.5, 1e-4), Sample(1, 0, "hi", "a\x1b]52;c;AAAA\x07b\x9b31m‮"), *ended
    )
    for words in (("--plain",), ()):
        result = cli("attach", "last", *words)
        assert result.code == code and "step 1/9" in result.out and "loss 2.500" in result.out
        assert (reason or "crashed") in result.out
        assert "‮" not in result.out
    told = cli("attach", run.id, "--json")
    assert told.code == code
    lines = told.out.splitlines()
    if not reason:
        assert json.loads(lines.pop())["error"]["code"] == "vanished"
    assert "\n".join(lines) + "\n" == run.events.read_text()


def test_json_leaves_out_broken_lines(cli: Cli) -> None:
    run = make_run(gone(), Ended("train", "completed"))
    first, last = run.events.read_bytes().splitlines(keepends=True)
    run.events.write_bytes(first + b'{"torn": \n\xff\n[1]\n' + last)
    assert cli("attach", "last", "--json").out.encode() == first + last
    assert "3 lines of events.jsonl could not be read" in cli("attach", "last", "--plain").out


def test_a_worker_that_cannot_write_its_events_is_told_of(cli: Cli, sleeper: subprocess.Popen[bytes]) -> None:
    run = at_work(sleeper)
    told = [event_log.encode(Record(r.seq, r.ts - 60, r.event)) for r in event_log.read_all(run.events)]
    run.events.write_bytes(b"".join(told))
    silence.mark(run, errno.EIO)
    assert "cannot be written: Input/output error." in cli("runs").out
    follower = cli.start("attach", run.id, "--plain")
    said = follower.stdout
    assert said
    until(lambda: "cannot be written: Input/output" in said.readline())
    follower.kill()
    follower.communicate()


def test_stop_leaves_a_request_and_kill_spares_a_stranger(cli: Cli, sleeper: subprocess.Popen[bytes]) -> None:
    run = at_work(sleeper)
    assert cli("stop", "try").code == 0
    assert cli("stop", run.id[:12]).code == 0
    assert [p.name for p in run.control.iterdir()] == ["stop"]
    assert json.loads(cli("stop", str(run.path), "--now", "--json").out)["request"] == "stop-now"
    assert cli("stop", "try", "--kill").code == exits.REFUSED
    assert cli("resume", "try").code == exits.REFUSED
    assert sleeper.poll() is None


def test_a_stop_says_how_the_run_goes_on_and_the_rest_is_refused_where_no_step_comes(
    cli: Cli, sleeper: subprocess.Popen[bytes]
) -> None:
    made = psutil.Process(sleeper.pid).create_time()
    learning = at_work(sleeper)
    assert f"finetui resume {learning.id}" in cli("stop", learning.id).out
    assert f"finetui train {learning.recipe}" in cli("stop", learning.id, "--now").out
    loading = make_run(Started("train", sleeper.pid, made, HOST), Progress("load"), name="loading")
    assert "after the first step" in cli("pause", loading.id).out
    said = cli("stop", loading.id).out
    assert "before the first step" in said and f"finetui train {loading.recipe}" in said, said
    over = (Step(9, 9, 1.0, 2.5, 1e-4, seconds=1.0), Progress("export", 0, 2))
    exporting = make_run(Started("train", sleeper.pid, made, HOST), *over, name="exporting")
    for name in ("pause", "save", "evaluate", "sample"):
        told = cli(name, exporting.id)
        assert told.code == exits.REFUSED and "The training is over" in told.err, told
    listed = next(line for line in cli("runs").out.splitlines() if exporting.id in line)
    assert "export" in listed and "left" not in listed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("words", [("--plain",), ("--json",)], ids=" ".join)
def test_a_follower_that_is_ended_leaves_the_run_alone(
    cli: Cli, sleeper: subprocess.Popen[bytes], number: signal.Signals, words: tuple[str, ...]
) -> None:
    run = at_work(sleeper)
    follower = cli.start("attach", run.id, *words)
    assert follower.stdout
    seen = follower.stdout.readline()
    assert seen
    follower.send_signal(number)
    out, err = follower.communicate(timeout=120)
    assert follower.returncode == (exits.INTERRUPTED if number == signal.SIGINT else -number)
    assert "Traceback" not in out + err
    if number == signal.SIGINT:
        assert run.id in err and "goes on" in err
    assert sleeper.poll() is None and list(run.control.iterdir()) == []


def test_a_reader_that_goes_away_is_no_fault(cli: Cli, sleeper: subprocess.Popen[bytes]) -> None:
    run = at_work(sleeper)
    follower = cli.start("attach", run.id, "--json")
    assert follower.stdout and follower.stderr
    assert follower.stdout.readline()
    follower.stdout.close()
    with run.events.open("ab") as file:
        file.write(event_log.encode(Record(9, time.time(), Step(2, 9, 0.2, 2.0, 1e-4))))
    until(lambda: follower.poll() is not None)
    assert follower.stderr.read() == ""
    assert sleeper.poll() is None
    follower.stderr.close()
