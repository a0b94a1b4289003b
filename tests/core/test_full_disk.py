"""A disk that is really full under a run, its queue and its score: what is said, what is kept, and how it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from finetui.core import recipe_file
from finetui.core.recipe import Recipe
from finetui.core.runs import event_log, launch, queue, silence, state, store
from finetui.core.runs.events import Warned
from tests.full_disk import Disk
from tests.waiting import until

from .run_events import signed, write

EMIT = """
import sys
from pathlib import Path
from finetui.core.runs.events import Warned
from finetui.core.worker import logs
from finetui.core.worker.events import EventWriter
logs.forgive()
writer = EventWriter(Path(sys.argv[1]) / "events.jsonl")
for line in sys.stdin:
    writer.emit(Warned(line.strip(), "long " * 1000))
    print("emitted", flush=True)
"""
TAKE = """
import sys
from pathlib import Path
from finetui.core.runs import turns
from finetui.core.runs.store import RunFolder
for _ in sys.stdin:
    try:
        print(turns.take(RunFolder(Path(sys.argv[1]))) is not None, flush=True)
    except OSError:
        print("refused", flush=True)
"""
START = """
import sys
from pathlib import Path
from finetui.core.errors import FinetuiError
from finetui.core.runs import launch
from finetui.core.runs.store import RunFolder
launch.WORKER_MODULE = "stays"
try:
    launch.start(RunFolder(Path(sys.argv[1])), "verify")
except FinetuiError as error:
    print(error.code, error.why)
"""
ROWS = """
import sys
from pathlib import Path
from finetui.core.errors import FinetuiError
from finetui.core.talk import Target
from finetui.core.talk_files import Rows
rows = Rows(Target("adapter", Path(sys.argv[1]), "a run", Path(sys.argv[1])), "eval")
for line in sys.stdin:
    try:
        rows.add({"row": line.strip(), "said": "long " * 1000})
        print("kept", flush=True)
    except FinetuiError as error:
        print(error.code, flush=True)
"""


@pytest.fixture
def home(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FINETUI_HOME of this process, which lies on the disk; what `there` starts has it in its place."""
    monkeypatch.setenv("FINETUI_HOME", str(disk.here))
    return disk.here


class There:
    """A program on the disk, which does something for each line that it is told, and answers with one."""

    def __init__(self, disk: Disk, program: str, run: store.RunFolder) -> None:
        self._disk, self.run = disk, run
        argv = [sys.executable, "-c", program, str(disk.path / run.path.relative_to(disk.here))]
        environment = {**os.environ, "FINETUI_HOME": str(disk.path), "PYTHONPATH": str(disk.path)}
        self.process = disk.start(
            argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, line: str = "") -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


def test_events_wait_for_room_and_none_is_lost(disk: Disk, home: Path) -> None:
    run = store.create("try")
    emit = There(disk, EMIT, run)
    write(run, signed(emit.process), Warned("old", "so"), start=time.time() - 60)
    assert state.status(run).unwritten == ""
    disk.fill()
    for number in range(4):
        assert emit(f"held {number}") == "emitted"
    assert disk.words in state.status(run).unwritten
    disk.empty()
    emit("last")
    assert state.status(run).unwritten == "" and silence.refusal(run) is None
    records = event_log.read_all(run.events)
    codes = [r.event.code for r in records if isinstance(r.event, Warned)]
    assert codes == ["old", "held 0", "held 1", "held 2", "held 3", "last"]
    assert [r.seq for r in records] == list(range(1, 8))

    disk.fill()
    emit("never")
    emit.process.kill()
    emit.process.wait()
    seen = state.status(run)
    assert seen.state == "crashed" and seen.card is not None and seen.card.code == "disk-full", seen.card
    assert "events could not be written" in seen.card.why and "Free some space" in seen.card.fix
    disk.empty()
    There(disk, EMIT, run)("again")
    assert silence.refusal(run) is None, "the next worker can write"


def test_a_worker_that_can_write_no_event_at_all_is_told_from_one_that_starts(disk: Disk, home: Path) -> None:
    run = store.create("try")
    emit = There(disk, EMIT, run)
    launch.sign(run, "train", emit.process.pid, time.time() - 60, "cold", None)
    assert state.status(run).state == "starting" and state.status(run).unwritten == ""
    disk.fill()
    emit("never")
    assert state.status(run).state == "starting" and disk.words in state.status(run).unwritten


def test_a_run_whose_turn_the_queue_could_not_note_gets_it_once_there_is_room(disk: Disk, home: Path) -> None:
    runs = [store.create(f"waits {number}") for number in range(30)]  # so many that the queue needs room
    with queue.changing() as places:
        places += [queue.Place(str(disk.path / run.path.relative_to(home))) for run in runs]
    take = There(disk, TAKE, runs[0])
    disk.fill()
    assert take() == "refused" and take() == "refused"
    assert len(queue.places()) == 30
    disk.empty()
    assert take() == "True" and len(queue.places()) == 29


def test_a_worker_that_could_not_be_signed_for_is_not_left_at_work(disk: Disk, home: Path) -> None:
    run = store.create("try")
    recipe_file.save(Recipe(name="try"), run.recipe)
    (home / "stays.py").write_text("import time\ntime.sleep(3600)\n")
    disk.fill()
    start = There(disk, START, run)
    said, _ = start.process.communicate(timeout=300)
    assert said.startswith("worker-start ") and (os.strerror(28) in said or os.strerror(27) in said)

    def at_work() -> list[int]:
        found = psutil.process_iter(["cmdline"])
        return [p.pid for p in found if {"stays", "verify"} <= set(p.info["cmdline"] or ())]

    until(lambda: not at_work(), "for the worker's end")
    assert not run.manifest.exists()


def test_scored_rows_wait_for_room_and_none_is_cut(disk: Disk, home: Path) -> None:
    run = store.create("try")
    add = There(disk, ROWS, run)
    assert add("first") == "kept"
    disk.fill()
    assert add("second") == "file" and add("third") == "file"
    [file] = (run.path / "talks").iterdir()
    assert file.read_text().count("\n") == 1 and file.read_text().endswith("\n")
    disk.empty()
    assert add("fourth") == "kept"
    assert [line[9:].partition('"')[0] for line in file.read_text().splitlines()] == [
        "first",
        "second",
        "third",
        "fourth",
    ]
