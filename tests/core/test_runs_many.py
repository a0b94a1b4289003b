"""Among a thousand runs the ones at work are found, whatever has been started since, at little cost."""

from __future__ import annotations

import shutil
import subprocess
import time

import psutil

from finetui.core.runs import manifest, queue, state, store
from finetui.core.runs.at_work import LAST_BYTES, at_work
from finetui.core.runs.events import Ended, Event
from finetui.core.runs.manifest import Manifest
from finetui.tui.starting import what_is_at_work

from .run_events import HOST, gone, run, signed, sleeper, step, write

__all__ = ["run", "sleeper"]

RUNS = 1000


def later(run: store.RunFolder, name: str, *happened: Event) -> store.RunFolder:
    """A run that was made after `run`."""
    made = store.RunFolder(run.path.with_name(f"2999{name}"))
    shutil.copytree(run.path, made.path, ignore=shutil.ignore_patterns("events.jsonl", "manifest.json"))
    write(made, *happened)
    return made


def launched(run: store.RunFolder, process: subprocess.Popen[bytes], after: float) -> None:
    """A worker was started on `run`, `after` seconds from now."""
    made = psutil.Process(process.pid).create_time()
    manifest.write(run, Manifest("export", process.pid, made, HOST, time.time() + after))


def over(number: int = 0) -> tuple[Event, ...]:
    return (gone(), *(step(n, total=200) for n in range(1, 201)), Ended("train", "completed", float(number)))


def test_the_oldest_of_a_thousand_runs_is_found_at_work(
    run: store.RunFolder, sleeper: subprocess.Popen[bytes]
) -> None:
    write(run, signed(sleeper), step(3))
    one = later(run, "0000", *over())
    for number in range(1, RUNS - 1):
        shutil.copytree(one.path, one.path.with_name(f"2999{number:04}"))
    before = psutil.Process().io_counters().read_chars
    ((found, seen),) = at_work()
    read = psutil.Process().io_counters().read_chars - before
    assert read < 1.1 * RUNS * LAST_BYTES < 0.5 * RUNS * one.events.stat().st_size
    assert (found.id, seen.state, seen.step) == (run.id, "running", 3)
    assert "at step 3 of 10" in what_is_at_work()


def test_what_is_at_work_is_what_each_run_says_of_itself(
    run: store.RunFolder, sleeper: subprocess.Popen[bytes]
) -> None:
    write(run, *over())
    crashed = later(run, "1-crashed", gone(), step(2))
    exporting = later(run, "2-exporting", *over())
    launched(exporting, sleeper, after=5.0)
    ended = later(run, "3-ended", signed(sleeper), step(2), Ended("train", "stopped", 1.0))
    launched(ended, sleeper, after=-5.0)
    told = later(run, "4-told", *over(), Ended("export", "failed", 1.0, what="x" * 2 * LAST_BYTES))
    torn = later(run, "5-torn", signed(sleeper), *over()[1:])
    torn.events.write_bytes(torn.events.read_bytes()[:-9])
    queued = later(run, "6-queued")
    with queue.changing() as places:
        places.append(queue.Place(str(queued.path)))
    every = store.all_runs()
    assert len(every) == len((run, crashed, exporting, ended, told, torn, queued))
    assert [found for found, _ in at_work()] == [one for one in every if state.status(one).live]
    assert [found for found, _ in at_work()] == [queued, torn, exporting]
