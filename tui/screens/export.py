"""The export step: in which form the result leaves."""

from __future__ import annotations

from .step import StepScreen


class ExportScreen(StepScreen):
    """The formats written when training ends."""

    step = "export"
    tagline = "the form in which the result leaves"
    basic = ("export.formats",)

    def proceed(self) -> None:
        self.finetui.go("training")
