"""A run whose held-out loss has risen ends with its best weights, and all that comes after is of those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetui.core import export_record, proof_file, recipe_file
from finetui.core.recipe import Recipe
from finetui.core.runs import chosen, lineage
from finetui.core.runs.events import BestKept, Checkpoint, Ended, Evaluation, Exported, Sample, Step
from finetui.core.runs.store import RunFolder

from . import harness
from .in_process import Trainer


def memorising(tiny_model: Path, tiny_rows: Path, **changes: Any) -> Recipe:
    """A recipe whose held-out loss rises long before its end."""
    values = {
        "learning_rate": 0.1,
        "max_steps": 30,
        "evaluate_every_steps": 2,
        "early_stopping_patience": 2,
        "save_every_steps": 100,
        "sample_count": 2,
        "checkpoints_kept": 1,
    }
    return harness.recipe(tiny_model, tiny_rows, **(values | changes))


@pytest.fixture(scope="module")
def run(tiny_model: Path, tiny_rows: Path) -> RunFolder:
    return harness.trained(memorising(tiny_model, tiny_rows))


@pytest.fixture(scope="module")
def kept(run: RunFolder) -> BestKept:
    told = harness.events(run, BestKept)
    assert len(told) == 1, harness.events(run, Evaluation)
    return told[0]


def test_it_ends_with_the_lowest_loss_and_says_so(run: RunFolder, kept: BestKept) -> None:
    losses = {one.step: one.loss for one in harness.events(run, Evaluation)}
    assert kept.step == min(losses, key=lambda step: losses[step]) < kept.last_step == max(losses)
    assert (kept.loss, kept.last_loss) == (losses[kept.step], losses[kept.last_step])
    assert harness.codes(run) == ["early-stop"]
    recipe = recipe_file.load(run.recipe)
    found = chosen.choose(run, recipe, "result")
    assert (found.step, found.loss) == (kept.step, kept.loss)
    assert chosen.choose(run, recipe, "best") == found
    assert chosen.choose(run, recipe, "last").step == kept.last_step
    best, last = (
        (run.checkpoints / f"checkpoint-{step}" / "adapter_model.safetensors").read_bytes()
        for step in (kept.step, kept.last_step)
    )
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == best != last


def test_samples_export_and_proof_are_of_those_weights(run: RunFolder, kept: BestKept) -> None:
    written = harness.events(run, Sample)
    assert [s.step for s in written[-2:]] == [kept.step] * 2
    then, end = ([s.answer for s in written if s.step == step][:2] for step in (kept.step, kept.last_step))
    assert [s.answer for s in written[-2:]] == then != end
    assert [export.step for export in harness.events(run, Exported)] == [kept.step]
    reference = proof_file.load_reference(run)
    found = chosen.choose(run, recipe_file.load(run.recipe), "result")
    assert reference is not None and reference.learned == export_record.learned_print(found.folder)


def test_a_longer_training_goes_on_from_the_last_step(run: RunFolder, kept: BestKept) -> None:
    more = lineage.longer(run, steps=2)
    assert more.step == kept.last_step
    made = lineage.start_longer(more)
    harness.until(lambda: harness.events(made, Ended))
    assert [s.step for s in harness.events(made, Step)][-2:] == [more.step + 1, more.step + 2]


@pytest.mark.parametrize("change", [{"keep_best": False}, {"save_every_steps": 0}])
def test_one_word_turns_it_off(tiny_model: Path, tiny_rows: Path, change: dict[str, Any]) -> None:
    run = harness.trained(memorising(tiny_model, tiny_rows, **change))
    assert not harness.events(run, BestKept)
    assert chosen.choose(run, recipe_file.load(run.recipe), "result").step == max(harness.losses(run))


def test_whole_models_are_chosen_among_those_that_are_saved_anyway(
    unsloth: None, tiny_model: Path, tiny_rows: Path
) -> None:
    from finetui.core.worker import training

    changes: dict[str, Any] = {"method": "full", "formats": ("merged",), "learning_rate": 1e-3}
    made_of = harness.recipe(
        tiny_model, tiny_rows, evaluate_every_steps=1, save_every_steps=2, checkpoints_kept=3, **changes
    )
    built = Trainer(made_of)
    training.train(built.trainer, built.reporter, made_of, None)
    assert [saved.step for saved in harness.events(built.run, Checkpoint)] == [2, 4, 6]
    then = {one.step: one.loss for one in harness.events(built.run, Evaluation)}[2]
    built.reporter._losses |= {1: 0.1, 2: 0.2}  # the lowest of all was not kept
    built.reporter.take_best(built.trainer)
    assert [kept.step for kept in harness.events(built.run, BestKept)] == [2]
    assert built.trainer.evaluate()["eval_loss"] == pytest.approx(then, abs=1e-5)
