"""Bars, gauges and sparklines: as wide as asked, and honest about what is missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from finetui.tui import theme
from finetui.tui.widgets.bars import Fit, Gauge, History, Load, ProgressLine, bar, sparkline
from tests.tui.driving import SIZES
from tests.tui.widget_app import WidgetApp, lines, unicode_alphabet

__all__ = ["unicode_alphabet"]


@given(
    run=st.one_of(st.none(), st.floats(0, 1e3)),
    others=st.floats(0, 1e3),
    total=st.one_of(st.none(), st.floats(0, 1e3)),
    predicted=st.one_of(st.none(), st.floats(0, 1e3)),
    cells=st.integers(0, 60),
    ascii=st.booleans(),
)
def test_a_bar_is_as_wide_as_asked(run, others, total, predicted, cells, ascii):
    marks = theme.ASCII if ascii else theme.UNICODE
    text = "".join(text for text, _ in bar(Load(run, total, others, predicted), cells, "$accent", marks))
    assert cell_len(text) == cells
    assert not ascii or text.isascii()


def test_the_parts_of_a_bar_differ_without_colour():
    text = "".join(text for text, _ in bar(Load(6, 24, 6, 18), 24, "$accent", theme.UNICODE))
    assert text == "━━━━━━╍╍╍╍╍╍──────┃─────"
    text = "".join(text for text, _ in bar(Load(6, 24, 6, 18), 24, "$accent", theme.ASCII))
    assert text == "######======......|....."


@pytest.mark.parametrize("size", SIZES)
async def test_gauge_says_label_verdict_value_and_caption(size):
    gauge = Gauge("Memory")
    app = WidgetApp(gauge)
    async with app.run_test(size=size) as pilot:
        verdicts: tuple[tuple[Fit, str], ...] = (
            ("ok", "✓ fits 7.6 of"),
            ("tight", "! tight 7.6 of"),
            ("over", "✗ too much 7.6 of"),
        )
        for fit, words in verdicts:
            gauge.show("7.6 of 24.0 GB", Load(7.6, 24), fit=fit, caption="weights 2.2 · activations 4.3")
            await pilot.pause()
            first, middle, last = lines(gauge)
            assert first.startswith("Memory") and words in first and first.endswith("24.0 GB")
            assert "━" in middle and "─" in middle
            assert last.startswith("weights 2.2 · activations 4.3")


async def test_a_missing_reading_is_a_dash_and_an_empty_bar():
    gauge, line, history = Gauge("GPU"), ProgressLine(), History()
    app = WidgetApp(gauge, line, history)
    async with app.run_test(size=(40, 10)) as pilot:
        gauge.show(None, Load(None, None))
        history.show([None, None])
        await pilot.pause()
        assert lines(gauge)[0].rstrip().endswith("—") and "━" not in lines(gauge)[1]
        assert "—" in lines(line)[0] and "0" not in lines(line)[0]
        assert lines(history)[0].startswith("—")


async def test_progress_is_100_only_when_done():
    line = ProgressLine()
    app = WidgetApp(line)
    async with app.run_test(size=(60, 5)) as pilot:
        for done, text in ((0.0, " 0 %"), (0.714, "71 %"), (0.9999, "99 %"), (1.0, "100 %"), (7.0, "100 %")):
            line.show(done, "training")
            await pilot.pause()
            assert lines(line)[0].startswith("training") and lines(line)[0].rstrip().endswith(text)


def test_a_sparkline_has_gaps_and_the_newest_at_the_right():
    assert sparkline([0, None, 100], 5, 0, 100, 1, theme.UNICODE) == ["  ▁ █"]
    assert sparkline([100, 50, 0], 3, 0, 100, 2, theme.UNICODE) == ["█  ", "██▁"]
    assert sparkline(list(range(100)), 3, 0, 99, 1, theme.UNICODE) == ["███"]
