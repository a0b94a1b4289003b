"""Whoever writes may be killed at any operation on files: every reader then sees the old or the new, whole."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from finetui.core import (
    leaving,
    model_adapter,
    model_runs,
    presets,
    presets_own,
    recipe_file,
    talk,
    talk_files,
)
from finetui.core.draft import Draft
from finetui.core.errors import FinetuiError
from finetui.core.recipe import Recipe
from finetui.core.runs import care, chosen, control, lineage, manifest, queue, store
from finetui.core.runs.event_log import Record, encode, read_all
from finetui.core.runs.events import Ended, Step
from finetui.core.runs.store import RunFolder
from finetui.core.talk import Exchange, Reply, Talk, Target
from tests import killing


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    made = store.create("killed")
    recipe_file.save(Recipe(name="before"), made.recipe)
    return made


def signed(run: RunFolder, job: str) -> None:
    manifest.write(run, manifest.Manifest(job, 4_000_000, 1.0, "somewhere", 2.0, versions={"x": "1" * 5000}))


def job_of(run: RunFolder) -> str | None:
    told = manifest.read(run)
    return told.job if told and told.versions == {"x": "1" * 5000} else None


def drafted(name: str) -> None:
    draft = Draft(Recipe(name=name))
    draft.set("training.max_steps", len(name))
    draft.save()


def draft() -> tuple[str, int] | None:
    loaded = Draft.load()
    return (loaded.name, loaded["training.max_steps"]) if loaded else None


def preset(why: str) -> None:
    presets_own.save(presets.of_recipe("mine", why, Recipe(), own=True), replace=True)


def waiting(path: str) -> None:
    with queue.changing() as places:
        places[:] = [queue.Place(path), queue.Place(path + "-2")]


CASES: dict[str, tuple[Callable[[RunFolder, str], object], Callable[[RunFolder], object], object, object]] = {
    "recipe": (
        lambda run, name: recipe_file.save(Recipe(name=name), run.recipe),
        lambda run: recipe_file.load(run.recipe).name,
        "before",
        "after",
    ),
    "manifest": (signed, job_of, "before", "after"),
    "labels": (
        lambda run, name: care.label(run, title=name, note=name * 500),
        lambda run: care.labels(run).title if len(care.labels(run).note) % 500 == 0 else "torn",
        "before",
        "after",
    ),
    "origin": (
        lambda run, name: lineage.sign(run, lineage.Origin(name, "copy")),
        lambda run: getattr(lineage.origin(run), "run", None),
        "before",
        "after",
    ),
    "draft": (lambda _run, name: drafted(name), lambda _run: draft(), ("before", 6), ("after", 5)),
    "preset": (
        lambda _run, name: preset(name),
        lambda _run: (presets_own.own()[0][0].why, presets_own.own()[1]),
        ("before", ()),
        ("after", ()),
    ),
    "queue": (
        lambda _run, name: waiting(name),
        lambda _run: [place.path for place in queue.places()],
        ["before", "before-2"],
        ["after", "after-2"],
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_a_small_file_is_the_old_or_the_new(run: RunFolder, what: str) -> None:
    write, read, old, new = CASES[what]
    write(run, "before")
    assert read(run) == old
    seen: list[object] = []

    def look(done: bool) -> None:
        seen.append(read(run))
        assert seen[-1] in ((new,) if done else (old, new))
        write(run, "before")  # what a dead writer leaves behind hinders no later one
        assert read(run) == old

    assert killing.at_every_operation(lambda: write(run, "after"), look) >= 4  # open, write, fsync, rename
    assert old in seen and new in seen[:-1]
    assert killing.at_every_size(lambda: write(run, "after"), look, (1, 10)) == 2


@pytest.mark.parametrize("what", CASES)
def test_a_disk_that_refuses_a_small_file_leaves_the_old_one_and_no_rubbish(
    run: RunFolder, tmp_path: Path, what: str
) -> None:
    write, read, old, _new = CASES[what]
    write(run, "before")
    before = sorted(tmp_path.rglob("*"))
    assert killing.refused(lambda: write(run, "after"))
    assert read(run) == old
    assert sorted(tmp_path.rglob("*")) == before


def test_a_request_is_there_or_not(run: RunFolder) -> None:
    """A half-made one would be a request of another name, or none that a worker ever removes."""

    def ask() -> None:
        store.paths.private_dir(run.control)
        control.atomic.write_text(run.control / "stop", "")

    def look(_done: bool) -> None:
        assert control.pending(run) in ((), ("stop",))
        control.clear(run)
        assert control.pending(run) == ()

    assert killing.at_every_operation(ask, look) >= 4


def test_a_talk_is_kept_whole_or_not_at_all(run: RunFolder) -> None:
    target = Target("adapter", run.adapter, "a run", run.path)
    talk = Talk()
    talk.exchanges.append(Exchange("Which?", replies={"tuned": Reply("Red. " * 2000)}))

    def look(_done: bool) -> None:
        for file in talk_files.folder(target).glob("talk-*"):
            text = file.read_text(encoding="utf-8")
            assert text.count("Red. ") == 2000
            if file.suffix == ".jsonl":
                assert [json.loads(line) for line in text.splitlines()]
            file.unlink()

    assert killing.at_every_operation(lambda: talk_files.save(target, talk), look) >= 8
    assert killing.refused(lambda: talk_files.save(target, talk))
    assert not list(talk_files.folder(target).glob("talk-*"))
    assert killing.at_every_size(lambda: talk_files.save(target, talk), look, (1, 5000)) == 2


def test_a_row_that_a_killed_chat_was_appending_costs_no_other_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = (("user", "Which?"), ("assistant", "Red. " * 2000))
    talk_files.append(file, row)
    whole = file.read_bytes()

    def look(_done: bool) -> None:
        assert file.read_bytes().startswith(whole)
        line = talk_files.append(file, (("user", "Next?"), ("assistant", "Blue.")))
        rows = file.read_bytes().split(b"\n")
        assert json.loads(rows[0]) and json.loads(rows[line - 1])["messages"][1]["content"] == "Blue."
        assert len(rows) - 1 == line <= 3  # at worst the row that was cut off stands on a line of its own
        file.write_bytes(whole)

    def short() -> None:
        """The disk takes half of the row; who appends it is killed before it can take that back."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 4000, len(whole) + 4000))
        with contextlib.suppress(FinetuiError):
            talk_files.append(file, row)

    assert killing.at_every_operation(lambda: talk_files.append(file, row), look) >= 3
    assert killing.at_every_operation(short, look) >= 3
    assert (
        killing.at_every_size(lambda: talk_files.append(file, row), look, (len(whole) + 1, len(whole) + 4000))
        == 2
    )


