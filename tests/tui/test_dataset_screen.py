"""The dataset step with a real inspection: rows token by token, the ledger and what mends it, the gate, the columns."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from textual.pilot import Pilot

from finetui.core.recipe import Recipe
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.card import ErrorCard
from finetui.tui.modals.mix import MixModal
from finetui.tui.screens.dataset import DatasetScreen
from finetui.tui.screens.ledger import LedgerScreen
from finetui.tui.screens.mapping import MappingScreen
from finetui.tui.screens.rows import RowsScreen
from finetui.tui.widgets.controls import TextControl
from finetui.tui.widgets.dataset.findings import FindingList
from tests.tui.driving import SIZES, at_step, press, seen, type_over, until, wizard
from tests.worker.conftest import tiny_model
from tests.worker.test_peek import rows, server

if TYPE_CHECKING:
    from tests.hub_server import Hub

__all__ = ["server", "tiny_model"]

HOSTILE = "[@click=app.quit]x[/] [bold]loud[/bold] \x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07 \u202ertl"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    return tmp_path


def talk(question: str, answer: str) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns})


def write(folder: Path, lines: list[str], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@asynccontextmanager
async def dataset_step(
    size: tuple[int, int], model: Path, source: Path, max_length: int = 256, **changes: Any
) -> AsyncIterator[tuple[FinetuiApp, Pilot[Any]]]:
    """The dataset step with a tiny model and the rows in `source`."""
    plain = Recipe()
    recipe = Recipe(
        model=plain.model.model_copy(update={"source": str(model), "max_length": max_length}),
        dataset=plain.dataset.model_copy(update={"source": str(source), **changes}),
    )
    async with wizard(size) as (app, pilot):
        app.begin(recipe, step="dataset")
        await at_step(app, pilot, "dataset")
        yield app, pilot


async def counted(app: FinetuiApp, pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: app.wizard.inspection.complete is not None, "for the whole ledger")


def fill(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


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
async def test_the_ledger_accounts_for_every_row_and_its_actions_change_the_recipe(
    size: tuple[int, int], home: Path, tiny_model: Path
) -> None:
    lines = [talk(f"question {n}", f"answer {n} " + "word " * 20) for n in range(30)]
    lines[3], lines[11] = "{broken", talk("what?", "")
    async with dataset_step(size, tiny_model, write(home, lines), max_length=64) as (app, pilot):
        await counted(app, pilot)
        assert "F4" in seen(app)
        await press(pilot, "f4")
        await until(pilot, lambda: isinstance(app.screen, LedgerScreen) and "rows read" in seen(app))
        ledger = app.wizard.inspection.complete
        assert ledger is not None
        assert ledger.read == 30 == ledger.kept + ledger.dropped_rows
        assert f"{ledger.read} rows read = {ledger.kept} kept + {ledger.dropped_rows} dropped" in seen(app)
        chosen = app.screen.query_one(FindingList).chosen
        while chosen is not None and (chosen[1] is None or chosen[1].key != "raise-length"):
            before = app.screen.query_one(FindingList).at
            await press(pilot, "down")
            assert app.screen.query_one(FindingList).at > before, "no finding offers to raise the length"
            chosen = app.screen.query_one(FindingList).chosen
        assert chosen is not None and chosen[1] is not None
        wanted = dict(chosen[1].change)["model.max_length"]
        await press(pilot, "enter")
        assert app.wizard.draft["model.max_length"] == wanted
        await until(
            pilot,
            lambda: (now := app.wizard.inspection.complete) is not None and now.max_length == wanted,
            "for a ledger of the new length",
        )
        again = app.wizard.inspection.complete
        assert again is not None and again.cut_rows == 0
        await press(pilot, "pagedown")
        await until(pilot, lambda: "empty answer (row 12)" in " ".join(seen(app).split()))


async def test_a_cleaned_copy_is_written_without_the_rows_and_can_be_trained_on(
    home: Path, tiny_model: Path
) -> None:
    lines = [talk(f"question {n % 20}", f"answer {n % 20}") for n in range(30)]
    source = write(home, lines)
    async with dataset_step((120, 36), tiny_model, source) as (app, pilot):
        await counted(app, pilot)
        await press(pilot, "f4")
        await until(pilot, lambda: isinstance(app.screen, LedgerScreen))
        found = app.screen.query_one(FindingList)
        while found.chosen is not None and (found.chosen[1] is None or found.chosen[1].key != "clean-copy"):
            before = found.at
            await press(pilot, "down")
            assert found.at > before, "no finding offers a cleaned copy"
        await press(pilot, "enter")
        await until(pilot, lambda: "rows.clean.jsonl" in seen(app))
        await press(pilot, "enter")
        await until(pilot, lambda: "Train on it" in seen(app))
        clean = home / "rows.clean.jsonl"
        assert len(clean.read_text(encoding="utf-8").splitlines()) == 20
        assert (
            len(source.read_text(encoding="utf-8").splitlines()) == 30
        )  # the person's own file is untouched
        await press(pilot, "enter")
        assert app.wizard.draft["dataset.source"] == str(clean)
        await until(pilot, lambda: (now := app.wizard.inspection.complete) is not None and now.read == 20)


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_a_dataset_from_which_nothing_can_be_learned_cannot_be_started(
    size: tuple[int, int], home: Path, tiny_model: Path
) -> None:
    path = write(home, [talk("a long question " * 20, "yes") for _ in range(12)])
    async with dataset_step(size, tiny_model, path, max_length=32) as (app, pilot):
        await counted(app, pilot)
        gate = app.wizard.inspection.gate
        assert gate is not None
        word = gate.what.split()[0]
        await until(pilot, lambda: "F4" in seen(app) and word in seen(app), "for the reason on the step")
        await press(pilot, "ctrl+n")
        await until(pilot, lambda: isinstance(app.screen, ErrorCard))
        await press(pilot, "escape")
        app.go("training")
        await at_step(app, pilot, "training")
        await press(pilot, "ctrl+n")
        await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the reason at the start")
        await press(pilot, "escape")
        assert not list((home / "home").glob("**/events.jsonl"))  # no run was made
        await at_step(app, pilot, "dataset")


async def test_warnings_can_be_passed(home: Path, tiny_model: Path) -> None:
    path = write(home, [talk(f"question {n % 5}", f"answer {n % 5}") for n in range(30)])
    async with dataset_step((80, 24), tiny_model, path) as (app, pilot):
        await counted(app, pilot)
        ledger = app.wizard.inspection.complete
        assert ledger is not None and ledger.worst == "warning" and app.wizard.inspection.gate is None
        await press(pilot, "ctrl+n")
        await at_step(app, pilot, "lora")


def inspectors() -> set[int]:
    """Processes of the inspector that this test process has started."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if b"finetui.core.worker.inspect" in command and parent == os.getpid():
            found.add(int(entry.name))
    return found


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


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_the_parts_of_a_hub_dataset_are_picked_from_their_names(
    size: tuple[int, int], server: Hub, tiny_model: Path
) -> None:
    names = "configs:\n- config_name: en\n  data_files: en.jsonl\n- config_name: de\n  data_files: de.jsonl\n"
    files = {"README.md": f"---\n{names}---\n".encode(), "en.jsonl": rows(15), "de.jsonl": rows(16)}
    server.add("datasets", "me/several", files)
    async with dataset_step(size, tiny_model, Path("me/several")) as (app, pilot):
        await until(
            pilot, lambda: "Configuration" in seen(app) and "choose one" in seen(app), "for the names"
        )
        assert app.wizard.draft["dataset.config"] is None  # which one is meant, only the person knows
        app.screen.query_one("#hub-config-choice").focus()
        await press(pilot, "right")
        assert app.wizard.draft["dataset.config"] == "en"
        await until(pilot, lambda: (facts := app.wizard.dataset_facts) is not None and facts.rows == 15)
        app.screen.query_one("#hub-config-choice").focus()
        await press(pilot, "right")
        assert app.wizard.draft["dataset.config"] == "de"
        await until(pilot, lambda: (facts := app.wizard.dataset_facts) is not None and facts.rows == 16)
        await counted(app, pilot)
        ledger = app.wizard.inspection.complete
        assert ledger is not None and ledger.read == 16


