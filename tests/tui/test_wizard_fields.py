"""The fields of the steps: each can be edited, reaches the draft, and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetui.core.demo.recipe import demo_recipe
from finetui.core.draft import Draft
from finetui.core.fields import FieldSpec, fields
from finetui.core.recipe import STEPS, Recipe
from finetui.tui.modals.help import HelpModal
from finetui.tui.screens.step import StepScreen
from finetui.tui.widgets.controls import ChecklistControl, TextControl
from finetui.tui.widgets.form import Form
from tests.tui.driving import SIZES, at_step, fill, home, press, seen, type_over, until, wizard

__all__ = ["home"]


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


async def test_rare_export_formats_are_folded_away() -> None:
    async with wizard((80, 24)) as (app, pilot):
        app.begin(Recipe())
        await at_step(app, pilot, "model")
        app.go("export")
        await at_step(app, pilot, "export")
        checklist = app.screen.query_one(ChecklistControl)
        assert "26 more" in seen(app) and "gguf_iq4_xs" not in checklist.shown
        checklist.cursor = checklist.shown.index("")
        checklist.focus()
        await until(pilot, lambda: "For those who look for one of them" in " ".join(seen(app).split()))
        await press(pilot, "space")
        await until(pilot, lambda: "fewer" in seen(app), "for all formats, none pushed out of sight")
        checklist.cursor = checklist.shown.index("gguf_iq4_xs")
        await press(pilot, "space")
        assert "gguf_iq4_xs" in app.wizard.draft["export.formats"]
        checklist.cursor = checklist.shown.index("")
        await press(pilot, "space")
        assert "gguf_iq4_xs" in checklist.shown and "gguf_q2_k" not in checklist.shown


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
async def test_the_format_under_the_cursor_is_explained(size: tuple[int, int]) -> None:
    async with wizard(size) as (app, pilot):
        app.begin(demo_recipe())
        await at_step(app, pilot, "model")
        await until(pilot, lambda: app.wizard.model_facts is not None, "for the model")
        app.go("export")
        await at_step(app, pilot, "export")

        def flat() -> str:
            return " ".join("".join(line[82:] if size[0] > 80 else line) for line in seen(app).splitlines())

        await until(pilot, lambda: "only what was learned" in " ".join(flat().split()), "for the adapter")
        await press(pilot, "right", "right", "right")
        await until(pilot, lambda: "GGUF Q8_0: half of F16" in " ".join(flat().split()), "for the GGUF")
        words = " ".join(flat().split())
        assert "MiB here." in words and "IQ3_M" not in words, words


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
        await until(pilot, lambda: "held-out rows every 20 steps" in seen(app), "for the plan")
        again.set_value("training.evaluate_every_steps", "10000")
        await until(pilot, lambda: "held-out rows at the end" in seen(app), "for the only look")
