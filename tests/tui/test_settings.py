"""The LoRA and training steps by keys: what is shown is what the recipe gets, and every change can be taken back."""

from __future__ import annotations

import time
from typing import Any

import pytest
from textual.pilot import Pilot
from typer.testing import CliRunner

from finetui.core import memory, presets, presets_own, recipe_file
from finetui.core.recipe import Recipe
from finetui.core.runs import store
from finetui.tui.app import FinetuiApp
from finetui.tui.commands.root import app as commands
from finetui.tui.modals.confirm import ConfirmModal
from finetui.tui.modals.presets import PresetsModal
from finetui.tui.screens.settings import SettingsScreen
from tests.tui.driving import at_step, home, press, seen, type_over, until, wizard

__all__ = ["home"]

SIZES = ((80, 24), (120, 36), (200, 60))


async def on(app: FinetuiApp, pilot: Pilot[Any], step: str) -> SettingsScreen:
    app.begin(Recipe())
    await at_step(app, pilot, "model")
    app.go(step)
    await at_step(app, pilot, step)
    await until(pilot, lambda: app.wizard.memory() is not None and app.wizard.seconds() is not None)
    await until(pilot, lambda: "finetui would choose" in seen(app), "for advice")
    assert isinstance(app.screen, SettingsScreen)
    return app.screen


def flat(app: FinetuiApp) -> str:
    return " ".join(seen(app).split())


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_a_change_shows_what_it_does_at_once_by_the_estimates_own_figures(
    size: tuple[int, int],
) -> None:
    async with wizard(size) as (app, pilot):
        screen = await on(app, pilot, "lora")
        before = app.wizard.memory()
        await type_over(pilot, "64")
        await until(pilot, lambda: "16 → 64: +14.7 M weights" in flat(app), "for the delta")
        here, now = screen.here(), app.wizard.memory()
        assert here is not None and here.since is not None and before is not None and now is not None
        facts = app.wizard.model_facts
        assert facts is not None and app.wizard.machine is not None
        own = memory.estimate(app.wizard.draft.recipe(), facts, gpu=app.wizard.machine.has_gpu)
        assert own is not None and here.since[1].memory_bytes == own.total_bytes - before.total_bytes
        assert here.since[1].words in flat(app)
        started = time.process_time()
        for _ in range(20):
            screen.here()
        assert (
            time.process_time() - started
        ) / 20 < 0.1  # processor time, so a loaded machine does not matter
        await press(pilot, "ctrl+g")
        assert here.advice is not None and app.wizard.draft["lora.rank"] == here.advice.value == 16
        await until(pilot, lambda: "✓ finetui would choose this too" in flat(app))
        await press(pilot, "ctrl+underscore")
        assert app.wizard.draft["lora.rank"] == 64
        assert screen.form.row("lora.rank").field_control.value == "64"  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_a_wrong_value_is_told_with_the_nearest_good_one_and_one_key_takes_it(
    size: tuple[int, int],
) -> None:
    async with wizard(size) as (app, pilot):
        await on(app, pilot, "training")
        await press(pilot, "down", "down", "down")
        await type_over(pilot, "2")
        await until(
            pilot, lambda: "above 0 up to 0.1" in flat(app) and "Nearest that works: 0.1" in flat(app)
        )
        await press(pilot, "ctrl+g")
        assert app.wizard.draft["training.learning_rate"] == 0.1
        assert app.wizard.problem("training.learning_rate") is None
        await press(pilot, "ctrl+underscore")
        assert app.wizard.draft["training.learning_rate"] == 2
        await press(pilot, "ctrl+underscore")
        assert app.wizard.draft["training.learning_rate"] == 2e-4


