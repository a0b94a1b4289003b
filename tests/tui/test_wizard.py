"""The wizard by keys: every step shows, every field reaches the draft, nothing is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetui.core.draft import Draft
from finetui.core.errors import FinetuiError
from finetui.core.fields import FieldSpec, fields
from finetui.core.recipe import STEPS, Recipe
from finetui.tui.modals.card import ErrorCard
from finetui.tui.modals.help import HelpModal
from finetui.tui.screens.step import StepScreen
from finetui.tui.widgets.controls import ChecklistControl, ChoiceControl, TextControl
from finetui.tui.widgets.form import Form
from tests.tui.driving import SIZES, at_step, press, seen, type_over, until, wizard

NAMES = {"model": "Model", "dataset": "Dataset", "lora": "LoRA", "training": "Training", "export": "Export"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test; no worker is warmed up."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    return tmp_path


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


def fill(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


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


def other(spec: FieldSpec, now: object) -> tuple[list[str], object]:
    """Keys that change a field, and the value that they give it."""
    if spec.kind in ("flag", "choice"):
        choices: list[object] = [False, True] if spec.kind == "flag" else list(spec.choices)
        return ["right"], choices[(choices.index(now) + 1) % len(choices)]
    if spec.kind == "choices":
        ticked = set(now) ^ {spec.choices[1]}  # type: ignore[call-overload]
        return ["right", "space"], tuple(c for c in spec.choices if c in ticked)
    if spec.kind == "text":
        return list("abc"), "abc"
    if spec.kind == "texts":
        return ["a", "semicolon", "b"], ("a", "b")
    if spec.kind == "pairs":
        name = spec.choices[0] if spec.choices else "b.csv"
        right: object = 2.0 if spec.maximum else "q"
        typed = f"{name}={2 if spec.maximum else 'q'}"
        return [{"=": "equals_sign", ".": "full_stop"}.get(c, c) for c in typed], {name: right}
    value = 17 if spec.kind == "int" else 0.25 if (spec.maximum or 1) >= 0.25 else 0.0625
    return ["full_stop" if c == "." else c for c in str(value)], value


@pytest.mark.parametrize("step", STEPS)
async def test_every_field_can_be_edited_by_keys_and_reaches_the_draft_on_disk(step: str, home: Path) -> None:
    async with wizard((120, 36)) as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        app.go(step)
        await at_step(app, pilot, step)
        form = app.screen.query_one(Form)
        expected: dict[str, object] = {}
        for spec in (*form.basic, *form.advanced):
            if spec.path == "name":
                continue
            form.focus_field(spec.path)
            control = form.row(spec.path).field_control
            await until(pilot, lambda control=control: app.focused is control, spec.path)
            keys, value = other(spec, app.wizard.draft[spec.path])
            if isinstance(control, TextControl):
                await pilot.press("end", "ctrl+u")
            await press(pilot, *keys)
            assert app.wizard.draft[spec.path] == value, spec.path
            expected[spec.path] = value
        covered = {spec.path for spec in fields(step)} - set(expected)
        assert covered <= {"model.source", "dataset.source"}
    saved = Draft.load()
    assert saved is not None
    assert {path: saved[path] for path in expected} == expected


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_a_wrong_value_is_named_at_once_and_blocks_the_way_on(size: tuple[int, int]) -> None:
    async with wizard(size) as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        app.go("lora")
        await at_step(app, pilot, "lora")
        await type_over(pilot, "0")
        assert "Rank" in app.wizard.sentence("lora.rank", app.wizard.problem("lora.rank") or "")
        assert "✗" in seen(app) and "1,024" in seen(app)
        await press(pilot, "enter")
        assert app.screen.step == "lora"  # type: ignore[attr-defined]
        await press(pilot, "ctrl+n")
        assert app.screen.step == "lora"  # type: ignore[attr-defined]
        await type_over(pilot, "many")
        assert app.wizard.problem("lora.rank")
        await type_over(pilot, "8")
        assert app.wizard.problem("lora.rank") is None
        await press(pilot, "enter")
        await at_step(app, pilot, "training")


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
        assert "Continue your draft" in seen(app)
        assert "tickets" in seen(app)
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
        assert error.what.split()[0] in seen(app)
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


async def test_quit_and_help_keys_are_letters_inside_a_text() -> None:
    async with wizard() as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        app.go("dataset")
        await at_step(app, pilot, "dataset")
        app.screen.query_one(Form).focus_field("dataset.system_prompt")
        await press(pilot, "q", "question_mark")
        assert app.wizard.draft["dataset.system_prompt"] == "q?"
        await press(pilot, "f1")
        await until(pilot, lambda: isinstance(app.screen, HelpModal) and "System prompt" in seen(app))
        await press(pilot, "escape")
        app.go("lora")
        await at_step(app, pilot, "lora")
        await press(pilot, "question_mark")  # a number has no use for it
        await until(pilot, lambda: isinstance(app.screen, HelpModal))
        assert app.wizard.draft["lora.rank"] == 16


async def test_escape_never_quits() -> None:
    async with wizard(demo=True) as (app, pilot):
        await press(pilot, "enter")
        await at_step(app, pilot, "model")
        for _ in range(4):
            await press(pilot, "escape")
        assert app.is_running
        assert app.screen.query("#menu")


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


async def test_rare_export_formats_are_folded_away() -> None:
    async with wizard((80, 24)) as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        app.go("export")
        await at_step(app, pilot, "export")
        checklist = app.screen.query_one(ChecklistControl)
        assert "25 more" in seen(app) and "gguf_iq4_xs" not in checklist.shown
        checklist.cursor = checklist.shown.index("")
        checklist.focus()
        await press(pilot, "space")
        assert "fewer" in seen(app)
        checklist.cursor = checklist.shown.index("gguf_iq4_xs")
        await press(pilot, "space")
        assert "gguf_iq4_xs" in app.wizard.draft["export.formats"]
        checklist.cursor = checklist.shown.index("")
        await press(pilot, "space")
        assert "gguf_iq4_xs" in checklist.shown and "gguf_q2_k" not in checklist.shown


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


async def test_what_cannot_be_trained_is_said_at_its_field_at_once() -> None:
    async with wizard((120, 36)) as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        await until(pilot, lambda: app.wizard.plan() is not None, "for the rows")
        app.go("training")
        await at_step(app, pilot, "training")
        screen = app.screen
        assert isinstance(screen, StepScreen)
        screen.set_value("training.warmup_steps", "900")
        screen.set_value("training.optimizer", "lion_8bit")
        for path in ("training.warmup_steps", "training.optimizer"):
            row = screen.form.row(path)
            await until(pilot, lambda row=row: row.has_class("-wrong"), path)
        assert screen.blocking() is not None
        app.go("model")
        await at_step(app, pilot, "model")
        assert app.screen.blocking() is None  # type: ignore[attr-defined]
        app.go("training")
        await at_step(app, pilot, "training")
        assert isinstance(app.screen, StepScreen)
        again = app.screen
        again.set_value("training.warmup_steps", "3")
        again.set_value("training.optimizer", "adafactor")
        await until(
            pilot, lambda: not again.form.row("training.warmup_steps").has_class("-wrong"), "for its end"
        )
        assert again.blocking() is None
