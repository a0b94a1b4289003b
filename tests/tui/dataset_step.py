"""The dataset step of the wizard with a tiny model and rows of a file."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.pilot import Pilot

from finetui.core.recipe import Recipe
from finetui.tui.app import FinetuiApp
from tests.tui.driving import at_step, until, wizard

if TYPE_CHECKING:
    pass


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