def test_a_killed_score_keeps_its_rows_and_is_gone_on_with(run: RunFolder) -> None:
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").touch()
    target = Target("adapter", run.adapter, "a run", run.path)
    [first, second] = ({"row": number, "said": "Red. " * 2000} for number in (1, 2))
    begun = talk_files.Rows(target, "eval")
    begun.add(first)
    begun.close()
    whole = begun.file.read_bytes()

    def add() -> None:
        rows = talk_files.Rows(target, "eval", begun.file)
        rows.add(second)
        rows.close()

    def look(done: bool) -> None:
        rows = talk_files.Rows(target, "eval", begun.file)
        assert rows.earlier in ([first], [first, second]) and (not done or len(rows.earlier) == 2)
        rows.close()
        assert begun.file.read_bytes().endswith(b"\n"), "half a row is gone"
        begun.file.write_bytes(whole)

    assert killing.at_every_operation(add, look) >= 4
    assert killing.at_every_size(add, look, (len(whole) + 1, len(whole) + 4000)) == 2

    held = talk_files.Rows(target, "eval", begun.file)
    with pytest.raises(FinetuiError):
        talk_files.Rows(target, "eval", begun.file)  # by one at a time
    held.close()
    os.utime(begun.file, (1, 1))
    with pytest.raises(FinetuiError, match="other weights"):
        talk_files.Rows(target, "eval", begun.file)


def learned(folder: Path, value: float) -> bytes:
    """An adapter at `folder`. Returns its weights."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"lora_A": np.full((4, 8), value, np.float32)}, folder / model_adapter.WEIGHTS)
    return (folder / model_adapter.WEIGHTS).read_bytes()


READERS: dict[str, Callable[[RunFolder], Path | str | None]] = {
    "chat and eval": lambda run: talk.of_run(run).path,
    "a run from its adapter": lambda run: lineage.onward(run).model.adapter,
    "the list of models": lambda _run: model_runs.run_models()[0].adapter,
    "an upload": lambda run: leaving.finished(run)[0].folder,
}


@pytest.mark.parametrize("who", READERS)
def test_the_weights_of_a_worker_that_was_killed_between_two_renames_are_there_for_whoever_comes_first(
    run: RunFolder, who: str
) -> None:
    run.events.write_bytes(encode(Record(1, 1.0, Ended("train", "stopped", 1.0))))
    new, seen = run.path / chosen.NEW, []
    old = learned(run.adapter, 1.0)
    newest = learned(new, 2.0)

    def look(done: bool) -> None:
        place = READERS[who](run)
        assert place is not None
        seen.append((Path(place) / model_adapter.WEIGHTS).read_bytes())
        learned(run.adapter, 1.0)
        learned(new, 2.0)

    assert killing.at_every_operation(lambda: chosen.replace(run.adapter, new), look) >= 2
    assert set(seen) == {old, newest} and seen[-1] == newest
    run.adapter.rename(run.path / chosen.OLD)
    with store.alone(run):  # a worker at work is not meddled with
        chosen.settle(run)
        assert not run.adapter.exists()
    chosen.settle(run)
    assert (run.adapter / model_adapter.WEIGHTS).read_bytes() == newest


def test_the_events_of_a_killed_worker_are_whole_and_go_on(run: RunFolder) -> None:
    from finetui.core.worker.events import EventWriter

    def report() -> None:
        writer = EventWriter(run.events)
        for step in (1, 2, 3):
            writer.emit(Step(step, 3, 0.0, 1.0, 1e-4))
        writer.close()

    def look(done: bool) -> None:
        before = [r.event.step for r in read_all(run.events) if isinstance(r.event, Step)]
        assert before == list(range(1, len(before) + 1)) and (len(before) == 3 or not done)
        writer = EventWriter(run.events)
        writer.emit(Step(4, 4, 0.0, 1.0, 1e-4))
        writer.close()
        records = read_all(run.events)
        assert [r.seq for r in records] == list(range(1, len(before) + 2))
        assert [r.event.step for r in records if isinstance(r.event, Step)] == [*before, 4]
        run.events.unlink()

    assert killing.at_every_operation(report, look) >= 4
    report()
    size = run.events.stat().st_size
    run.events.unlink()
    assert killing.at_every_size(report, look, range(1, size, 23)) == len(range(1, size, 23))
