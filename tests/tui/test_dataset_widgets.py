"""What the dataset's screens draw: no character is lost, none reaches the terminal that must not, marks are right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from finetui.core.dataset_ledger import Span
from finetui.tui.theme import choose_glyphs
from finetui.tui.widgets.dataset import tokens
from finetui.tui.widgets.dataset.lengths import columns, histogram

SPANS = st.lists(
    st.builds(Span, st.text(max_size=60), st.booleans(), st.booleans(), st.booleans()), max_size=12
)


@pytest.fixture(autouse=True)
def unicode_glyphs() -> None:
    choose_glyphs(False)


@given(SPANS, st.integers(2, 90))
def test_every_character_is_laid_out_with_its_fate(spans: list[Span], cells: int) -> None:
    choose_glyphs(False)
    lines = tokens.lay_out(spans, cells)
    shown = [(c, bits) for line in lines for text, bits in line.runs for c in text]
    wanted = [
        (
            c,
            (tokens.CUT if s.cut else tokens.TRAINED if s.trained else 0)
            | (tokens.SPECIAL if s.special else 0),
        )
        for s in spans
        for c in tokens.visible(s.text).replace("\t", "    ").replace("\n", "↵")
    ]
    assert shown == wanted
    for line in lines:
        text = "".join(run for run, _ in line.runs)
        assert cell_len(text) <= max(cells, 2)
        assert all(c.isprintable() or c not in "\x1b\x07\x9b\u202e\ud800" for c in text)


def test_a_line_is_marked_by_what_stands_in_it() -> None:
    learned, read = Span("yes", True, False, False), Span("no ", False, False, False)
    cut = Span("lost", True, False, True)
    marks = [tokens.gutter(line.bits)[0] for line in tokens.lay_out([read, learned], 40)]
    assert marks == ["▌"]
    assert [tokens.gutter(line.bits)[0] for line in tokens.lay_out([read], 40)] == ["│"]
    assert [tokens.gutter(line.bits)[0] for line in tokens.lay_out([cut], 40)] == ["✗"]


def test_a_very_long_row_keeps_both_ends() -> None:
    lines = tokens.lay_out([Span("a" * 1_000_000, False, False, False), Span("END", True, False, False)], 80)
    text = "".join(run for line in lines for run, _ in line.runs)
    assert len(text) < tokens.MOST_CHARACTERS + 200
    assert text.startswith("aaa") and text.endswith("END") and "characters more" in text


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=80), st.integers(1, 4000), st.integers(20, 120))
def test_columns_lose_no_row_and_fit(counts: list[int], maximum: int, cells: int) -> None:
    choose_glyphs(False)
    edges = [10 * n for n in range(len(counts) + 1)]
    chart = histogram(edges, counts, maximum, cells, 4)
    if not any(counts):
        assert chart is None
        return
    assert chart is not None
    rows = chart.plain.splitlines()
    assert len(rows) == 5 and all(cell_len(row) <= cells for row in rows)
    assert f"maximum {maximum:,}" in rows[-1]
    assert all("┃" in row for row in rows[:-1])
    merged_edges, merged = columns(edges, counts, cells - 2)
    assert sum(merged) == sum(counts) and len(merged_edges) == len(merged) + 1
