"""Bars, header, footer and rail: the words are there at every size, and text from outside stays text."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widget import Widget
from textual.widgets import Input

from finetui.tui import theme
from finetui.tui.widgets.bars import Fit, Gauge, History, Load, ProgressLine, bar, sparkline
from finetui.tui.widgets.footer import Footer
from finetui.tui.widgets.header import Header, MachineLine
from finetui.tui.widgets.rail import StepRail
from finetui.tui.widgets.text import clip, clip_middle, clip_parts, literal
from tests.screenshots.render import NoBrowser, svg_to_png

STEPS = [
    ("model", "Model"),
    ("dataset", "Dataset"),
    ("lora", "LoRA"),
    ("training", "Training"),
    ("export", "Export"),
]
HOSTILE = "[red]x[/] [/ [@click=app.quit]q[/]\x1b]52;c;aGk=\x07\x1b[31m\u202e"
SIZES = [(80, 24), (120, 36)]


@pytest.fixture(autouse=True)
def unicode_alphabet():
    theme.choose_glyphs(False)
    yield
    theme.choose_glyphs(False)


class _App(App[None]):
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


# bars


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
    app = _App(gauge)
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
    app = _App(gauge, line, history)
    async with app.run_test(size=(40, 10)) as pilot:
        gauge.show(None, Load(None, None))
        history.show([None, None])
        await pilot.pause()
        assert lines(gauge)[0].rstrip().endswith("—") and "━" not in lines(gauge)[1]
        assert "—" in lines(line)[0] and "0" not in lines(line)[0]
        assert lines(history)[0].startswith("—")


async def test_progress_is_100_only_when_done():
    line = ProgressLine()
    app = _App(line)
    async with app.run_test(size=(60, 5)) as pilot:
        for done, text in ((0.0, " 0 %"), (0.714, "71 %"), (0.9999, "99 %"), (1.0, "100 %"), (7.0, "100 %")):
            line.show(done, "training")
            await pilot.pause()
            assert lines(line)[0].startswith("training") and lines(line)[0].rstrip().endswith(text)


def test_a_sparkline_has_gaps_and_the_newest_at_the_right():
    assert sparkline([0, None, 100], 5, 0, 100, 1, theme.UNICODE) == ["  ▁ █"]
    assert sparkline([100, 50, 0], 3, 0, 100, 2, theme.UNICODE) == ["█  ", "██▁"]
    assert sparkline(list(range(100)), 3, 0, 99, 1, theme.UNICODE) == ["███"]


async def test_hostile_text_is_shown_as_text():
    gauge, header, rail = Gauge(HOSTILE), Header(), StepRail(STEPS, "model")
    app = _App(header, Container(rail, gauge, classes="wizard-body"), Footer())
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
    app = _App(header)
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
    app = _App(header)
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
    app = _App(header)
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
    app = _App(footer)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        (text,) = lines(footer)
        assert "Next" in text and "Zoom" in text and "Explain" in text and "Quit" in text
        assert text.index("Next") < text.index("Zoom") < text.index("Explain") < text.index("Quit")
        assert "Evaluate" not in text, "the seventh and eighth are in the palette"


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 200])
async def test_footer_is_one_line_with_help_and_quit_at_any_width(width):
    footer = Footer(first=("next",))
    app = _App(footer)
    async with app.run_test(size=(width, 6)) as pilot:
        await pilot.pause()
        rows = lines(footer)
        assert len(rows) == 1 and cell_len(rows[0]) == width - 2
        words = rows[0].split()
        assert "?" in words and "q" in words


async def test_a_click_in_the_footer_runs_the_action_even_while_typing():
    footer, field = Footer(first=("next",)), Input()
    app = _App(field, footer)
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
    class Typing(_App):
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
    app = _App(panel, field, footer)
    async with app.run_test(size=(80, 10)) as pilot:
        field.focus()
        await pilot.pause()
        assert "Explode" not in lines(footer)[0]
        panel.focus()
        await pilot.pause()
        assert lines(footer)[0].strip().startswith("x Explode")


# rail


def _rail() -> StepRail:
    rail = StepRail(STEPS, current="lora")
    rail.set_summary("model", "Llama-3.2-3B-Instruct")
    rail.set_state("model", "done")
    rail.set_state("dataset", "trouble")
    return rail


async def test_rail_is_a_column_with_summaries_where_there_is_room():
    rail = _rail()
    app = _App(Container(rail, classes="wizard-body"))
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.pause()
        text = [line.strip() for line in lines(rail)]
        assert text[0:2] == ["✓ Model", "Llama-3.2-3B-Instruct"]
        assert "! Dataset" in text and "▸ LoRA" in text and "○ Export" in text


async def test_rail_is_one_line_where_narrow():
    for width in (80, 60, 40):
        rail = _rail()
        app = _App(Container(rail, classes="wizard-body"))
        async with app.run_test(size=(width, 24)) as pilot:
            await pilot.pause()
            (text,) = lines(rail)
            assert "▸ LoRA" in text and "✓" in text and text.count("○") == 2
            assert ("Export" in text) == (width >= 60)


@pytest.mark.parametrize("size", SIZES)
async def test_rail_chooses_by_keys_and_by_mouse(size):
    rail = _rail()
    app = _App(Container(rail, classes="wizard-body"))
    async with app.run_test(size=size) as pilot:
        rail.focus()
        await pilot.press("down", "enter", "up", "up", "enter")
        await pilot.click(rail, offset=where(rail, "Export"))
        await pilot.pause()
        assert app.chosen == ["training", "dataset", "export"]
        assert rail.current == "lora", "the screen decides, not the rail"


def test_rail_knows_its_steps():
    with pytest.raises(ValueError, match="no step"):
        _rail().set_summary("nonsense", "x")


# themes, alphabets, text


@pytest.mark.parametrize("name", [one.name for one in theme.THEMES])
@pytest.mark.parametrize("size", SIZES)
async def test_every_theme_draws_everything(name, size):
    header, gauge = Header(), Gauge("Memory")
    app = _App(header, gauge, Input(), Container(_rail(), classes="wizard-body"), Footer(), name=name)
    async with app.run_test(size=size) as pilot:
        header.show_status("training", "busy")
        gauge.show("7.6 of 24.0 GB", Load(7.6, 24, 3, 9), fit="tight")
        await pilot.pause()
        picture = app.export_screenshot()
        assert "training" in picture and "tight" in picture
        assert set(app.available_themes) == {one.name for one in theme.THEMES}


async def test_no_color_keeps_every_state_as_a_glyph_or_word(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    header, gauge, rail = Header(), Gauge("Memory"), _rail()
    app = _App(header, gauge, Container(rail, classes="wizard-body"))
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
        _rail(),
        Footer(),
    )
    app = _App(header, line, history, gauge, Container(rail, classes="wizard-body"), footer)
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
