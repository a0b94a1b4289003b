"""The export step: in which form the result leaves."""

from __future__ import annotations

from typing import cast

from textual import on

from ...core import export_budget
from ...core.recipe import ExportFormat
from ...core.text import bytes_words
from ..widgets.controls import ChecklistControl
from ..widgets.dashboard.formats import about, on_gpu
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
        words = about(format, bool(recipe and recipe.export.importance))
        if format is None or facts is None or recipe is None:
            return words
        [need] = export_budget.of_facts(recipe, facts, (format,)).needs
        if need.disk_bytes:
            words += f" About {bytes_words(need.disk_bytes)} here."
        return words + on_gpu(need, self.finetui.looking.has_gpu)

    @on(ChecklistControl.Pointed)
    def _pointed(self, event: ChecklistControl.Pointed) -> None:
        event.stop()
        self._paint_explanation()

    def proceed(self) -> None:
        self.finetui.go("training")
