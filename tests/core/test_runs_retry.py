"""What a failed run is tried again with, by the reason for which it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetui.core import recipe_file
from finetui.core.errors import FinetuiError
from finetui.core.recipe import Recipe
from finetui.core.runs import checkpoints, lineage, manifest, remedies, retry, state, store
from finetui.core.runs.event_log import Record, encode
from finetui.core.runs.events import Checkpoint, DatasetReady, Ended, Event, Progress, Started
from finetui.core.runs.store import RunFolder
from tests.tui.command_line import finetui


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    return tmp_path


def of(**changes: Any) -> Recipe:
    """A recipe with `section__field=value` changed."""
    sections: dict[str, Any] = {}
    for path, value in changes.items():
        section, name = path.split("__")
        sections.setdefault(section, {})[name] = value
    return Recipe.model_validate({"name": "try", **sections})


def failed(recipe: Recipe, code: str, *told: Event, checkpoint: int = 0, log: str = "") -> RunFolder:
    """A run that ended for the reason `code`; without one, without a word. Sealed checkpoints where a step is given."""
    run = store.create("try")
    recipe_file.save(recipe, run.recipe)
    said: list[Event] = [Started("train", 2**22 - 3, 1.0, manifest.this_host(), "try"), *told]
    if checkpoint:
        folder = run.checkpoints / f"checkpoint-{checkpoint}"
        folder.mkdir()
        (folder / "weights").write_text("w")
        checkpoints.seal(folder)
        said.append(Checkpoint(checkpoint, f"checkpoints/checkpoint-{checkpoint}"))
    if code:
        said.append(Ended("train", "failed", 3.0, "It failed.", "For a reason.", "Do this.", code))
    run.events.write_bytes(b"".join(encode(Record(n, float(n), e)) for n, e in enumerate(said, 1)))
    run.log.write_text(log)
    return run


@pytest.mark.parametrize(
    ("code", "before", "diff"),
    [
        (
            "gpu-memory",
            {"training__batch_size": 6, "training__gradient_accumulation_steps": 2},
            ["training.batch_size: 3", "training.gradient_accumulation_steps: 4"],
        ),
        (
            "gpu-memory",
            {"training__batch_size": 1, "lora__gradient_checkpointing": False},
            ["lora.gradient_checkpointing: true"],
        ),
        ("gpu-memory", {"training__batch_size": 1, "model__max_length": 2048}, ["model.max_length: 1024"]),
        (
            "host-memory",
            {
                "training__batch_size": 2,
                "training__gradient_accumulation_steps": 2,
                "lora__gradient_checkpointing": False,
            },
            [
                "training.batch_size: 1",
                "training.gradient_accumulation_steps: 4",
                "lora.gradient_checkpointing: true",
            ],
        ),
        (
            "loss-nan",
            {
                "training__learning_rate": 3e-2,
                "training__warmup_share": 0.0,
                "training__schedule": "constant",
            },
            [
                "training.learning_rate: 0.01",
                "training.schedule: constant_with_warmup",
                "training.warmup_share: 0.1",
            ],
        ),
        (
            "loss-zero",
            {"training__learning_rate": 3e-3, "training__warmup_share": 0.1},
            ["training.learning_rate: 0.001"],
        ),
        ("dataset-answers-cut", {"model__max_length": 128}, ["model.max_length: 512"]),
        ("dataset-nothing-learned", {}, ["dataset.train_on: everything"]),
        (
            "dataset-format",
            {"dataset__format": "alpaca", "dataset__columns": {"user": "q"}},
            ["dataset.format: auto", "dataset.columns: null"],
        ),
        (
            "precision-4bit",
            {"model__precision": "4bit", "training__packing": True, "training__optimizer": "adamw_8bit"},
            ["model.precision: 16bit", "training.packing: false", "training.optimizer: adamw_torch"],
        ),
        ("packing-cpu", {"training__packing": True}, ["training.packing: false"]),
        ("dora-experts", {"lora__dora": True}, ["lora.dora: false"]),
        ("packing-model", {"training__packing": True}, ["training.packing: false"]),
        ("optimizer-8bit", {"training__optimizer": "lion_8bit"}, ["training.optimizer: adamw_torch"]),
        ("lora-32bit", {"model__precision": "32bit"}, ["model.precision: 16bit"]),
        ("full-packed", {"model__precision": "4bit", "lora__method": "full"}, ["model.precision: 16bit"]),
        ("warmup-unused", {"training__schedule": "constant"}, ["training.schedule: constant_with_warmup"]),
        ("warmup-long", {"training__warmup_steps": 90}, ["training.warmup_steps: null"]),
        ("warmup-only", {}, ["training.warmup_steps: 0"]),
        (
            "evaluation-none",
            {"training__early_stopping_patience": 2},
            ["training.early_stopping_patience: null"],
        ),
        ("length-context", {"model__max_length": 16384}, ["model.max_length: 8192"]),
        ("export-full", {"export__formats": ["adapter", "merged"]}, ["export.formats: [merged]"]),
        ("llama-cpp-no-compiler", {"export__formats": ["gguf_q4_k_m"]}, ["export.formats: [gguf_q8_0]"]),
    ],
)
def test_what_mends_it(code: str, before: dict[str, Any], diff: list[str]) -> None:
    plan = retry.plan(failed(of(**before), code))
    added = [row.removeprefix("+ ") for row in plan.diff() if row.startswith("+")]
    assert [row for row in added if row in diff] == diff, plan.diff()
    assert len(added) == len(diff), plan.diff()
    assert (
        plan.new and plan.job == "train" and plan.why and not plan.first and "old one is kept" in plan.words
    )
    if code in ("gpu-memory", "host-memory"):
        assert plan.recipe.effective_batch_size == of(**before).effective_batch_size


def test_a_change_that_leaves_the_training_what_it_was_goes_on_from_the_checkpoint() -> None:
    recipe = of(training__batch_size=4)
    plan = retry.plan(failed(recipe, "gpu-memory", checkpoint=20))
    assert plan.new and plan.job == "resume" and plan.step == 20 and "step 20" in plan.words
    nan = retry.plan(failed(recipe, "loss-nan", checkpoint=20))
    assert nan.job == "train" and nan.step == 0, "what went wrong may be in the checkpoint"
    shorter = retry.plan(failed(of(training__batch_size=1), "gpu-memory", checkpoint=20))
    assert shorter.job == "train" and shorter.step == 0, "other rows are no going on"
    more = retry.with_recipe(plan, plan.recipe.model_copy(update={"lora": of(lora__rank=4).lora}))
    assert more.job == "train" and more.step == 0 and "+ lora.rank: 4" in more.diff()


@pytest.mark.parametrize(
    ("log", "changed"),
    [("", False), ("Fatal Python error: Segmentation fault", False), ("MemoryError", True), ("Killed", True)],
    ids=["no word", "segfault", "memory", "killed"],
)
def test_a_run_that_vanished(log: str, changed: bool) -> None:
    recipe = of(training__batch_size=4)
    plan = retry.plan(failed(recipe, "", checkpoint=8, log=log))
    assert plan.card.what and plan.step == 8 and plan.job == "resume"
    assert bool(plan.changes) == plan.new == changed
    early = retry.plan(failed(recipe, "", log=log))
    assert early.new and early.job == "train" and early.step == 0


@pytest.mark.parametrize("code", ["hub-gated", "no-space", "dataset-missing", "model-broken", "adapter-base"])
def test_where_nothing_can_be_changed_it_says_what_the_person_has_to_do(code: str) -> None:
    plan = retry.plan(failed(of(), code))
    assert plan.changes == () and plan.first == "Do this." and plan.diff() == []


def test_a_failed_export_is_no_new_training() -> None:
    run = failed(of(export__formats=["gguf_q5_k_m", "merged"]), "llama-cpp-build", Progress("export"))
    run.adapter.mkdir()
    plan = retry.plan(run)
    assert (plan.job, plan.new) == ("export", False) and retry.formats(plan) == ("gguf_q8_0", "merged")
    full = failed(of(), "no-space", Progress("export"))
    full.adapter.mkdir()
    assert retry.plan(full).job == "export" and retry.plan(full).first == "Do this."


def test_the_batch_is_fitted_to_the_rows() -> None:
    rows = DatasetReady("messages", 12, 0, 0, 100, 50)
    plan = retry.plan(failed(of(training__batch_size=16), "batch-rows", rows))
    assert plan.recipe.effective_batch_size <= 6


def test_changed_rows_begin_anew_with_the_same_recipe() -> None:
    plan = retry.plan(failed(of(), "data-changed", checkpoint=5))
    assert plan.new and plan.job == "train" and not plan.changes and not plan.first


def test_a_run_that_did_not_fail_is_not_retried() -> None:
    run = failed(of(), "")
    run.events.write_bytes(
        encode(Record(1, 1.0, Started("train", 2**22 - 3, 1.0, "x")))
        + encode(Record(2, 2.0, Ended("train", "completed")))
    )
    with pytest.raises(FinetuiError) as caught:
        retry.plan(run)
    assert caught.value.code == "not-failed"


def test_every_remedy_makes_a_recipe_that_can_be_written_down(home: Path) -> None:
    """From settings that are all at odds, each remedy gives a valid recipe, and applied again and again comes to an end."""
    for code in remedies._REMEDIES:
        recipe = of(
            model__precision="4bit",
            training__batch_size=8,
            training__packing=True,
            training__optimizer="adamw_8bit",
            training__early_stopping_patience=2,
            export__formats=["adapter", "gguf_q4_k_m"],
        )
        for _ in range(40):
            run = failed(recipe, code)
            plan = retry.plan(run)
            assert recipe_file.parse(recipe_file.dump(plan.recipe)) == plan.recipe
            if not plan.changes or code in ("loss-nan", "loss-zero"):
                break
            recipe = plan.recipe
        else:
            raise AssertionError(code)


def test_a_retry_begins_at_once_from_the_checkpoint_and_says_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from finetui.core.runs import launch

    monkeypatch.setattr(launch, "WORKER_MODULE", "json.tool")  # a stand-in that ends at once
    run = failed(of(training__batch_size=4), "gpu-memory", checkpoint=20)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    made = retry.start(retry.plan(run))
    assert made.id != run.id and lineage.origin(made) == lineage.Origin(run.id, "retry", 20)
    assert recipe_file.load(made.recipe).training.batch_size == 2
    assert checkpoints.choose(made.checkpoints)[0] is not None
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert json.loads((made.path / "manifest.json").read_text())["job"] == "resume"
    assert state.status(run).state == "failed"


# ---- the command line ------------------------------------------------------------------------------------------


def test_the_command_shows_the_change_and_starts_nothing_unasked() -> None:
    run = failed(of(training__batch_size=4), "gpu-memory", checkpoint=20)
    said = finetui("retry", run.id)
    assert said.returncode == 2 and "--yes" in said.stderr
    for words in (
        "It failed.",
        "For a reason.",
        "- training.batch_size: 4",
        "+ training.batch_size: 2",
        "step 20",
    ):
        assert words in said.stdout, said.stdout
    assert [one.id for one in store.all_runs()] == [run.id]
    wrong = finetui("retry", run.id, "--yes", "--set", "training.batch=1")
    assert wrong.returncode == 3 and "batch_size" in wrong.stderr
    assert finetui("retry", "nowhere").returncode == 4
