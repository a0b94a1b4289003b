"""The chart draws what the numbers say: spikes stay, bad values are counted, axes are true, at any size."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult

from finetui.core.runs.curves import Curves
from finetui.core.runs.series import LIMIT, Pyramid, Smoothed, Thinned
from finetui.tui import theme
from finetui.tui.widgets.chart import Line, LineChart, Look
from finetui.tui.widgets.plot import Series, View, render_chart
from finetui.tui.widgets.scale import nice_step, number, robust_range, ticks

SIZES = st.tuples(st.integers(20, 200), st.integers(5, 60))
VALUES = st.floats(allow_nan=True, allow_infinity=True, width=64)
HOSTILE = "[red]x[/red] [/ [@click=app.quit]q[/] \x1b[31m\u202eevil"


@pytest.fixture(autouse=True)
def unicode_alphabet():
    theme.choose_glyphs(False)
    yield
    theme.choose_glyphs(False)


def plain(series: list[Series], width: int = 80, height: int = 20, **more) -> list[str]:
    return [line.plain for line in render_chart(series, width, height, **more)]


def braille(lines: list[str]) -> list[tuple[int, int]]:
    """Cells with dots under the legend, as (row, column)."""
    return [
        (row, column)
        for row, line in enumerate(lines)
        if row
        for column, mark in enumerate(line)
        if 0x2800 < ord(mark) <= 0x28FF
    ]


@settings(deadline=None, max_examples=60)
@given(
    ys=st.lists(VALUES, max_size=80),
    size=SIZES,
    ascii=st.booleans(),
    style=st.sampled_from(["raw", "smoothed", "points"]),
)
def test_any_values_fill_exactly_the_size(ys, size, ascii, style):
    width, height = size
    theme.choose_glyphs(ascii)
    lines = plain([Series("train", list(range(len(ys))), ys, style=style)], width, height, title="Loss")
    theme.choose_glyphs(False)
    assert len(lines) == height
    assert {cell_len(line) for line in lines} == {width}
    if ascii:
        assert all(line.isascii() for line in lines)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(30, 5000),
    at=st.floats(0.05, 0.95),
    size=st.tuples(st.integers(40, 160), st.integers(10, 40)),
    height=st.sampled_from([1.5, 3.0, 50.0, 1e6]),
)
def test_one_spike_among_many_points_is_seen(count, at, size, height):
    place = int(count * at)
    ys = [1.0 + 0.001 * (index % 7) for index in range(count)]
    ys[place] = height
    lines = plain([Series("train", list(range(count)), ys)], *size)
    rows = [row for row, _ in braille(lines)] + [row for row, line in enumerate(lines[1:], 1) if "▴" in line]
    flat = max(rows)
    if "above" in lines[0]:
        assert any("▴" in line for line in lines[1:])
        assert "1 above" in lines[0]
    else:
        assert min(rows) < flat - 1, "the spike rises over the flat line"


def test_values_that_are_not_finite_are_counted_and_skipped():
    ys = [1.0, math.nan, 2.0, math.inf, -math.inf, 1.5]
    lines = plain([Series("train", list(range(6)), ys)])
    assert "3 NaN" in lines[0]
    assert "1.50" in lines[0]
    assert braille(lines)


def test_nothing_but_nan_says_so_and_draws_nothing():
    lines = plain([Series("train", [1, 2], [math.nan, math.nan])], title="Loss")
    assert "2 NaN" in lines[0] and "—" in lines[0]
    assert not braille(lines)


def test_empty_says_what_it_waits_for():
    lines = plain([Series("train", [], [])], title="Loss", empty="waiting for the first step")
    assert any("waiting for the first step" in line for line in lines)


def test_one_point_is_one_mark():
    lines = plain([Series("train", [3], [0.7])], x_max=10)
    assert len(braille(lines)) == 1
    assert lines[-1].split() == ["0", "step", "10"]


@pytest.mark.parametrize("value", [0.0, 0.69, -3.0, 1e-9, 1e12])
def test_a_constant_is_a_level_line_inside_its_range(value):
    lines = plain([Series("train", list(range(50)), [value] * 50)])
    rows = {row for row, _ in braille(lines)}
    assert len(rows) == 1
    assert 1 < rows.pop() < 17


def test_first_values_that_dwarf_the_rest_are_clipped_and_counted():
    ys = [900.0, 400.0, 120.0] + [1.0 + 0.01 * (index % 10) for index in range(200)]
    lines = plain([Series("train", list(range(len(ys))), ys)])
    assert "3 above" in lines[0]
    assert "▴" in lines[1]
    found = robust_range(ys)
    assert found.high < 2 and found.above == 3


def test_an_ordinary_loss_curve_is_not_clipped():
    ys = [0.4 + 2.6 * math.exp(-index / 40) for index in range(367)]
    assert robust_range(ys).above == 0
    assert "above" not in plain([Series("train", list(range(367)), ys)])[0]


@settings(deadline=None)
@given(low=st.floats(-1e9, 1e9), span=st.floats(1e-3, 1e9), most=st.integers(1, 8))
def test_ticks_are_round_rising_and_few(low, span, most):
    found = ticks(low, low + span, most)
    assert len(found) <= most + 1
    assert found == sorted(set(found))
    step = nice_step(span, most)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 5, 10)) < 1e-6


@settings(deadline=None, max_examples=80)
@given(
    low=st.floats(-1e5, 1e5),
    span=st.floats(1e-4, 1e5),
    size=st.tuples(st.integers(40, 120), st.integers(8, 50)),
)
def test_y_labels_fall_from_top_to_bottom_and_dots_lie_between_their_labels(low, span, size):
    ys = [low, low + span]
    lines = plain([Series("train", [0, 100], ys)], *size)
    labels = [(row, line.split("┤")[0].strip()) for row, line in enumerate(lines) if "┤" in line]
    values = [_parsed(text) for _, text in labels]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values), labels


def _parsed(text: str) -> float:
    return float(text[:-1]) * 1000 if text.endswith("K") else float(text)


def test_a_point_on_a_tick_lies_in_the_row_of_its_label():
    lines = plain([Series("train", [0, 50, 100], [0.0, 1.0, 3.0], style="points")], 60, 17)
    for row, line in enumerate(lines):
        if line.strip().startswith("1 ┤"):
            assert any(0x2800 < ord(mark) <= 0x28FF for mark in line[25:35]), (row, lines)
            break
    else:
        raise AssertionError(lines)


def test_legend_has_last_values_and_gives_up_the_least_important_first():
    series = [
        Series("train", [1, 2], [0.5, 0.38], style="raw"),
        Series("evaluation", [1, 2], [0.5, 0.41], "$success", style="points"),
    ]
    wide = plain(series, 80, 12, title="Loss", notes=[("rate", "6e-5")])[0]
    assert all(part in wide for part in ("Loss", "train ━ 0.380", "evaluation ⠶ 0.410", "rate 6e-5"))
    narrow = plain(series, 40, 12, title="Loss", notes=[("rate", "6e-5")])[0]
    assert "rate" not in narrow and "train ━ 0.380" in narrow
    assert "train" in plain(series, 20, 5, title="Loss")[0]


def test_numbers_are_short_and_tell_neighbours_apart():
    assert [number(value) for value in (0, 0.38123, 2.5, 6e-5, 123.4)] == [
        "0",
        "0.381",
        "2.50",
        "6e-5",
        "123",
    ]
    assert [number(value, 1e-5) for value in (1e-5, 2e-5)] == ["1e-5", "2e-5"]
    assert number(0.5, 0.5) == "0.5"
    assert number(12_000, 2_000) == "12K"


def test_names_are_literal_text():
    lines = plain([Series(HOSTILE, [1, 2], [1, 2])], 120, 10, title="Loss")
    assert "[red]x[/red] [/ [@click=app.quit]q[/]" in lines[0]
    assert "\x1b" not in "".join(lines) and "\u202e" not in "".join(lines)


@settings(deadline=None, max_examples=30)
@given(data=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6000))
def test_thinning_keeps_every_extreme_and_bounds_memory(data):
    thinned = Thinned()
    thinned.extend(enumerate(data))
    kept = thinned.points()
    ys = [y for _, y in kept]
    assert (min(ys), max(ys)) == (min(data), max(data))
    assert kept[0] == (0, data[0]) and kept[-1] == (len(data) - 1, data[-1])
    assert len(kept) <= 4 * LIMIT
    assert kept == sorted(kept, key=lambda point: point[0])
    assert thinned.total == len(data)


def test_thinning_keeps_local_spikes_of_a_long_run():
    count = 120_000
    spikes = {3_000: 5.0, 60_000: 7.0, 119_000: -4.0}
    thinned = Thinned()
    thinned.extend((index, spikes.get(index, 1.0)) for index in range(count))
    assert len(thinned.points()) <= 4 * LIMIT
    assert set(spikes.items()) <= set(thinned.points())


def test_the_average_starts_at_the_first_value_and_ignores_nan():
    average = Smoothed(0.9)
    assert average.add(4.0) == pytest.approx(4.0)
    assert math.isnan(average.add(math.nan))
    assert 2.0 < average.add(2.0) < 4.0


class _ChartApp(App[None]):
    def __init__(self) -> None:
        super().__init__()
        theme.register_themes(self)
        self.curves = Curves()
        self.look = Look()

    def compose(self) -> ComposeResult:
        yield LineChart("Loss", self.look)

    def grow(self, count: int, total: int = 0) -> None:
        """Takes more steps in and shows them."""
        curves = self.curves
        for _ in range(count):
            n = curves.newest + 1
            curves.add(1000.0 + 2.0 * n, n, n / 100, 2 / n, 1e-4, 0.5, 700 * n)
        line = Line("train", curves.loss, style="smoothed", average=curves.average)
        self.query_one(LineChart).show([line], curves.places, total)


async def _shown(pilot) -> str:
    await pilot.pause()
    widget = pilot.app.query_one(LineChart)
    return "\n".join(strip.text for strip in (widget.render_line(row) for row in range(widget.size.height)))


async def _until(pilot, text: str) -> str:
    found = ""
    for _ in range(600):
        found = await _shown(pilot)
        if text in found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{text!r} never came\n{found}")


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (20, 5), (200, 60)])
async def test_the_widget_grows_live_and_fits_its_size(size):
    app = _ChartApp()
    async with app.run_test(size=size) as pilot:
        app.query_one(LineChart).show([Line("train", app.curves.loss)], app.curves.places)
        assert "waiting" in await _shown(pilot)
        app.grow(400, total=500)
        text = await _until(pilot, "500")
        assert "train" in text
        assert all(cell_len(line) <= size[0] for line in text.splitlines())


async def test_many_points_share_one_drawing():
    app = _ChartApp()
    async with app.run_test(size=(80, 24)) as pilot:
        chart = app.query_one(LineChart)
        app.grow(1)
        await pilot.pause()
        pending = set()
        for _ in range(500):
            app.grow(1)
            pending.add(chart._pending)
        assert len(pending - {None}) <= 2, "a flood of points asks for one more drawing, not for one each"
        await _until(pilot, "501")


async def test_zoom_pan_cursor_axes_and_the_bent_axis():
    app = _ChartApp()
    async with app.run_test(size=(80, 24)) as pilot:
        chart, look = app.query_one(LineChart), app.look
        app.grow(400)
        assert (await _until(pilot, "400")).splitlines()[-1].split() == ["0", "step", "400"]
        for unit, last in (("tokens", "280"), ("time", "13"), ("epoch", "4")):
            look.turn_axis()
            chart.looked()
            line = (await _until(pilot, unit)).splitlines()[-1]
            assert last in line, line
        look.turn_axis()
        chart.zoom(0.5)
        assert look.window == (200, 400)
        assert (await _until(pilot, "200")).splitlines()[-1].split()[0] == "200"
        chart.pan(-0.25)
        assert look.window == (150, 350)
        look.place(300.0)
        chart.looked()
        text = await _until(pilot, "at step 300")
        assert "6.88e-3" in text, text  # the average there
        assert sum("│" in line[10:] for line in text.splitlines()) > 3  # the line through it
        chart.move(-1)
        assert look.cursor is not None and 290 < look.cursor < 300
        look.whole()
        assert look.window is None and look.cursor is None
        look.turn_log()
        chart.looked()
        text = await _until(pilot, "log")
        labels = [line.split("┤")[0].strip() for line in text.splitlines() if "┤" in line]
        values = [float(label) for label in labels]
        assert values == sorted(values, reverse=True) and values[0] / values[-1] >= 100


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(100, 30_000),
    at=st.floats(0.01, 0.99),
    up=st.booleans(),
    log=st.booleans(),
    axis=st.sampled_from(["step", "tokens", "time", "epoch"]),
    windowed=st.booleans(),
)
def test_a_spike_is_never_drawn_away(count, at, up, log, axis, windowed):
    place = max(2, int(count * at))
    curves = Curves()
    for n in range(1, count + 1):
        loss = 1.0 + 0.001 * (n % 7) if n != place else 1.35 if up else 0.7
        curves.add(5.0 * n, n, n / 1000, loss, 1e-4, 0.5, 700 * n)
    look = Look(
        axis=axis, log=log, window=(place * 0.5, min(count, place * 1.4)) if windowed and place > 20 else None
    )
    chart = LineChart("Loss", look)
    chart.show([Line("train", curves.loss)], curves.places)
    lines = [line.plain for line in chart._draw(80, 20)]
    rows = [row for row, _ in braille(lines)]
    arrows = [row for row, line in enumerate(lines[1:], 1) if "▴" in line or "▾" in line]
    level = max(set(rows), key=rows.count)
    assert arrows or (min(rows) < level - 1 if up else max(rows) > level + 1), "\n".join(lines)


def test_a_pyramid_of_a_million_points_is_small_and_takes_back_what_is_done_again():
    line = Pyramid()
    for n in range(200_000):
        line.add(n, 9.0 if n == 77_777 else 1.0)
    assert len(line.points()) < 30_000 and (77_777, 9.0) in line.view(0, 200_000, 100)
    assert len(line.view(0, 200_000, 100)) <= 4 * 100 * 2 + 4
    line.cut(199_000)
    assert line.last_x == 198_999
    line.cut(50_000)
    assert line.last_x is not None and line.last_x < 50_000 and (77_777, 9.0) not in line.points()


def test_the_best_point_is_marked():
    view = View(best=(50, 0.5))
    lines = plain([Series("evaluation", [0, 50, 100], [1.0, 0.5, 0.8], style="points")], 60, 15, view=view)
    assert any("◆" in line for line in lines[8:])
