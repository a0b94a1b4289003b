"""Labels, cleaning and deleting: on real folders, through the functions and the command line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from finetui.core.errors import FinetuiError
from finetui.core.runs import care, event_log, store
from finetui.core.runs.event_log import Record
from finetui.core.runs.events import Checkpoint, Ended, Evaluation, Event, Started
from finetui.core.runs.store import RunFolder
from tests.tui.command_line import finetui


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    return tmp_path


def make(
    name: str, losses: dict[int, float] | None = None, whole: tuple[int, ...] = (10, 20, 30)
) -> RunFolder:
    """A run that ended, with checkpoints of 1,000 bytes; `losses` are held-out losses by step."""
    run = store.create(name)
    run.recipe.write_text("version: 1\n")
    said: list[Event] = [Started("train", 1, 1.0, "elsewhere")]
    for step in (10, 20, 30):
        folder = run.checkpoints / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_bytes(b"x" * 1000)
        if step in whole:
            (folder / "finetui-seal.json").write_text("{}")
            said.append(Checkpoint(step, f"checkpoints/checkpoint-{step}"))
        if losses and step in losses:
            said.append(Evaluation(step, losses[step]))
    said.append(Ended("train", "completed", 3.0))
    run.events.write_bytes(b"".join(event_log.encode(Record(n, float(n), e)) for n, e in enumerate(said, 1)))
    return run


def left(run: RunFolder) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_labels_are_kept_one_by_one(home: Path) -> None:
    run = make("a")
    assert care.labels(run) == care.Labels()
    care.label(run, title="Kiosk", add_tags=["gpu", "v1"])
    care.label(run, note="too many epochs\nsee v2", remove_tags=["v1"], archived=True)
    found = care.labels(run)
    assert (found.title, found.tags, found.archived) == ("Kiosk", ("gpu",), True)
    assert found.note == "too many epochs\nsee v2"
    assert "Kiosk" not in run.recipe.read_text()


def test_a_title_with_escapes_becomes_harmless(home: Path) -> None:
    assert "\x1b" not in care.label(make("a"), title="\x1b[31mred\x1b[0m").title


@pytest.mark.parametrize("tag", ["two words", "", "x" * 41, "\x1b[31m"])
def test_a_tag_is_one_word(home: Path, tag: str) -> None:
    run = make("a")
    with pytest.raises(FinetuiError) as caught:
        care.label(run, add_tags=[tag])
    assert caught.value.code == "label"
    assert care.labels(run) == care.Labels()


@pytest.mark.parametrize("content", ["", "{", '{"tags": 3}', "[1]", "\x00"])
def test_a_damaged_label_file_reads_as_none(home: Path, content: str) -> None:
    run = make("a")
    (run.path / care.FILE).write_text(content)
    assert care.labels(run) == care.Labels()
    assert care.label(run, title="new").title == "new"


@pytest.mark.parametrize(
    ("losses", "whole", "stay"),
    [
        ({10: 1.0, 20: 0.5, 30: 0.9}, (10, 20, 30), ["checkpoint-20", "checkpoint-30"]),
        ({10: 1.0, 20: 0.5, 30: 0.4}, (10, 20, 30), ["checkpoint-30"]),
        (None, (10, 20, 30), ["checkpoint-30"]),
        ({10: 0.1, 20: 0.5, 30: 0.4}, (10, 20), ["checkpoint-10", "checkpoint-20"]),
        ({10: float("nan"), 20: float("nan")}, (10, 20, 30), ["checkpoint-30"]),
        ({20: 0.1}, (), []),
    ],
    ids=[
        "best and last",
        "best is last",
        "never evaluated",
        "the last was never finished",
        "NaN",
        "none whole",
    ],
)
def test_the_best_and_the_last_whole_checkpoint_stay(
    home: Path, losses: dict[int, float] | None, whole: tuple[int, ...], stay: list[str]
) -> None:
    run = make("a", losses, whole)
    plan = care.cleaning(run)
    before = care.sizes(run)
    assert plan.bytes == before.checkpoints - sum(care.size_of(run.checkpoints / name) for name in stay)
    assert len(left(run)) == 3, "looking removes nothing"
    assert care.clean(plan) == plan.bytes
    assert left(run) == stay
    assert care.cleaning(run).remove == ()


def test_what_a_killed_export_left_goes_too(home: Path) -> None:
    run = make("a")
    (run.exports / ".work-x").mkdir()
    (run.exports / "merged").mkdir()
    care.clean(care.cleaning(run))
    assert [path.name for path in run.exports.iterdir()] == ["merged"]


def test_a_link_in_the_place_of_a_checkpoint_is_left_alone(home: Path, tmp_path: Path) -> None:
    run = make("a")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (run.checkpoints / "checkpoint-5").symlink_to(outside)
    care.clean(care.cleaning(run))
    care.delete(run)
    assert (outside / "precious").exists()


def live(run: RunFolder) -> None:
    """As if this process were its worker."""
    me = psutil.Process()
    import socket

    started = Started("train", me.pid, me.create_time(), socket.gethostname())
    run.events.write_bytes(event_log.encode(Record(1, time.time(), started)))


def test_a_run_at_work_is_neither_cleaned_nor_deleted(home: Path) -> None:
    run = make("a")
    plan = care.cleaning(run)
    live(run)
    assert care.cleaning(run).remove == ()
    for act in (lambda: care.clean(plan), lambda: care.delete(run)):
        with pytest.raises(FinetuiError) as caught:
            act()
        assert caught.value.code == "run-busy"
    assert len(left(run)) == 3


def test_a_deleted_run_is_gone_and_no_other(home: Path) -> None:
    one, other = make("one"), make("other")
    size = care.sizes(one).total
    assert care.delete(one) == size
    assert [run.id for run in store.all_runs()] == [other.id]
    assert list(one.path.parent.iterdir()) == [other.path]


def test_what_a_cut_off_deletion_left_is_no_run(home: Path) -> None:
    run = make("a")
    run.path.rename(run.path.with_name(f".deleted-{run.id}-1"))
    assert store.all_runs() == []


# ---- the command line ------------------------------------------------------------------------------------------


def test_nothing_is_removed_without_being_asked(home: Path) -> None:
    run = make("a")
    for command in (("clean",), ("delete", run.id)):
        said = finetui(*command)
        assert said.returncode == 2 and "--yes" in said.stderr, said
    assert len(left(run)) == 3
    said = finetui("clean", "--dry-run")
    assert said.returncode == 0 and "checkpoint-30 stay" in said.stdout
    assert len(left(run)) == 3


def test_labels_show_in_the_list_and_archived_runs_do_not(home: Path) -> None:
    one, other = make("one"), make("other")
    for words in (
        ("rename", one.id, "Kiosk"),
        ("tag", one.id, "gpu", "old"),
        ("tag", one.id, "old", "--remove"),
    ):
        assert finetui(*words).returncode == 0
    assert finetui("archive", other.id).returncode == 0
    listed = finetui("runs").stdout
    assert "Kiosk #gpu" in listed and other.id not in listed
    assert other.id in finetui("runs", "--all").stdout
    tagged = json.loads(finetui("runs", "--tag", "gpu", "--json").stdout)
    assert [r["run"] for r in tagged] == [one.id] and tagged[0]["labels"]["title"] == "Kiosk"
    assert "too many epochs" in finetui("note", one.id, "too many epochs").stdout
    shown = json.loads(finetui("note", one.id, "--json").stdout)
    assert (shown["tags"], shown["note"]) == (["gpu"], "too many epochs")
    assert finetui("archive", other.id, "--undo").returncode == 0
    assert other.id in finetui("runs").stdout


def test_a_run_is_found_by_the_name_that_a_person_gave_it(home: Path) -> None:
    one, other, third = make("one"), make("other"), make("my run")
    assert finetui("rename", one.id, "Kiosk, 2nd try").returncode == 0
    assert finetui("tag", "Kiosk, 2nd try", "gpu").returncode == 0 and care.labels(one).tags == ("gpu",)
    assert store.find("one") == one and store.find("my run") == store.find("my-run") == third

    for same, named in (
        ("Kiosk, 2nd try", other),
        ("other", one),
    ):  # as another's title; as another's own name
        care.label(named, title=same)
        said = finetui("note", same, "which one?")
        assert said.returncode == 4 and one.id in said.stderr and other.id in said.stderr
        assert third.id not in said.stderr and "could be several runs" in said.stderr
        assert store.find(named.id) == named
    with pytest.raises(FinetuiError, match="no run called"):
        store.find("kiosk\x1b[31m\n")
    with pytest.raises(FinetuiError):
        store.find("")  # though runs without a title have an empty one


def test_clean_and_delete_say_what_they_freed(home: Path) -> None:
    run = make("a")
    said = json.loads(finetui("clean", run.id, "--yes", "--json").stdout)
    assert said["freed_bytes"] == said["runs"][0]["bytes"] > 2000
    assert said["runs"][0]["keep"] == ["checkpoint-30"]
    assert finetui("delete", run.id, "--yes").returncode == 0
    assert not run.path.exists()
    gone = finetui("delete", run.id, "--yes")
    assert gone.returncode == 4 and "Traceback" not in gone.stderr
