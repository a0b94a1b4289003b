"""An application around the widgets under test, and what they show."""

from __future__ import annotations

from typing import ClassVar

import pytest
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget

from finetui.tui import theme
from finetui.tui.widgets.rail import StepRail

STEPS = [
    ("model", "Model"),
    ("dataset", "Dataset"),
    ("lora", "LoRA"),
    ("training", "Training"),
    ("export", "Export"),
]
HOSTILE = "[red]x[/] [/ [@click=app.quit]q[/]\x1b]52;c;aGk=\x07\x1b[31m\u202e"


@pytest.fixture(autouse=True)
def unicode_alphabet():
    theme.choose_glyphs(False)
    yield
    theme.choose_glyphs(False)


class WidgetApp(App[None]):
    HORIZONTAL_BREAKPOINTS = theme.HORIZONTAL_BREAKPOINTS
    CSS_PATH = str(theme.STYLES)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n", "did('next')", "Next", id="next"),
        Binding("escape", "did('back')", "Back", id="back"),
        Binding("f", "did('fit')", "Fit to this GPU", id="fit"),
        Binding("e", "did('recipe')", "Recipe", id="recipe"),
        Binding("v", "did('evaluate')", "Evaluate now", id="evaluate"),
        Binding("z", "did('zoom')", "Zoom", id="zoom"),
        Binding("question_mark", "did('help')", "Explain", id="app.help", key_display="?"),
        Binding("q", "did('quit')", "Quit", id="app.quit"),
    ]

    def __init__(self, *widgets: Widget, name: str = theme.DARK.name) -> None:
        super().__init__()
        theme.register_themes(self)
        self.theme = name
        self._given = widgets
        self.done: list[str] = []
        self.chosen: list[str] = []

    def compose(self) -> ComposeResult:
        yield from self._given

    def action_did(self, what: str) -> None:
        self.done.append(what)

    def on_step_rail_chosen(self, message: StepRail.Chosen) -> None:
        self.chosen.append(message.step)


def lines(widget: Widget) -> list[str]:
    """What `widget` shows, a string a row."""
    return [widget.render_line(row).text for row in range(widget.size.height)]


def where(widget: Widget, text: str) -> tuple[int, int]:
    """The offset of `text` within `widget`, its padding counted."""
    row = next(index for index, line in enumerate(lines(widget)) if text in line)
    return lines(widget)[row].index(text) + widget.gutter.left, row + widget.gutter.top


# rail


def step_rail() -> StepRail:
    rail = StepRail(STEPS, current="lora")
    rail.set_summary("model", "Llama-3.2-3B-Instruct")
    rail.set_state("model", "done")
    rail.set_state("dataset", "trouble")
    return rail
