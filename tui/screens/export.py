"""The export step: in which form the result leaves."""

from __future__ import annotations

from typing import cast

from textual import on

from ...core.export import estimated_bytes
from ...core.recipe import ExportFormat
from ...core.text import bytes_words
from ..widgets.controls import ChecklistControl
from ..widgets.dashboard.formats import about
from .step import StepScreen


class ExportScreen(StepScreen):
    """The formats written when training ends."""

    step = "export"
    tagline = "what you leave with"
    more_keys = ()
    basic = ("export.formats",)

    def fact(self, path: str) -> str:
        """The format under the cursor: what it is for, what it costs, and how large it would be here."""
        if path != "export.formats":
            return ""
        at = self.form.row(path).query_one(ChecklistControl).at
        format = cast(ExportFormat, at) if at else None
        facts, recipe = self.wizard.model_facts, self.wizard.recipe()
        size = estimated_bytes(format, facts, recipe.lora) if format and facts and recipe else None
        words = about(format, bool(recipe and recipe.export.importance))
        return words + (f" About {bytes_words(size)} here." if size else "")

    @on(ChecklistControl.Pointed)
    def _pointed(self, event: ChecklistControl.Pointed) -> None:
        event.stop()
        self._paint_explanation()

    def proceed(self) -> None:
        self.finetui.go("training")