async def test_undo_goes_back_over_the_steps_and_says_what_it_undid() -> None:
    async with wizard((120, 36)) as (app, pilot):
        await on(app, pilot, "lora")
        await type_over(pilot, "8")
        app.go("training")
        await at_step(app, pilot, "training")
        await type_over(pilot, "3")
        await press(pilot, "ctrl+underscore")
        await until(pilot, lambda: "Epochs 3 → 1" in flat(app))
        await press(pilot, "ctrl+underscore")
        await at_step(app, pilot, "lora")
        await until(pilot, lambda: "Rank 8 → 16" in flat(app))
        assert app.wizard.draft.recipe() == Recipe()
        await press(pilot, "ctrl+underscore")
        await until(pilot, lambda: "Nothing to undo" in flat(app))
        await press(pilot, "ctrl+y", "ctrl+y")
        await at_step(app, pilot, "training")
        assert (app.wizard.draft["lora.rank"], app.wizard.draft["training.epochs"]) == (8, 3.0)


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_fit_says_why_until_it_is_read_and_can_be_taken_back(size: tuple[int, int]) -> None:
    async with wizard(size) as (app, pilot):
        screen = await on(app, pilot, "lora")
        before = app.wizard.recipe()
        await press(pilot, "ctrl+f")
        await until(pilot, lambda: isinstance(app.screen, ConfirmModal), "for the reasons")
        await until(pilot, lambda: "Checkpointing off:" in flat(app), "for the reasons")
        assert not app._notifications  # what comes and goes by itself would cover the gauges
        await press(pilot, "enter")
        assert app.wizard.recipe() != before
        await until(pilot, lambda: "Memory" in seen(app) and "Time" in seen(app), "for the gauges")
        if app.screen is not screen:  # what was changed is on the other step
            await at_step(app, pilot, "training")
        await press(pilot, "ctrl+underscore")
        assert app.wizard.recipe() == before
        await press(pilot, "ctrl+f")
        await until(pilot, lambda: isinstance(app.screen, ConfirmModal), "for the reasons")
        await press(pilot, "right", "enter")
        await until(pilot, lambda: app.wizard.recipe() == before, "for the way back")


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_presets_are_compared_taken_and_undone(size: tuple[int, int]) -> None:
    run = store.create("earlier")
    earlier = Recipe(lora=Recipe().lora.model_copy(update={"rank": 77}))
    recipe_file.save(earlier, run.recipe)
    async with wizard(size) as (app, pilot):
        screen = await on(app, pilot, "lora")
        await type_over(pilot, "24")
        await press(pilot, "ctrl+l")
        await until(pilot, lambda: isinstance(app.screen, PresetsModal) and "last run" in flat(app))
        modal = app.screen
        assert isinstance(modal, PresetsModal)
        for preset in presets.BUILT_IN:
            assert preset.title in seen(app), preset.title
        await press(pilot, "down", "down")
        await until(pilot, lambda: "Rank 64 24" in flat(app), "for thorough against the form")
        assert presets_own.find("thorough").why.split(";")[0] in flat(app).replace("▌ ", "")
        names = [preset.name for preset in modal.known]
        await press(pilot, "c", *["down"] * (names.index("last run") - 2))
        await until(pilot, lambda: "Rank 77 64" in flat(app), "for the last run against thorough")
        await press(pilot, *["up"] * (names.index("last run") - 2), "enter")
        await until(pilot, lambda: app.screen is screen)
        wanted = presets_own.find("thorough").values
        assert {path: app.wizard.draft[path] for path in wanted} == dict(wanted)
        assert screen.form.row("lora.rank").field_control.value == "64"  # type: ignore[attr-defined]
        await press(pilot, "ctrl+underscore")
        assert app.wizard.draft["lora.rank"] == 24 and app.wizard.draft["training.epochs"] == 1.0
        assert app.wizard.draft["lora.rslora"] is False


async def test_own_presets_are_saved_replaced_and_deleted_by_keys() -> None:
    async with wizard((80, 24)) as (app, pilot):
        await on(app, pilot, "lora")
        await type_over(pilot, "24")
        await press(pilot, "ctrl+l")
        await until(pilot, lambda: isinstance(app.screen, PresetsModal))
        await press(pilot, "s")
        await type_over(pilot, "balanced")
        await press(pilot, "enter")
        await until(pilot, lambda: "one of finetui's own" in flat(app))
        await type_over(pilot, "mine")
        await press(pilot, "enter")
        await until(pilot, lambda: "mine is saved" in flat(app))
        assert presets_own.find("mine").values["lora.rank"] == 24
        await press(pilot, "s")
        await type_over(pilot, "mine")
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmModal))
        await press(pilot, "right", "enter")
        await until(pilot, lambda: isinstance(app.screen, PresetsModal) and "mine is saved" in flat(app))
        await press(pilot, "x")
        await until(pilot, lambda: isinstance(app.screen, ConfirmModal))
        await press(pilot, "right", "enter")
        await until(pilot, lambda: isinstance(app.screen, PresetsModal) and not presets_own.own()[0])
        await press(pilot, "escape")
        await at_step(app, pilot, "lora")


def test_the_command_line_lists_shows_compares_and_starts_from_presets() -> None:
    runner = CliRunner()
    listed = runner.invoke(commands, ["presets"])
    assert listed.exit_code == 0 and all(preset.name in listed.output for preset in presets.BUILT_IN)
    diff = runner.invoke(commands, ["presets", "thorough", "--diff", "balanced"])
    assert "lora.rank" in diff.output and "training.max_steps" not in diff.output
    made = runner.invoke(commands, ["recipe", "init", "-", "--preset", "style"])
    recipe = recipe_file.parse(made.output)
    assert recipe.lora.rank == 8 and recipe.training.schedule == "cosine"
    missing = runner.invoke(commands, ["presets", "nope"])
    assert missing.exception is not None
