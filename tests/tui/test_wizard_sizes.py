"""The wizard at odd sizes, after its time, and in ASCII: nothing crashes, and it still says what it is."""

from __future__ import annotations

import pytest

from finetui.core.recipe import STEPS, Recipe
from finetui.tui.screens.step import StepScreen
from tests.tui.driving import NAMES, at_step, fill, home, press, seen, until, wizard

__all__ = ["home"]


@pytest.mark.parametrize("size", [(40, 10), (59, 19), (100, 30), (20, 5), (200, 60)], ids=fill)
async def test_odd_sizes_and_resizing_crash_nothing(size: tuple[int, int]) -> None:
    async with wizard(size, demo=True) as (app, pilot):
        for step in ("model", "dataset", "lora", "training"):
            await pilot.press("enter")
            await at_step(app, pilot, step)
        await press(pilot, "down")
        held = app.focused
        for width, height in ((40, 10), (120, 36), (60, 20), size):
            await pilot.resize_terminal(width, height)
            await pilot.pause()
        assert app.focused is held
        await press(pilot, "f1", "escape", "escape", "escape", "escape", "escape")
        await press(pilot, "l", "right", "escape", "c", "escape")
        assert app.is_running


@pytest.mark.parametrize("step", STEPS)
async def test_a_late_layout_of_a_step_that_was_left_does_no_harm(step: str) -> None:
    async with wizard() as (app, pilot):
        app.begin(step=step)
        await at_step(app, pilot, step)
        left = app.screen
        assert isinstance(left, StepScreen)
        app.go_home()
        await until(pilot, lambda: not left.query("*"), "for its end")
        left.fit()
        app.begin(step=step)
        await at_step(app, pilot, step)


@pytest.mark.parametrize("step", STEPS)
async def test_ascii_sends_nothing_else(step: str) -> None:
    async with wizard((120, 36), ascii=True) as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        app.go(step)
        await at_step(app, pilot, step)
        await until(pilot, lambda: app.wizard.dataset_facts is not None and "Memory" in seen(app))
        assert [line for line in seen(app).splitlines() if not line.isascii()] == []
        assert NAMES[step] in seen(app)
