"""Header, footer and rail: the words are there at every size."""

from __future__ import annotations

from typing import ClassVar

import pytest
from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widget import Widget
from textual.widgets import Input

from finetui.tui.widgets.footer import Footer
from finetui.tui.widgets.header import Header, MachineLine
from tests.tui.driving import SIZES
from tests.tui.widget_app import WidgetApp, lines, step_rail, unicode_alphabet, where

__all__ = ["unicode_alphabet"]


# header


@pytest.mark.parametrize(
    ("width", "must"),
    [
        (120, ["step 3 of 5", "RTX 4090", "3.1 of 24 GB", "━"]),
        (80, ["step 3 of 5", "3.1 of 24 GB"]),
        (60, ["3.1 of 24 GB"]),
        (40, []),
        (20, []),
    ],
)
async def test_header_keeps_name_and_what_fits(width, must):
    header = Header()
    app = WidgetApp(header)
    async with app.run_test(size=(width, 5)) as pilot:
        header.show_place("support-tickets", "step 3 of 5")
        header.show_machine(MachineLine("RTX 4090", 3.1, 24.0))
        await pilot.pause()
        (text,) = lines(header)
        assert cell_len(text) == width - 2 and text.startswith("finetui")
        assert all(part in text for part in must), text
        if width >= 40:
            assert "support-tickets" in text


async def test_header_cuts_a_long_name_in_its_middle_before_losing_the_status():
    header = Header()
    app = WidgetApp(header)
    async with app.run_test(size=(60, 5)) as pilot:
        header.show_place("a-very-long-run-name-that-somebody-chose-in-2026-11")
        header.show_status("training", "busy")
        header.show_figures("step 367/516 · epoch 1.42 · 4 min 10 s left")
        await pilot.pause()
        (text,) = lines(header)
        assert "a-very" in text and "26-11" in text and "…" in text
        assert "● training" in text and "4 min 10 s left" in text


async def test_header_shows_a_machine_without_a_gpu_and_without_a_reading():
    header = Header()
    app = WidgetApp(header)
    async with app.run_test(size=(100, 5)) as pilot:
        header.show_machine(MachineLine("2 cores", 3.1, 24.0, "GB RAM"))
        await pilot.pause()
        assert "2 cores" in lines(header)[0] and "3.1 of 24 GB RAM" in lines(header)[0]
        header.show_machine(MachineLine("RTX 4090", None, 24.0))
        await pilot.pause()
        assert "— of 24 GB" in lines(header)[0]


# footer


@pytest.mark.parametrize("size", SIZES)
async def test_footer_shows_six_actions_by_importance(size):
    footer = Footer(first=("next", "zoom"))
    app = WidgetApp(footer)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        (text,) = lines(footer)
        assert "Next" in text and "Zoom" in text and "Explain" in text and "Quit" in text
        assert text.index("Next") < text.index("Zoom") < text.index("Explain") < text.index("Quit")
        assert "Evaluate" not in text, "the seventh and eighth are in the palette"


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 200])
async def test_footer_is_one_line_with_help_and_quit_at_any_width(width):
    footer = Footer(first=("next",))
    app = WidgetApp(footer)
    async with app.run_test(size=(width, 6)) as pilot:
        await pilot.pause()
        rows = lines(footer)
        assert len(rows) == 1 and cell_len(rows[0]) == width - 2
        words = rows[0].split()
        assert "?" in words and "q" in words


async def test_a_click_in_the_footer_runs_the_action_even_while_typing():
    footer, field = Footer(first=("next",)), Input()
    app = WidgetApp(field, footer)
    async with app.run_test(size=(80, 10)) as pilot:
        field.focus()
        await pilot.pause()
        await pilot.click(footer, offset=where(footer, "Next"))
        await pilot.click(footer, offset=where(footer, "Quit"))
        await pilot.click(footer, offset=(where(footer, "? Explain")[0] - 2, 0))
        await pilot.pause()
        assert app.done == ["next", "quit"]
        assert field.value == ""


async def test_while_typing_the_footer_names_a_key_that_works():
    class Typing(WidgetApp):
        BINDINGS: ClassVar[list[BindingType]] = [Binding("x,ctrl+t", "app.did('x')", "Explode", id="explode")]

    footer, field = Footer(first=("explode",)), Input()
    app = Typing(field, footer)
    async with app.run_test(size=(80, 10)) as pilot:
        field.focus()
        await pilot.pause()
        assert "^t Explode" in lines(footer)[0]
        app.set_focus(None)
        await pilot.pause()
        assert lines(footer)[0].startswith("x Explode")


async def test_footer_follows_the_focused_widget():
    class Panel(Widget, can_focus=True):
        BINDINGS: ClassVar[list[BindingType]] = [Binding("x", "app.did('x')", "Explode", id="explode")]

    panel, field, footer = Panel(), Input(), Footer(first=("explode",))
    app = WidgetApp(panel, field, footer)
    async with app.run_test(size=(80, 10)) as pilot:
        field.focus()
        await pilot.pause()
        assert "Explode" not in lines(footer)[0]
        panel.focus()
        await pilot.pause()
        assert lines(footer)[0].strip().startswith("x Explode")


async def test_rail_is_a_column_with_summaries_where_there_is_room():
    rail = step_rail()
    app = WidgetApp(Container(rail, classes="wizard-body"))
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.pause()
        text = [line.strip() for line in lines(rail)]
        assert text[0:2] == ["✓ Model", "Llama-3.2-3B-Instruct"]
        assert "! Dataset" in text and "▸ LoRA" in text and "○ Export" in text


async def test_rail_is_one_line_where_narrow():
    for width in (80, 60, 40):
        rail = step_rail()
        app = WidgetApp(Container(rail, classes="wizard-body"))
        async with app.run_test(size=(width, 24)) as pilot:
            await pilot.pause()
            (text,) = lines(rail)
            assert "▸ LoRA" in text and "✓" in text and text.count("○") == 2
            assert ("Export" in text) == (width >= 60)


@pytest.mark.parametrize("size", SIZES)
async def test_rail_chooses_by_keys_and_by_mouse(size):
    rail = step_rail()
    app = WidgetApp(Container(rail, classes="wizard-body"))
    async with app.run_test(size=size) as pilot:
        rail.focus()
        await pilot.press("down", "enter", "up", "up", "enter")
        await pilot.click(rail, offset=where(rail, "Export"))
        await pilot.pause()
        assert app.chosen == ["training", "dataset", "export"]
        assert rail.current == "lora", "the screen decides, not the rail"


def test_rail_knows_its_steps():
    with pytest.raises(ValueError, match="no step"):
        step_rail().set_summary("nonsense", "x")
