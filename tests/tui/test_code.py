"""The way out of the wizard: YAML and script of the form, read, copied and kept, finished or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from typer.testing import CliRunner

from finetui.core import recipe_file
from finetui.core.demo.recipe import demo_recipe
from finetui.core.recipe import STEPS
from finetui.tui.app import FinetuiApp
from finetui.tui.commands.root import app as commands
from finetui.tui.modals.code import CodeModal
from finetui.tui.modals.confirm import ConfirmModal
from finetui.tui.widgets.footer import MOST, Footer
from tests.tui.driving import SIZES, at_step, press, seen, type_over, until, wizard


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


async def opened(app: FinetuiApp, pilot: Pilot[Any], step: str = "lora") -> CodeModal:
    if not app.wizard.visited:
        app.begin(demo_recipe())
        await at_step(app, pilot, "model")
    app.go(step)
    await at_step(app, pilot, step)
    await press(pilot, "f9")
    await until(pilot, lambda: isinstance(app.screen, CodeModal) and app.screen.made is not None)
    assert isinstance(app.screen, CodeModal)
    return app.screen


async def kept(app: FinetuiApp, pilot: Pilot[Any], name: str) -> None:
    await press(pilot, "s")
    await type_over(pilot, name)
    await press(pilot, "enter")


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_every_step_has_it_and_the_footer_stays_short(size: tuple[int, int]) -> None:
    async with wizard(size) as (app, pilot):
        for step in STEPS if size == SIZES[0] else ("export",):
            await opened(app, pilot, step)
            assert "name: demo" in seen(app) and "max_length" in seen(app)
            await press(pilot, "tab")
            await until(pilot, lambda: "from unsloth import FastLanguageModel" in seen(app))
            await press(pilot, "escape")
            await at_step(app, pilot, step)
            footer = app.screen.query_one(Footer)
            assert len(footer._shown) <= MOST
            assert "As code" in {command.title for command in app.get_system_commands(app.screen)}


async def test_what_it_saves_is_what_the_commands_write(home: Path) -> None:
    async with wizard((80, 24)) as (app, pilot):
        await opened(app, pilot)
        await kept(app, pilot, "mine.yaml")
        await until(pilot, lambda: (home / "mine.yaml").exists(), "for the recipe")
        assert recipe_file.load(home / "mine.yaml") == app.wizard.recipe()
        await press(pilot, "2")
        for name in ("mine.py", "mine.ipynb"):
            await kept(app, pilot, name)
            await until(pilot, lambda name=name: (home / name).exists(), "for the script")
            await until(pilot, lambda name=name: f"Saved {name}" in seen(app))
        await kept(app, pilot, "mine.py")
        await until(pilot, lambda: isinstance(app.screen, ConfirmModal))
        await press(pilot, "escape")
    by_command = home / "by-command"
    by_command.mkdir()
    runner = CliRunner()
    for name, more in (("mine.py", []), ("mine.ipynb", ["--notebook"])):
        asked = ["script", str(home / "mine.yaml"), "-o", str(by_command / name), *more]
        assert runner.invoke(commands, asked).exit_code == 0
        assert (home / name).read_bytes() == (by_command / name).read_bytes()
    assert (home / "messages.jsonl").read_bytes() == (by_command / "messages.jsonl").read_bytes()
    printed = runner.invoke(commands, ["script", str(home / "mine.yaml")])
    assert printed.stdout == (home / "mine.py").read_text()
    json.loads((home / "mine.ipynb").read_text())


async def test_a_draft_that_is_not_finished_says_what_is_missing(home: Path) -> None:
    async with wizard((80, 24)) as (app, pilot):
        app.begin(demo_recipe())
        await at_step(app, pilot, "model")
        app.wizard.set("lora.rank", "10,000")
        app.wizard.set("training.learning_rate", "2")
        app.wizard.set("dataset.source", "/nowhere/rows.jsonl")
        modal = await opened(app, pilot)
        assert "Rank" in seen(app) and "from 1 to 1,024" in seen(app) and "Learning rate" in seen(app)
        await until(pilot, lambda: "The rows could not be looked at" in " ".join(seen(app).split()))
        assert "rank: 10000" in modal.texts["Recipe"] and "r=16," in modal.texts["Script"]
        assert modal.texts["Script"].startswith("# Not finished: Rank")
        compile(modal.texts["Script"], "script", "exec")
        await press(pilot, "2", "c")
        assert app.clipboard == modal.texts["Script"]
        await kept(app, pilot, "/nowhere/at/all.py")
        await until(pilot, lambda: "cannot be written" in " ".join(seen(app).split()))
        await press(pilot, "escape", "escape")
        await at_step(app, pilot, "lora")


async def test_it_scrolls_to_its_end() -> None:
    async with wizard((80, 24)) as (app, pilot):
        modal = await opened(app, pilot)
        await press(pilot, "end")
        await until(pilot, lambda: "prove: " in seen(app), "for the last field")
        await press(pilot, "2")
        await until(pilot, lambda: '"""demo' in seen(app), "for the beginning of the script")
        assert modal.query_one("#code-text").size.width > 80
