"""Where the rows come from: the parts of a hub dataset, and several sources mixed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from textual.pilot import Pilot

from finetui.tui.app import FinetuiApp
from finetui.tui.modals.mix import MixModal
from tests.tui.driving import SIZES, fill, home, press, seen, type_over, until
from tests.worker.conftest import tiny_model
from tests.worker.test_peek import rows, server

if TYPE_CHECKING:
    from tests.hub_server import Hub
from tests.tui.dataset_step import counted, dataset_step, talk, write

__all__ = ["home", "server", "tiny_model"]


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
