"""The screens, imported when they are first shown: the first paint waits for none but Home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from textual.screen import Screen

    from .run import RunScreen


def screen_of(step: str) -> Screen[Any]:
    """A new screen for `step` (a name in core.recipe.STEPS)."""
    if step == "model":
        from .model import ModelScreen

        return ModelScreen()
    if step == "dataset":
        from .dataset import DatasetScreen

        return DatasetScreen()
    if step == "lora":
        from .lora import LoraScreen

        return LoraScreen()
    if step == "training":
        from .training import TrainingScreen

        return TrainingScreen()
    from .export import ExportScreen

    return ExportScreen()


def run_screen(folder: Path) -> RunScreen:
    """A new screen that follows the run in `folder`."""
    from ...core.runs.store import RunFolder
    from .run import RunScreen

    return RunScreen(RunFolder(folder))
