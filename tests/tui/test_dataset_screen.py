"""The dataset step with a real inspection: rows token by token, the columns, and the process behind them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from finetui.tui.screens.dataset import DatasetScreen
from finetui.tui.screens.mapping import MappingScreen
from finetui.tui.screens.rows import RowsScreen
from finetui.tui.widgets.controls import TextControl
from tests.tui.driving import SIZES, at_step, fill, home, press, seen, until
from tests.worker.conftest import tiny_model

if TYPE_CHECKING:
    pass
from tests.tui.dataset_step import counted, dataset_step, inspectors, talk, write

__all__ = ["home", "tiny_model"]


HOSTILE = "[@click=app.quit]x[/] [bold]loud[/bold] \x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07 \u202ertl"


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_the_rows_are_shown_token_by_token_and_found(
    size: tuple[int, int], home: Path, tiny_model: Path
) -> None:
    lines = [talk(f"question {n}", f"answer {n} " + "word " * n) for n in range(30)]
    lines[7] = "{broken"
    async with dataset_step(size, tiny_model, write(home, lines), max_length=128) as (app, pilot):
        await counted(app, pilot)
        await press(pilot, "f3")
        await until(pilot, lambda: isinstance(app.screen, RowsScreen) and "answer 0" in seen(app))
        screen = app.screen
        assert isinstance(screen, RowsScreen) and screen.row is not None
        row, text = screen.row, seen(app)
        assert f"{row.tokens:,} tokens, {row.special_tokens:,} special" in text and row.special_tokens >= 4
        assert f"{row.trained_tokens:,} learned" in text and "0 cut off" in text
        assert "learned" in text and "only read" in text and "cut off" in text  # the legend
        learned = [line for line in text.splitlines() if "answer 0" in line and "▌" in line]
        assert learned and "<|im_end|>" in learned[0]
        assert any("question 0" in line and "│" in line and "▌" not in line for line in text.splitlines())
        await press(pilot, "n")
        await until(pilot, lambda: "question 1" in seen(app))
        await press(pilot, "g", "1", "2", "enter")
        await until(pilot, lambda: "question 11" in seen(app))
        await press(pilot, "slash", *"ION 21", "enter")
        await until(pilot, lambda: "question 21" in seen(app))
        await press(pilot, "l")
        await until(pilot, lambda: "question 29" in seen(app))
        assert "✗" in seen(app)  # the cut part has a mark of its own
        await press(pilot, "s")
        await until(pilot, lambda: "question 0" in seen(app))
        await press(pilot, "d")
        await until(pilot, lambda: "left out" in seen(app) and "line 8" in seen(app))
        await press(pilot, "g", "1", "enter")
        await until(pilot, lambda: "question 0" in seen(app))
        if size[0] < 100:
            await press(pilot, "r")
        await until(pilot, lambda: '"role": "user"' in seen(app))
        await press(pilot, "escape")
        await until(pilot, lambda: isinstance(app.screen, DatasetScreen))


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_a_path_that_is_typed_is_seen_whole(
    size: tuple[int, int], home: Path, tiny_model: Path
) -> None:
    path = write(home, [talk(f"question {n}", "yes") for n in range(20)])
    async with dataset_step(size, tiny_model, path) as (app, pilot):
        await counted(app, pilot)
        field = app.screen.query_one("#source-file TextControl", TextControl)
        assert field.size.width >= 30
        form, facts = app.screen.query_one("#row-dataset-format"), app.screen.query_one("#facts")
        under = form.region.y - field.region.bottom
        assert 0 <= under <= 1 and facts.region.y > form.region.y  # no gap between the source and its options


async def test_another_choice_ends_the_process_and_so_does_leaving(home: Path, tiny_model: Path) -> None:
    earlier = inspectors()  # one of another test may still be preparing the demo's model

    def mine() -> set[int]:
        return inspectors() - earlier

    first = write(home, [talk(f"question {n}", "yes") for n in range(20)])
    second = write(home, [talk(f"question {n}", "no") for n in range(15)], "second.jsonl")
    async with dataset_step((80, 24), tiny_model, first) as (app, pilot):
        await counted(app, pilot)
        old = mine()
        assert len(old) == 1
        app.wizard.set("dataset.source", str(second))
        app.draft_changed("dataset.source")
        assert app.wizard.inspection.ledger is None  # what is of another file is not shown for this one
        await until(pilot, lambda: (now := app.wizard.inspection.complete) is not None and now.read == 15)
        await until(pilot, lambda: not old & mine(), "for the end of the first process")
        app.go("lora")
        await at_step(app, pilot, "lora")
        await until(pilot, lambda: not mine(), "for the end of the second process")
        assert app.wizard.inspection.complete is not None  # what was counted stays
        app.go("dataset")
        await at_step(app, pilot, "dataset")
        await press(pilot, "f3")
        await until(pilot, lambda: "question 0" in seen(app), "for the rows after a rest")
        app.go_home()
        await until(pilot, lambda: not mine(), "for the end of the third process")


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_columns_with_odd_names_are_said_by_hand_with_the_result_beside(
    size: tuple[int, int], home: Path, tiny_model: Path
) -> None:
    path = write(home, ["frage_xy,zz,kk", *(f"Wie geht {n}?,So geht {n}.,{n}" for n in range(40))], "odd.csv")
    async with dataset_step(size, tiny_model, path) as (app, pilot):
        await until(pilot, lambda: app.wizard.dataset_error is not None)
        await until(pilot, lambda: "F5" in seen(app) or size[1] < 30)
        await press(pilot, "f5")
        await until(pilot, lambda: isinstance(app.screen, MappingScreen) and "frage_xy" in seen(app))
        await press(pilot, "down", "right", "down", "right", "right")
        await until(pilot, lambda: "So geht 0." in seen(app) and "40 rows" in seen(app))
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, DatasetScreen))
        assert app.wizard.draft["dataset.columns"] == {"user": "frage_xy", "assistant": "zz"}
        await counted(app, pilot)
        ledger = app.wizard.inspection.complete
        assert ledger is not None and ledger.kept == 40


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_hostile_rows_stay_text_on_every_screen(
    size: tuple[int, int], home: Path, tiny_model: Path
) -> None:
    path = write(home, [talk(f"{HOSTILE} {n}", f"{HOSTILE} {n}") for n in range(20)])
    async with dataset_step(size, tiny_model, path, max_length=1024) as (app, pilot):
        await counted(app, pilot)
        for key in ("f3", "f4", "f5"):
            await press(pilot, key)
            await until(pilot, lambda: not isinstance(app.screen, DatasetScreen))
            if key == "f3":
                await until(pilot, lambda: "[@click=app.quit]x[/]" in seen(app))
                assert "␛[31mred" in seen(app)  # the model sees an escape: so does the person, as a picture
            for y in range(3, size[1] - 2, 4):
                await pilot.click(offset=(size[0] // 3, y))
            assert app.is_running
            assert not any(c in seen(app) for c in "\x1b\x07\u202e")
            while not isinstance(app.screen, DatasetScreen):
                await press(pilot, "escape")
