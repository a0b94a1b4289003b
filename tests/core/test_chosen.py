"""Which of a run's weights are exported, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetui.core.errors import FinetuiError
from finetui.core.recipe import ExportSection, LoraSection, Recipe
from finetui.core.runs import checkpoints, chosen, event_log, events
from finetui.core.runs.store import RunFolder

LORA = Recipe()


def weights(folder: Path, name: str = "adapter_model.safetensors") -> Path:
    folder.mkdir(parents=True)
    (folder / name).write_text(f"weights of {folder.name}")
    return folder


def checkpoint(run: RunFolder, step: int, *, sealed: bool = True) -> Path:
    folder = weights(run.checkpoints / f"checkpoint-{step}")
    if sealed:
        checkpoints.seal(folder)
    return folder


def tell(run: RunFolder, *told: events.Event) -> None:
    with run.events.open("ab") as file:
        for seq, event in enumerate(told, 1):
            file.write(event_log.encode(event_log.Record(seq, 0.0, event)))


def step(number: int) -> events.Step:
    return events.Step(number, 60, 0.1, 1.0, 1e-3)


SAVED = events.Progress("save", 1, 1, "adapter")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """60 steps, checkpoints of 20, 40 and 60, the lowest held-out loss at 40, the result saved at 60."""
    found = RunFolder(tmp_path)
    for number in (20, 40, 60):
        checkpoint(found, number)
    weights(found.adapter)
    losses = {10: 0.3, 20: 0.9, 40: 0.5, 60: 0.7}
    told = [event for n, loss in losses.items() for event in (step(n), events.Evaluation(n, loss))]
    tell(found, *told, SAVED)
    return found


def test_what_the_run_ended_with(run: RunFolder) -> None:
    found = chosen.choose(run, LORA, "result")
    assert (found.folder, found.step, found.result, found.loss) == (run.adapter, 60, True, 0.7)
    assert found.words == "step 60, what the run ended with (held-out loss 0.7)" and not found.note
    assert chosen.choose(run, LORA, "last") == found


def test_the_best_that_is_still_there_and_that_a_better_one_is_gone(run: RunFolder) -> None:
    found = chosen.choose(run, LORA, "best")
    assert (found.folder.name, found.step, found.result) == ("checkpoint-40", 40, False)
    assert "lowest at step 10 (0.3), whose weights were not kept" in found.note


def test_a_damaged_best_is_passed_over_and_one_that_was_named_is_refused(run: RunFolder) -> None:
    (run.checkpoints / "checkpoint-40" / "adapter_model.safetensors").write_text("other")
    found = chosen.choose(run, LORA, "best")
    assert found.step == 60 and "step 40 is not whole" in found.note
    with pytest.raises(FinetuiError, match="step 40 is not whole"):
        chosen.choose(run, LORA, 40)


def test_with_keep_best_the_result_is_the_best(run: RunFolder) -> None:
    tell(run, step(70), events.Evaluation(70, 0.8), events.BestKept(40, 0.5, 70, 0.8), SAVED)
    found = chosen.choose(run, LORA, "result")
    assert (found.folder, found.step, found.loss) == (run.adapter, 40, 0.5)
    assert chosen.choose(run, LORA, 40) == found
    assert chosen.choose(run, LORA, "last").step == 60


def test_a_step(run: RunFolder) -> None:
    assert chosen.choose(run, LORA, 20).folder.name == "checkpoint-20"
    assert chosen.choose(run, LORA, 60).result
    with pytest.raises(FinetuiError) as caught:
        chosen.choose(run, LORA, 30)
    assert "60, 40, 20" in caught.value.fix


def test_a_run_cut_short_gives_its_newest_whole_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(FinetuiError) as caught:
        chosen.choose(run, LORA, "result")
    assert caught.value.code == "export-nothing"
    checkpoint(run, 10)
    checkpoint(run, 20, sealed=False)
    found = chosen.choose(run, LORA, "result")
    assert (found.step, found.result) == (10, False) and "newest checkpoint" in found.note
    with pytest.raises(FinetuiError, match="Which checkpoint is best"):
        chosen.choose(run, LORA, "best")


def test_full_fine_tuning_leaves_whole_models(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    weights(run.adapter)  # of an earlier recipe
    weights(run.model, "config.json")
    full = Recipe(lora=LoraSection(method="full"))
    assert chosen.choose(run, full, "result").folder == run.model


@pytest.mark.parametrize(("text", "wanted"), [("Best", "best"), ("last", "last"), ("40", 40)])
def test_words_for_it(text: str, wanted: chosen.Wanted) -> None:
    assert chosen.parse(text) == wanted
    assert ExportSection(checkpoint=text.lower()).checkpoint == text.lower()


@pytest.mark.parametrize("text", ["", "newest", "-1", "4.5", "٤", "../x"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(FinetuiError):
        chosen.parse(text)


def test_a_step_may_stand_in_a_recipe_as_a_number() -> None:
    assert ExportSection.model_validate({"checkpoint": 40}).checkpoint == "40"
