"""A failed run tried again, and a resume over a base model or rows that have changed: real workers on the tiny model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetui.core import recipe_file
from finetui.core.errors import FinetuiError
from finetui.core.recipe import Recipe
from finetui.core.runs import control, event_log, events, launch, lineage, preflight, retry, state, store
from finetui.core.runs.event_log import Record
from finetui.core.runs.events import ModelReady, Step
from finetui.core.runs.store import RunFolder
from finetui.tui.commands import exits

from . import harness, tiny

OLD, NEW = "a" * 40, "b" * 40
STEPS, SAVED, CUT = 8, 4, 6


@pytest.fixture(scope="module")
def hub(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a hub's cache of its own: somebody/tiny, whose branch main is at OLD."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUI_HOME", str(home))
        patch.setenv("HF_HUB_CACHE", str(home / "hub"))
        patch.setenv("UNSLOTH_FORCE_CPU", "1")
        snapshot(home / "hub", OLD, tiny_model)
        yield home / "hub"


def snapshot(hub: Path, commit: str, model: Path) -> None:
    """Lets the branch main of somebody/tiny be at `commit`."""
    folder = hub / "models--somebody--tiny"
    shutil.copytree(model, folder / "snapshots" / commit)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)


@pytest.fixture(scope="module")
def rows(hub: Path) -> Path:
    return tiny.write_rows(hub.parent / "rows.jsonl", 40)


@pytest.fixture(scope="module")
def made_of(hub: Path, rows: Path) -> Recipe:
    path = Path("somebody/tiny")
    return harness.recipe(path, rows, max_steps=STEPS, save_every_steps=2, checkpoints_kept=4, dropout=0.0)


@pytest.fixture(scope="module")
def whole(made_of: Recipe) -> RunFolder:
    """A run of the pinned recipe to its end."""
    run = launch.new(preflight.ready(made_of))
    completed(run)
    return run


def completed(run: RunFolder) -> None:
    harness.until(lambda: not state.status(run).live)
    assert state.status(run).state == "completed", run.log.read_text(errors="replace")[-2000:]


def crashed(whole: RunFolder) -> RunFolder:
    """The same run, had memory run out for its worker after step 6: its newest whole checkpoint is that of step 4."""
    run = store.create("tiny")
    shutil.copytree(whole.path, run.path, dirs_exist_ok=True)
    shutil.rmtree(run.adapter)
    for folder in run.checkpoints.glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) > SAVED:
            shutil.rmtree(folder)
    before = [r for r in event_log.read_all(run.events) if isinstance(r.event, Step) and r.event.step == CUT]
    kept: list[Record] = [
        r
        for r in event_log.read_all(run.events)
        if r.seq <= before[0].seq and not (isinstance(r.event, events.Checkpoint) and r.event.step > SAVED)
    ]
    run.events.write_bytes(b"".join(map(event_log.encode, kept)))
    run.last_words.write_text("Traceback (most recent call last):\n  …\nMemoryError\n")
    return run


def test_a_retry_in_smaller_batches_goes_on_with_the_losses_of_a_run_that_never_failed(
    whole: RunFolder,
) -> None:
    old = crashed(whole)
    plan = retry.plan(old)
    assert plan.card.code == "out-of-memory-host" and plan.job == "resume" and plan.new and plan.step == SAVED
    assert "+ training.batch_size: 2" in plan.diff()
    made = retry.start(plan)
    completed(made)
    assert [step.step for step in harness.events(made, Step)] == list(range(1, STEPS + 1))
    assert harness.losses(made) == pytest.approx(
        harness.losses(whole), abs=1e-3
    )  # other parts, other rounding
    assert lineage.origin(made) == lineage.Origin(old.id, "retry", SAVED)
    assert state.status(old).state == "crashed" and len(harness.events(old, Step)) == CUT


def test_the_base_is_pinned_and_a_resume_over_a_changed_one_or_changed_rows_is_refused_or_agreed_to(
    whole: RunFolder, made_of: Recipe, hub: Path, rows: Path, tiny_model: Path
) -> None:
    run = crashed(whole)
    pinned = recipe_file.load(run.recipe)
    assert pinned.model.revision == OLD == harness.events(run, ModelReady)[-1].revision
    snapshot(hub, NEW, tiny_model)  # its owner goes on
    assert preflight.ready(made_of).model.revision == NEW, "what begins now has the newest"
    assert preflight.ready(pinned).model.revision == OLD, "and what has begun keeps its own"

    other = pinned.model_copy(update={"model": pinned.model.model_copy(update={"revision": NEW})})
    recipe_file.save(other, run.recipe)
    assert harness.finish(harness.start("resume", run), run) == 1
    assert harness.ended(run).code == "base-changed" and NEW[:12] in harness.ended(run).why

    tiny.write_rows(rows, 44)
    with pytest.raises(FinetuiError) as changed:
        retry.resume(run)
    assert changed.value.code == "changed-since"
    retry.resume(run, anyway=True)
    completed(run)
    assert {"base-changed", "data-changed"} <= set(harness.codes(run))
    assert harness.events(run, ModelReady)[-1].revision == NEW
    assert state.status(run).step == STEPS


def test_over_rows_that_have_changed_a_duplicate_learns_the_new_ones_and_a_resume_goes_on_to_its_end(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the rows is left, so that an epoch has fewer steps than the run has trained; by the commands."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    monkeypatch.setenv("UNSLOTH_FORCE_CPU", "1")
    rows = tiny.write_rows(tmp_path / "rows.jsonl", 40)
    old = harness.make_run(harness.recipe(tiny_model, rows, max_steps=400, save_every_steps=2))
    launch.start(old, "train")
    harness.until(lambda: harness.events(old, events.Checkpoint))
    control.request(old, "stop")
    harness.until(lambda: not state.status(old).live)
    before = max(harness.losses(old))
    learned = harness.events(old, events.DatasetReady)[-1]
    short = recipe_file.load(old.recipe)
    training = short.training.model_copy(update={"max_steps": before + 4})
    recipe_file.save(short.model_copy(update={"training": training}), old.recipe)
    tiny.write_rows(rows, 14)

    def finetui(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "finetui.tui", *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=harness.PATIENCE, check=False, cwd=tmp_path
        )

    refused = finetui("resume", old.id)
    assert refused.returncode == exits.REFUSED and "--anyway" in refused.stderr
    done = finetui("duplicate", old.id, "--set", "training.max_steps=3", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (new,) = [run for run in store.all_runs() if run.id != old.id]
    ready = harness.events(new, events.DatasetReady)[-1]
    assert ready.rows < learned.rows and ready.fingerprint != learned.fingerprint
    assert launch.changed_since(new) == [] and launch.changed_since(old) != []

    done = finetui("resume", old.id, "--anyway", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "data-changed" in harness.codes(old) and state.status(old).trained
    assert [step.step for step in harness.events(old, Step)] == list(range(1, before + 5))
    assert harness.events(old, events.DatasetReady)[-1].rows == ready.rows
