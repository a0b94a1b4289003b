"""The prompt that all rows were trained with is the one that talks, cards and commands carry, whoever wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetui.core import copying, proof_file, recipe_file, system_prompt, talk
from finetui.core.conversation import Turn
from finetui.core.proof import Reference, ReferencePrompt
from finetui.core.recipe import DatasetSection, Recipe
from finetui.core.runs import event_log
from finetui.core.runs.events import DatasetReady
from finetui.core.runs.store import RunFolder

from ..outgoing import contents, finished_run

ROWS = "Answer in JSON only."


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))


def written(run: RunFolder, prompt: str | None) -> RunFolder:
    """`run` whose recipe states no prompt, and whose event says `prompt`."""
    recipe = recipe_file.load(run.recipe)
    recipe_file.save(recipe.model_copy(update={"dataset": DatasetSection(source="demo")}), run.recipe)
    event = DatasetReady("messages", 9, 1, 0, 90, 30, system_prompt=prompt)
    run.events.write_bytes(event_log.encode(event_log.Record(1, 1.0, event)))
    return run


def test_only_a_prompt_that_all_rows_have_is_shared() -> None:
    asked = [Turn("user", "Q"), Turn("assistant", "A")]
    assert system_prompt.shared([[Turn("system", ROWS), *asked]] * 2) == ROWS
    assert system_prompt.shared([[Turn("system", ROWS), *asked], asked]) == ""
    assert system_prompt.shared([asked, [Turn("system", ROWS), *asked]]) == ""
    assert system_prompt.shared([[Turn("system", ROWS)], [Turn("system", "Another.")]]) == ""
    assert system_prompt.shared([[]]) == system_prompt.shared([]) == ""


def test_the_rows_prompt_is_in_commands_card_and_talk(tmp_path: Path) -> None:
    run = written(finished_run(), ROWS)
    copying.copy(copying.plan(run, tmp_path / "out"))
    found = contents(tmp_path / "out")
    assert f"-cnv -sys '{ROWS}'".encode() in found["commands.txt"]
    assert (
        f"-cnv -sys '{ROWS}'".encode() in found["README.md"] and b"It was trained with" in found["README.md"]
    )
    (run.adapter).mkdir()
    (run.adapter / "adapter_model.safetensors").write_bytes(b"")
    assert talk.find(str(run.path)).system_prompt == ROWS


def test_rows_with_several_prompts_have_none_but_an_older_run_is_asked() -> None:
    run = written(finished_run(), "")
    asked = ReferencePrompt((("system", ROWS), ("user", "Q")), "", (), "A", (), (), True)
    proof_file.save_reference(run, Reference((asked,), "", "16bit", {}))
    recipe = recipe_file.load(run.recipe)
    assert system_prompt.of_run(run, recipe) == ""
    assert system_prompt.of_run(written(run, None), recipe) == ROWS


def test_a_recipe_with_the_rows_prompt_leaves_the_rows_as_they_are() -> None:
    added = Recipe(dataset=DatasetSection(system_prompt="Be brief.", system_mode="add"))
    put = system_prompt.put_in(added, f"Be brief.\n\n{ROWS}").dataset
    assert (put.system_prompt, put.system_mode) == (f"Be brief.\n\n{ROWS}", "replace")
    none = Recipe(dataset=DatasetSection(system_prompt="Be brief.", system_mode="none"))
    assert system_prompt.put_in(none, system_prompt.of(none, None)).dataset.system_prompt is None
    assert system_prompt.put_in(added, "Be brief.") is added
