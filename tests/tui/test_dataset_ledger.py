"""The dataset's ledger as the wizard shows it: what it counts, what mends it, and the gate."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from finetui.core.dataset_ledger import Action, Finding
from finetui.tui.modals.card import ErrorCard
from finetui.tui.screens.ledger import LedgerScreen
from finetui.tui.widgets.dataset.findings import FindingList
from tests.tui.driving import SIZES, at_step, fill, home, press, seen, until
from tests.worker.conftest import tiny_model

if TYPE_CHECKING:
    pass
from tests.tui.dataset_step import counted, dataset_step, inspectors, talk, write

__all__ = ["home", "tiny_model"]


@pytest.mark.parametrize("size", SIZES, ids=fill)
async def test_the_ledger_accounts_for_every_row_and_its_actions_change_the_recipe(
    size: tuple[int, int], home: Path, tiny_model: Path
) -> None:
    lines = [talk(f"question {n}", f"answer {n} " + "word " * 20) for n in range(30)]
    lines[3], lines[11] = "{broken", talk("what?", "")
    async with dataset_step(size, tiny_model, write(home, lines), max_length=64) as (app, pilot):
        await counted(app, pilot)
        await until(pilot, lambda: "F4" in seen(app), "for the way to it")
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
        await until(pilot, lambda: f"Changed. Sequence length: 64 → {wanted}" in seen(app), "for the word")
        await until(
            pilot,
            lambda: (now := app.wizard.inspection.complete) is not None and now.max_length == wanted,
            "for a ledger of the new length",
        )
        again = app.wizard.inspection.complete
        assert again is not None and again.cut_rows == 0
        await until(pilot, lambda: "28 kept" in seen(app), "for its figures")
        first = seen(app)
        await press(pilot, "pagedown")
        await until(pilot, lambda: "empty answer (row 12)" in " ".join(f"{first} {seen(app)}".split()))


async def test_where_nothing_is_to_be_mended_nothing_is_offered(home: Path, tiny_model: Path) -> None:
    lines = [talk(f"question {n}", f"answer {n}") for n in range(30)]
    async with dataset_step((120, 36), tiny_model, write(home, lines)) as (app, pilot):
        await counted(app, pilot)
        await press(pilot, "f4")
        await until(pilot, lambda: isinstance(app.screen, LedgerScreen))
        found = app.screen.query_one(FindingList)
        assert app.focused is found
        ledger = app.wizard.inspection.complete
        assert ledger is not None
        finding = Finding("made", "warning", 1, "One.", "So.", actions=(Action("look", "Look at them"),))
        for shown, offered in (((), False), ((finding,), True), ((replace(finding, actions=()),), False)):
            found.show(shown)
            await pilot.pause()
            assert ("Do it" in seen(app)) == offered, shown


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


async def test_the_reading_can_be_stopped_and_taken_up_again(home: Path, tiny_model: Path) -> None:
    path = write(home, [talk(f"question {n}", f"answer {n} " + "word " * 60) for n in range(60_000)])
    earlier = inspectors()
    async with dataset_step((80, 24), tiny_model, path) as (app, pilot):
        await until(pilot, lambda: app.wizard.inspection.state == "reading", "for the first rows")
        (reader,) = inspectors() - earlier
        os.kill(reader, signal.SIGSTOP)  # it reads on only once it is to stop, however fast it is
        await press(pilot, "f4")
        await until(pilot, lambda: isinstance(app.screen, LedgerScreen))
        await press(pilot, "x")
        os.kill(reader, signal.SIGCONT)
        await until(pilot, lambda: app.wizard.inspection.state == "cancelled", "for the end of the reading")
        await until(pilot, lambda: "stopped" in seen(app), "for the word")
        await press(pilot, "r")
        await until(pilot, lambda: app.wizard.inspection.state in ("waiting", "reading", "done"))
