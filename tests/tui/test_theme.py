"""Every widget in every theme and alphabet; text from outside stays text, and is cut where it must be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.containers import Container
from textual.widgets import Input

from finetui.tui import theme
from finetui.tui.widgets.bars import Gauge, History, Load, ProgressLine
from finetui.tui.widgets.footer import Footer
from finetui.tui.widgets.header import Header, MachineLine
from finetui.tui.widgets.rail import StepRail
from finetui.tui.widgets.text import clip, clip_middle, clip_parts, literal
from tests.screenshots.render import NoBrowser, svg_to_png
from tests.tui.driving import SIZES
from tests.tui.widget_app import HOSTILE, STEPS, WidgetApp, lines, step_rail, unicode_alphabet, where

__all__ = ["unicode_alphabet"]


async def test_hostile_text_is_shown_as_text():
    gauge, header, rail = Gauge(HOSTILE), Header(), StepRail(STEPS, "model")
    app = WidgetApp(header, Container(rail, gauge, classes="wizard-body"), Footer())
    async with app.run_test(size=(120, 36)) as pilot:
        gauge.show(HOSTILE, Load(1, 2), caption=HOSTILE)
        header.show_place(HOSTILE, HOSTILE)
        header.show_status(HOSTILE, "bad")
        rail.set_summary("model", HOSTILE)
        await pilot.pause()
        shown = "\n".join(lines(gauge) + lines(header) + lines(rail))
        assert shown.count("[red]x[/] [/ [@click=app") >= 5
        assert "\x1b" not in shown and "\u202e" not in shown and "\x07" not in shown
        for widget in (gauge, header, rail):
            left, top = where(widget, "q[/]" if widget is not rail else "[red]x")
            for column in range(left - 2, left + 3):
                await pilot.click(widget, offset=(column, top))
        assert app.is_running


@pytest.mark.parametrize("name", [one.name for one in theme.THEMES])
@pytest.mark.parametrize("size", SIZES)
async def test_every_theme_draws_everything(name, size):
    header, gauge = Header(), Gauge("Memory")
    app = WidgetApp(
        header, gauge, Input(), Container(step_rail(), classes="wizard-body"), Footer(), name=name
    )
    async with app.run_test(size=size) as pilot:
        header.show_status("training", "busy")
        gauge.show("7.6 of 24.0 GB", Load(7.6, 24, 3, 9), fit="tight")
        await pilot.pause()
        picture = app.export_screenshot()
        assert "training" in picture and "tight" in picture
        assert set(app.available_themes) == {one.name for one in theme.THEMES}


async def test_no_color_keeps_every_state_as_a_glyph_or_word(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    header, gauge, rail = Header(), Gauge("Memory"), step_rail()
    app = WidgetApp(header, gauge, Container(rail, classes="wizard-body"))
    async with app.run_test(size=(120, 36)) as pilot:
        assert app.no_color
        header.show_status("crashed", "bad")
        gauge.show("27.6 of 24.0 GB", Load(27.6, 24), fit="over")
        await pilot.pause()
        assert "✗ crashed" in lines(header)[0]
        assert "✗ too much" in lines(gauge)[0]
        assert {line.strip() for line in lines(rail)} >= {"✓ Model", "! Dataset", "▸ LoRA", "○ Training"}


async def test_ascii_alphabet_sends_ascii_only():
    theme.choose_glyphs(True)
    header, gauge, line, history, rail, footer = (
        Header(),
        Gauge("Memory"),
        ProgressLine(),
        History(),
        step_rail(),
        Footer(),
    )
    app = WidgetApp(header, line, history, gauge, Container(rail, classes="wizard-body"), footer)
    async with app.run_test(size=(60, 20)) as pilot:
        header.show_place("support-tickets-with-a-long-name-that-is-cut", "step 3 of 5")
        header.show_machine(MachineLine("RTX 4090", 3.1, 24.0))
        gauge.show(
            "13–16 min",
            Load(1, 3, 1, 2),
            fit="over",
            caption="2 × your data · 64 °C → … and so on and on and on and on",
        )
        history.show([1, 50, 100])
        line.show(0.5)
        await pilot.pause()
        shown = [text for widget in (header, gauge, line, history, rail, footer) for text in lines(widget)]
        assert all(text.isascii() for text in shown), [text for text in shown if not text.isascii()]


@pytest.mark.parametrize(
    ("environment", "ascii"),
    [
        ({}, False),
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LANG": "de_DE.utf8"}, False),
        ({"LANG": "de_DE.ISO-8859-1"}, True),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, True),
        ({"LC_ALL": "", "LANG": "C.UTF-8"}, False),
        ({"TERM": "dumb", "LANG": "C.UTF-8"}, True),
    ],
)
def test_the_alphabet_follows_the_locale(environment, ascii):
    assert theme.prefers_ascii(environment) is ascii


def _contrast(one: str, two: str) -> float:
    """WCAG 2.1 contrast ratio of two #rrggbb colours."""

    def luminance(color: str) -> float:
        channels = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [
            value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("one", [theme.DARK, theme.LIGHT])
def test_text_can_be_read_on_every_ground(one):
    for ground in (one.background, one.surface):
        for color in (
            one.foreground,
            one.accent,
            one.success,
            one.warning,
            one.error,
            one.variables["text-muted"],
        ):
            assert _contrast(color, ground) >= 4.5, (color, ground)
        assert _contrast(one.variables["text-disabled"], ground) >= 3


@given(text=st.text(max_size=60), cells=st.integers(0, 40))
def test_clipped_text_fits(text, cells):
    line = literal(text)
    for cut in (clip, clip_middle, clip_parts):
        assert cell_len(cut(line, cells)) <= cells


def test_the_middle_goes_and_whole_parts_go():
    assert clip_middle("/home/me/models/Llama-3.2-3B", 15) == "/home/m…-3.2-3B"
    assert clip_parts("others 3.1 · predicted 7.6 · peak 7.5", 32) == "others 3.1 · predicted 7.6 …"


def test_a_picture_without_a_browser_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoBrowser, match="no Chromium on PATH"):
        svg_to_png('<svg viewBox="0 0 10 10"></svg>', tmp_path / "x.png")