async def test_the_reading_can_be_stopped_and_taken_up_again(home: Path, tiny_model: Path) -> None:
    path = write(home, [talk(f"question {n}", f"answer {n} " + "word " * 60) for n in range(60_000)])
    async with dataset_step((80, 24), tiny_model, path) as (app, pilot):
        await until(pilot, lambda: app.wizard.inspection.state in ("reading", "done"))
        await press(pilot, "f4")
        await until(pilot, lambda: isinstance(app.screen, LedgerScreen))
        await press(pilot, "x")
        await until(pilot, lambda: app.wizard.inspection.state in ("cancelled", "done"))
        assert app.wizard.inspection.state == "cancelled", "read to its end before it could be stopped"
        assert "stopped" in seen(app)
        await press(pilot, "r")
        await until(pilot, lambda: app.wizard.inspection.state in ("waiting", "reading", "done"))


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_several_sources_are_mixed_by_weight_and_counted_at_once(
    size: tuple[int, int], home: Path, tiny_model: Path
) -> None:
    own = write(home, [talk(f"q{n}", f"a{n}") for n in range(40)])
    more = write(home, [talk(f"more {n}", "x") for n in range(20)], "more.jsonl")
    few = write(home, [talk(f"few {n}", "y") for n in range(4)], "few.jsonl")
    async with dataset_step(size, tiny_model, own) as (app, pilot):
        await counted(app, pilot)
        await press(pilot, "f6")
        await until(pilot, lambda: isinstance(app.screen, MixModal), "for the form")
        modal = app.screen
        assert isinstance(modal, MixModal)
        await type_over(pilot, str(more))
        await press(pilot, "tab")
        await type_over(pilot, "0.5")
        await until(pilot, lambda: "20 × 0.5 = ~10 rows" in seen(app), "for half of the rows")
        assert "Together about 50 rows, 20% of them from what is mixed in." in seen(app)
        await press(pilot, "tab")
        await type_over(pilot, str(few))
        await press(pilot, "tab")
        await type_over(pilot, "-3")
        await until(pilot, lambda: "A weight must be a number above 0" in seen(app), "for the problem")
        await press(pilot, "ctrl+n")
        assert app.screen is modal, "a weight that is none is not taken"
        await type_over(pilot, "2")
        await until(pilot, lambda: "4 × 2 = 8 rows" in seen(app), "for twice the rows")
        await press(pilot, "tab")
        await type_over(pilot, str(home / "none.jsonl"))
        await until(pilot, lambda: "There is no file" in seen(app), "for the missing one")
        await type_over(pilot, str(own))
        await until(pilot, lambda: "The dataset itself is among" in seen(app), "for the dataset itself")
        await type_over(pilot, "")
        await press(pilot, "enter")
        await until(pilot, lambda: not isinstance(app.screen, MixModal), "for the dataset")
        assert app.wizard.draft["dataset.mix"] == {str(more): 0.5, str(few): 2.0}
        await counted_of(app, pilot, 64)
        ledger = app.wizard.inspection.complete
        assert ledger is not None and 40 + 4 <= ledger.kept <= 40 + 20 + 8
        await until(pilot, lambda: "sources mixed" in seen(app), "for the figures")
        await press(pilot, "f6")
        await until(pilot, lambda: isinstance(app.screen, MixModal) and "4 × 2 = 8 rows" in seen(app))
        await press(pilot, "escape")
        assert app.wizard.draft["dataset.mix"] == {str(more): 0.5, str(few): 2.0}


async def counted_of(app: FinetuiApp, pilot: Pilot[Any], rows: int) -> None:
    """Waits for the whole ledger of so many rows in the files."""

    def there() -> bool:
        ledger = app.wizard.inspection.complete
        return ledger is not None and ledger.source_rows == rows

    await until(pilot, there, f"for the ledger of {rows} rows")
