"""Turns in the queue, on several GPUs too: places and slots alone, no worker and no GPU."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from finetui.core.errors import FinetuiError
from finetui.core.recipe import Recipe
from finetui.core.runs import launch, manifest, queue, retry, state, store, turns
from finetui.core.runs.event_log import Record, encode
from finetui.core.runs.events import Checkpoint, Ended, Started
from finetui.core.runs.store import RunFolder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    monkeypatch.delenv("UNSLOTH_FORCE_CPU", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def waits(*devices: str) -> RunFolder:
    """A run at the end of the queue that may run on `devices`."""
    run = store.create("try")
    run.recipe.write_text("version: 1\n")
    with queue.changing() as places:
        places.append(queue.Place(str(run.path), "train", devices))
    return run


@contextmanager
def used(*devices: str) -> Iterator[None]:
    """As long as this lasts, runs are at work on `devices`."""
    with ExitStack() as stack:
        for device in devices:
            slot = queue.use(device)
            assert slot is not None
            stack.callback(slot.close)
        yield


def test_two_gpus_take_two_runs_and_the_third_waits() -> None:
    first, second, third = (waits("0", "1") for _ in range(3))
    one, two = turns.take(first), turns.take(second)
    assert one and two and {one.device, two.device} == {"0", "1"}
    assert turns.take(third) is None and queue.position(third) == 1
    two.close()
    again = turns.take(third)
    assert again is not None and again.device == two.device
    again.close()
    one.close()
    assert queue.places() == ()


def test_a_free_gpu_goes_to_the_first_that_may_use_it_and_nobody_passes() -> None:
    first, second = waits("0", "1"), waits("0", "1")
    other = waits("2")
    with used("0"):
        assert turns.take(second) is None, "the first has not had its turn"
        passed = turns.take(other)  # no one before it may use GPU 2
        assert passed is not None and passed.device == "2"
        passed.close()
        mine = turns.take(first)
        assert mine is not None and mine.device == "1"
        mine.close()
        theirs = turns.take(second)
        assert theirs is not None and theirs.device == "1"
        theirs.close()


def test_a_device_in_use_twice_is_free_when_both_have_gone() -> None:
    run = waits("0")
    with used("0"):
        with used("0"):
            assert turns.take(run) is None
        assert turns.take(run) is None and queue.in_use("0")
    slot = turns.take(run)
    assert slot is not None
    slot.close()
    assert not queue.in_use("0")


def test_a_process_that_is_killed_leaves_its_device() -> None:
    code = "from finetui.core.runs import queue; queue.use('1'); print('up', flush=True); import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=dict(os.environ))
    assert child.stdout and child.stdout.readline() == b"up\n"
    assert queue.in_use("1") and not queue.in_use("0")
    child.kill()
    child.communicate()
    assert not queue.in_use("1")


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("0,1", ("0", "1")),
        ("3", ("3",)),
        ("GPU-a, GPU-b", ("GPU-a", "GPU-b")),
        ("", ("cpu",)),
        ("0,-1,2", ("0",)),
    ],
)
def test_the_devices_are_those_that_cuda_is_shown(
    named: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert queue.devices() == found


def test_what_a_start_now_would_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert turns.outlook() == "free"
    with used("1"):
        assert turns.outlook() == "free", "a start takes the first GPU"
    with used("0"):
        assert turns.outlook() == "another", "the queue gives the second at once"
        run = waits("0")
        assert turns.outlook() == "busy", "somebody waits before"
        queue.leave(run)
        with used("1"):
            assert turns.outlook() == "busy"
    waits("0")
    assert turns.outlook() == "busy"


def test_a_queue_that_the_disk_does_not_take_keeps_its_places_and_starts_nobody(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files that the recipe and the manifest fit in, and the longer queue does not."""
    (home / "stays.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(home))
    monkeypatch.setattr(launch, "WORKER_MODULE", "stays")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for _ in range(80):
        waits("0")
    before = queue.places()
    size = max(file.stat().st_size for file in (home / "data" / "queue").iterdir())
    there = store.all_runs()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(FinetuiError) as refused:
            launch.new(Recipe(name="more"), queued=True)
        old = stopped(home / "rows.jsonl")
        told = manifest.read(old)
        with pytest.raises(FinetuiError) as again:
            turns.join(old, "resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for error in (refused, again):
        assert error.value.code == "run-folder" and "cannot be put in the queue" in error.value.what
    assert queue.places() == before and state.status(old).state == "stopped" and manifest.read(old) == told
    assert {r.id for r in store.all_runs()} == {old.id, *(r.id for r in there)}, (
        "nothing is left of the run that could not wait"
    )
    end = time.monotonic() + 60
    while any(str(home) in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < end, "a waiting process was left behind"
        time.sleep(0.05)


# ---- resuming in turn, and over what has changed -----------------------------------------------------------------


def stopped(rows: Path) -> RunFolder:
    """A run over `rows` that was stopped with a checkpoint, and was started with what is installed now."""
    run = store.create("try")
    run.recipe.write_text(f"version: 1\ndataset:\n  source: {rows}\n")
    launch.sign(run, "train", 2**22 - 3, 1.0, "cold", None)
    (run.checkpoints / "checkpoint-4").mkdir()
    told = (
        Started("train", 2**22 - 3, 1.0, manifest.this_host(), "try"),
        Checkpoint(4, "checkpoints/checkpoint-4"),
        Ended("train", "stopped", 3.0),
    )
    run.events.write_bytes(b"".join(encode(Record(n, float(n), e)) for n, e in enumerate(told, 1)))
    return run


def test_a_resume_can_wait_its_turn_and_over_changed_rows_only_where_that_was_agreed_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "WORKER_MODULE", "json.tool")  # a stand-in that ends at once
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    run = stopped(rows)
    with used("0"):
        assert retry.resume(run, queued=True) == run
        assert queue.places()[0].job == "resume" and not queue.places()[0].anyway
        assert state.status(run).state == "queued" and state.status(run).queue_place == 1
        with pytest.raises(FinetuiError) as twice:
            retry.resume(run, queued=True)
        assert twice.value.code == "run-busy"
        assert queue.leave(run)

    other = stopped(rows)
    rows.write_text('{"now": "another"}\n')
    for queued in (True, False):
        with pytest.raises(FinetuiError) as caught:
            retry.resume(other, queued=queued)
        assert caught.value.code == "changed-since" and "rows.jsonl has changed" in caught.value.why
    assert queue.places() == () and other.manifest.read_text().count('"starts": 1')
    retry.resume(other, queued=True, anyway=True)
    assert queue.places()[0].anyway
    told = manifest.read(other)
    assert told is not None and told.anyway and told.how == turns.HOW
    assert launch.changed_since(other) == [], "what was agreed to is what is compared with from now on"
