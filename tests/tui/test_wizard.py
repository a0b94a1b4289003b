"""The wizard by keys: every step shows, nothing is lost on the way, and text from outside stays text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import Static

from finetui.core.demo.recipe import demo_recipe
from finetui.core.draft import Draft
from finetui.core.errors import FinetuiError
from finetui.core.recipe import STEPS, Recipe
from finetui.tui.modals.card import ErrorCard
from finetui.tui.screens.step import StepScreen
from finetui.tui.screens.training import TrainingScreen
from finetui.tui.widgets.controls import ChecklistControl, ChoiceControl, TextControl
from finetui.tui.widgets.form import Form
from tests.tui.driving import NAMES, SIZES, at_step, fill, home, press, seen, type_over, until, wizard

__all__ = ["home"]


def rows_file(folder: Path, count: int = 12, answer: str = "fine") -> Path:
    path = folder / "rows.jsonl"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"question {n}"},
                {"role": "assistant", "content": f"{answer} {n}"},
            ]
        }
        for n in range(count)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_home_says_what_it_is_and_suggests_the_demo(size: tuple[int, int]) -> None:
    async with wizard(size) as (app, pilot):
        text = " ".join(seen(app).split())
        assert "finetui teaches a language model a new habit" in text
        assert "press Enter five times" in text
        assert "Try the demo" in text and "Learn" in text and "Doctor" in text
        assert app.screen.query_one("#menu").chosen == "demo"  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_enter_leads_from_home_to_the_start_of_training(size: tuple[int, int]) -> None:
    async with wizard(size, demo=True) as (app, pilot):
        for step in ("model", "dataset", "lora", "training"):
            await pilot.press("enter")
            await at_step(app, pilot, step)
            assert NAMES[step] in seen(app)
            assert "q Quit" in seen(app) or "^q Quit" in seen(app)
            assert "Help" in seen(app)
        assert "Start training" in seen(app)
        assert app.wizard.draft.recipe().name == "demo"


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_too_little_memory_for_the_exports_is_said_before_the_start(size: tuple[int, int]) -> None:
    async with wizard(size, demo=True) as (app, pilot):
        for step in ("model", "dataset", "lora", "training"):
            await pilot.press("enter")
            await at_step(app, pilot, step)
        await until(pilot, lambda: app.wizard.machine is not None and app.wizard.model_facts is not None)
        screen = app.screen
        assert isinstance(screen, TrainingScreen) and app.wizard.machine is not None
        assert "the exports" not in str(screen.query_one("#plan", Static).content)
        app.wizard.machine = replace(app.wizard.machine, memory_available_bytes=100 * 1024**2)
        screen.refresh_facts()
        assert "Making the exports takes about" in str(screen.query_one("#plan", Static).content)
        assert screen.trouble() is None, "memory may be freed meanwhile"


@pytest.mark.parametrize("size", SIZES, ids=fill)
@pytest.mark.parametrize("step", STEPS)
async def test_each_step_shows_its_fields_explanation_and_way_on(step: str, size: tuple[int, int]) -> None:
    async with wizard(size) as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        app.go(step)
        await at_step(app, pilot, step)
        await until(pilot, lambda: "Memory" in seen(app) and "Time" in seen(app))
        screen = app.screen
        assert isinstance(screen, StepScreen)
        text = seen(app)
        for spec in screen.form.basic:
            assert spec.title in text, spec.title
        assert len(screen.form.basic) <= 7
        button = screen.query_one("#continue")
        assert button.region.height == 1 and button.region.bottom <= size[1] - 1
        explained = screen.explain_content()
        assert explained is not None and explained.plain.splitlines()[0] in text


async def test_back_and_forth_keeps_everything_also_what_is_wrong() -> None:
    async with wizard() as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        app.go("lora")
        await at_step(app, pilot, "lora")
        await type_over(pilot, "64")
        await press(pilot, "down")
        await type_over(pilot, "9x")
        await press(pilot, "escape")
        await at_step(app, pilot, "dataset")
        await press(pilot, "escape")
        await at_step(app, pilot, "model")
        app.go("lora")
        await at_step(app, pilot, "lora")
        inputs = [control.value for control in app.screen.query(TextControl) if control.display]
        assert inputs[:2] == ["64", "9x"]
        assert app.focused is app.screen.query_one(Form).row("lora.alpha").field_control
        assert app.wizard.problem("lora.alpha")


async def test_leaving_and_coming_back_finds_the_draft() -> None:
    async with wizard() as (app, pilot):
        app.begin(Recipe(name="tickets"))
        await at_step(app, pilot, "model")
        app.go("lora")
        await at_step(app, pilot, "lora")
        await type_over(pilot, "48")
        await press(pilot, "down")
        await type_over(pilot, "oops")
        await press(pilot, "ctrl+q")
    async with wizard() as (app, pilot):
        await until(
            pilot, lambda: "Continue your draft" in seen(app) and "tickets" in seen(app), "for the draft"
        )
        assert app.screen.query_one("#menu").chosen == "draft"  # type: ignore[attr-defined]
        await press(pilot, "enter")
        await at_step(app, pilot, "model")
        app.go("lora")
        await at_step(app, pilot, "lora")
        assert app.wizard.draft["lora.rank"] == 48
        assert app.screen.query_one(Form).row("lora.alpha").field_control.value == "oops"  # type: ignore[attr-defined]


async def test_the_demo_does_not_replace_somebodys_draft_unasked() -> None:
    draft = Draft(Recipe(name="precious"))
    draft.set("lora.rank", 99)
    draft.save()
    async with wizard(demo=True) as (app, pilot):
        await press(pilot, "d")
        await until(pilot, lambda: "precious" in seen(app) and "Start anew" in seen(app))
        await press(pilot, "escape")
        saved = Draft.load()
        assert saved is not None and saved["lora.rank"] == 99
        await press(pilot, "d")
        await until(pilot, lambda: "Start anew" in seen(app))
        await press(pilot, "enter")
        await at_step(app, pilot, "model")
        assert app.wizard.draft["lora.rank"] == 99


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_rows_of_a_file_are_shown_with_their_marks_and_turned(
    size: tuple[int, int], home: Path
) -> None:
    path = rows_file(home)
    async with wizard(size) as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        app.go("dataset")
        await at_step(app, pilot, "dataset")
        await press(pilot, "right", "down")
        await type_over(pilot, str(path))
        await until(
            pilot, lambda: app.wizard.dataset_facts is not None and app.wizard.dataset_facts.kind == "file"
        )
        await until(pilot, lambda: "question 0" in seen(app))
        assert app.wizard.draft["dataset.source"] == str(path)
        assert "learned" in seen(app)
        app.screen.query_one("#preview").focus()
        await press(pilot, "right")
        await until(pilot, lambda: "question 1" in seen(app))
        preview = app.screen.query_one("#preview").content(70).plain  # type: ignore[attr-defined]
        assert [line for line in preview.splitlines() if "fine 1" in line][0].count("▌") == 1
        assert [line for line in preview.splitlines() if "question 1" in line][0].count("│") == 1


async def test_a_source_that_cannot_be_used_says_what_why_and_how_and_blocks(home: Path) -> None:
    async with wizard((120, 36)) as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        await press(pilot, "slash")
        assert "type a folder" in seen(app)
        empty = home / "empty"
        empty.mkdir()
        await type_over(pilot, str(empty))
        await press(pilot, "enter")
        await until(pilot, lambda: app.wizard.model_error is not None)
        error = app.wizard.model_error
        assert error is not None and error.what and error.why and error.fix
        await until(pilot, lambda: error.what.split()[0] in seen(app), "for its words")
        await press(pilot, "ctrl+n")
        await until(pilot, lambda: isinstance(app.screen, ErrorCard) and error.fix.split()[0] in seen(app))
        await press(pilot, "escape")
        assert app.wizard.draft["model.source"] == str(empty)
        await press(pilot, "escape")  # empties the line
        app.screen.query_one("#model-list").focus()
        await press(pilot, "right", "left")
        await until(pilot, lambda: "0/empty" in seen(app), "for it in the list")
        await press(pilot, "home", "down", "space")
        await until(pilot, lambda: app.wizard.model_facts is not None and app.wizard.model_error is None)
        assert app.wizard.draft["model.source"] == "demo"


HOSTILE = "[@click=app.quit]x[/] [bold]loud[/bold] [/ \x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07 \u202ertl"


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_hostile_text_is_shown_literally_and_does_nothing(size: tuple[int, int], home: Path) -> None:
    path = rows_file(home, answer=HOSTILE)
    recipe = Recipe(dataset=Recipe().dataset.model_copy(update={"source": str(path)}))
    async with wizard(size) as (app, pilot):
        app.begin(recipe)
        await at_step(app, pilot, "model")
        app.go("dataset")
        await at_step(app, pilot, "dataset")
        await until(pilot, lambda: "[@click=app.quit]x[/]" in seen(app))
        assert "[bold]loud[/bold]" in seen(app)
        assert not any(c in seen(app) for c in "\x1b\x07\u202e")
        await pilot.click("#preview", offset=(20, 3))
        await pilot.pause()
        assert app.is_running
        app.show_error(FinetuiError(HOSTILE, HOSTILE, HOSTILE))
        await until(pilot, lambda: isinstance(app.screen, ErrorCard) and "[@click=app.quit]x[/]" in seen(app))
        assert not any(c in seen(app) for c in "\x1b\x07\u202e")
        await press(pilot, "escape")
        assert app.is_running


async def test_escape_never_quits() -> None:
    async with wizard(demo=True) as (app, pilot):
        await press(pilot, "enter")
        await at_step(app, pilot, "model")
        for _ in range(4):
            await press(pilot, "escape")
        assert app.is_running
        assert app.screen.query("#menu")


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_learn_and_doctor(size: tuple[int, int]) -> None:
    async with wizard(size) as (app, pilot):
        await press(pilot, "l")
        await until(pilot, lambda: "Open a fresh video feed" in seen(app))
        await press(pilot, "right", "right")
        await until(pilot, lambda: "trust me" in seen(app))
        await press(pilot, "escape", "c")
        await until(
            pilot, lambda: "Python" in seen(app) and ("Ready to train" in seen(app) or "to mend" in seen(app))
        )


async def test_every_shown_action_is_in_the_palette() -> None:
    async with wizard((120, 36)) as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        commands = {command.title for command in app.get_system_commands(app.screen)}
        assert {
            "Next",
            "Back",
            "Advanced",
            "Default",
            "Help",
            "Quit",
            "Go to LoRA",
            "Go home",
            "Learn",
            "Doctor",
        } <= commands


async def test_the_mouse_works() -> None:
    async with wizard((120, 36)) as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        precision = app.screen.query_one(Form).row("model.precision").field_control
        assert isinstance(precision, ChoiceControl)
        await pilot.click(precision, offset=(18, 0))
        await pilot.pause()
        assert app.wizard.draft["model.precision"] == "4bit"
        await pilot.click("#continue")
        await at_step(app, pilot, "dataset")
        app.go("lora")
        await at_step(app, pilot, "lora")
        checklist = app.screen.query_one(ChecklistControl)
        await pilot.click(checklist, offset=(0, 0))
        await pilot.pause()
        assert "q_proj" not in app.wizard.draft["lora.target_modules"]


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
@pytest.mark.parametrize("step", STEPS)
async def test_keys_without_room_in_the_footer_stand_beside_continue(
    step: str, size: tuple[int, int]
) -> None:
    async with wizard(size) as (app, pilot):
        app.begin(demo_recipe())
        await at_step(app, pilot, "model")
        app.go(step)
        await at_step(app, pilot, step)
        wanted = ["F9 as code", *(["F5 columns", "F6 mix"] if step == "dataset" else [])]
        await until(
            pilot, lambda: all(key in seen(app).replace("F9 As", "F9 as") for key in wanted), f"for {wanted}"
        )


async def test_a_source_that_is_empty_leaves_no_words_of_the_one_before() -> None:
    async with wizard((80, 24)) as (app, pilot):
        app.begin(demo_recipe())
        await at_step(app, pilot, "model")
        app.go("dataset")
        await at_step(app, pilot, "dataset")
        await until(pilot, lambda: "40 rows" in seen(app), "for the rows")
        await press(pilot, "right")
        await until(
            pilot, lambda: "type a file" in seen(app) and " rows" not in seen(app).partition("Advanced")[0]
        )
