"""The dashboard's logs and files, and what it sends to the terminal."""

from __future__ import annotations

import errno
import subprocess
import time
from dataclasses import replace

import pytest
from rich.console import Console
from textual._compositor import ChopsUpdate
from textual.strip import Segment, Strip

from finetui.core.coach_seen import Action, Advice
from finetui.core.runs import events, silence
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.confirm import ConfirmModal
from finetui.tui.widgets.dashboard import advising
from finetui.tui.widgets.dashboard.pane import Pane
from finetui.tui.widgets.dashboard.story import Story
from finetui.tui.widgets.sparing import Trimmed

from . import recorded
from .driving import home, press, seen, until
from .run_screen import caught_up, flat, shown, worker

__all__ = ["home", "worker"]


def _prompts() -> list[str]:
    return [" ".join(prompt.split())[:40] for prompt in recorded.PROMPTS]


def _asked(app: FinetuiApp) -> list[int]:
    """The numbers of the prompts that are shown."""
    text = flat(app)
    return [number for number, prompt in enumerate(_prompts()) if prompt in text]


async def test_prompts_that_follow_fill_the_room_under_the_first(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 45)
    for size, there in (((80, 24), [0]), ((200, 60), [0, 1]), ((200, 90), [0, 1, 2])):
        async with shown(recording, size) as (app, pilot, _):
            # The room is what the lines about the run leave, and the last of these come after the first paint.
            await until(pilot, lambda app=app, there=there: _asked(app) == there, f"for {there} at {size}")
            await press(pilot, "down")
            assert "Prompt 2 of 3" in flat(app) and _prompts()[1] in flat(app)


async def test_the_log_is_sifted_by_level_and_words(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 45)
    recording.add(events.Warned("x", "[bold]Rows were cut[/]"))
    async with shown(recording) as (app, pilot, screen):
        await press(pilot, "2")
        assert "Evaluation" in flat(app) and "F following" in flat(app) and "/ Search" in flat(app)
        await press(pilot, "g")
        assert "Warning: [bold]Rows were cut[/]" in flat(app) and "g warnings" in flat(app)
        assert "Evaluation" not in flat(app)
        await press(pilot, "g")
        assert "g errors" in flat(app) and "None of" in flat(app)
        await press(pilot, "g", "slash", *"sAmples q", "backspace", "backspace")
        text = flat(app)
        assert "Samples written at step 40" in text and "Rows were cut" not in text and "of" in text
        await press(pilot, "enter")
        await until(pilot, lambda: app.focused is None, "for the search line to go")
        assert "/ sAmples" in flat(app) and screen.is_attached
        await press(pilot, "slash", "escape")  # clears the words, and does not leave the run
        await until(pilot, lambda: app.focused is None, "for the search line to go")
        assert "Rows were cut" in flat(app) and app.screen is screen


async def test_damaged_lines_are_counted_over_the_log(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5)
    async with shown(recording) as (app, pilot, _):
        await press(pilot, "2")
        assert "damaged" not in flat(app)
        recording.raw(b'{"torn": \n\xff\n').train(6, 6)
        await until(pilot, lambda: "2 damaged lines left out" in flat(app), "for the count")


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
async def test_what_keeps_the_events_from_being_written_is_said(
    worker: subprocess.Popen[bytes], size: tuple[int, int]
) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5)
    silence.mark(recording.run, errno.EIO)
    async with shown(recording, size) as (app, pilot, screen):

        def told() -> str:
            place = screen.query_one("#alert").region
            lines = seen(app).split("\n")[place.y : place.bottom]
            return " ".join(" ".join(line[place.x : place.right] for line in lines).split())

        for _ in range(2):  # at once, and once all has its place
            await until(pilot, lambda: "cannot be written: Input/output error." in told(), "for the word")
            await press(pilot, "2")
        assert "long step" not in flat(app)


async def test_the_output_follows_and_goes_back_through_a_long_file(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5)
    log = recording.run.log
    log.write_text("the needle\n" + "".join(f"line {n} of many\n" for n in range(20_000)) + "the end\n")
    async with shown(recording) as (app, pilot, screen):
        await press(pilot, "3")
        await until(pilot, lambda: "the end" in seen(app), "for the end of the file")
        with log.open("a") as file:
            file.write("one more\n")
        await until(pilot, lambda: "one more" in seen(app), "for the new line")
        await press(pilot, "F")
        with log.open("a") as file:
            file.write("not yet\n")
        await until(pilot, lambda: "not yet" in screen.tail.lines[-1], "for the feed")
        await pilot.pause()
        assert "not yet" not in seen(app) and "F held" in flat(app)
        await press(pilot, "F")
        await until(pilot, lambda: "not yet" in seen(app), "for the end again")
        pane = screen.query_one(Pane)
        start = screen.tail.start
        pane.scroll_home(animate=False)
        await press(pilot, "pageup")
        await until(
            pilot, lambda: screen.piece is not None and screen.piece.end == start, "for the piece before"
        )
        with log.open("a") as file:
            file.write("and later\n")
        await until(pilot, lambda: "and later" in screen.tail.lines[-1], "for the feed")
        await pilot.pause()
        assert screen.piece is not None and screen.piece.end == start  # what one reads stays
        await press(pilot, "slash", *"needle", "enter", "n")
        await until(pilot, lambda: "the needle" in flat(app), "for the first line of the file")
        assert screen.piece.start == 0
        await press(pilot, "n")  # there is none before it
        await press(pilot, "F", "slash", "escape")
        await until(pilot, lambda: "and later" in seen(app), "for the end of the file")


async def test_the_files_of_the_run(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5)
    (recording.run.path / "\x1b[31mred\u202e").write_bytes(b"x" * 2048)
    async with shown(recording, (120, 36)) as (app, pilot, _):
        await press(pilot, "6")
        await until(pilot, lambda: "recipe.yaml" in flat(app), "for the files")
        text = flat(app)
        assert "red\ufffd" in text and "2.0 KiB" in text and "moments ago" in text
        assert "\x1b" not in seen(app) and "\u202e" not in seen(app)


@pytest.mark.parametrize(("size", "brief"), [((80, 24), False), ((120, 36), True), ((200, 60), False)])
async def test_each_card_of_the_machine(
    worker: subprocess.Popen[bytes], size: tuple[int, int], brief: bool
) -> None:
    recording = recorded.new().started(worker.pid).ready()
    gib = recorded.GIB
    for n in range(1, 12):
        cards = (
            events.Card(1, "NVIDIA H100", 80 * gib, 12 * gib, 57.0, 61.0, 340.0, 700.0, ("heat",)),
            events.Card(3, "\x1b[31mOdd"),
        )
        recording.add(recorded.step(n, 74), replace(recorded.gpu(n), cards=cards if n % 5 == 1 else ()))
    async with shown(recording, size) as (app, pilot, screen):
        assert list(screen.story.cards_busy[1]) == [57.0] * 3
        await press(pilot, "4")
        text = " ".join(" ".join(line.plain for line in screen.query_one(Pane).lines).split())
        assert "GPU 1 H100" in text and "57 % busy" in text and "others 12.0 of 80.0 GiB" in text
        assert "free 68.0" in text and "61 °C · 340 of 700 W" in text and "! heat" in text
        assert "GPU 3 Odd" in text and "others — of — GiB" in text and "— · — W" in text
        assert "\x1b" not in seen(app)
        if brief:  # the column at the side has a line for each, and the log keeps its room
            assert "GPU 1 57 % 12.0/80 GiB 61 °C !" in flat(app)
            assert screen.query_one("#side-log").region.height > 8


async def test_nothing_is_drawn_beneath_a_window(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 10)
    async with shown(recording, (120, 36)) as (app, pilot, screen):
        await press(pilot, "s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmModal), "for the question")
        drawn: list[object] = []
        app.post_display_hook = lambda: drawn.append(app.screen)
        recording.train(11, 20)
        await caught_up(pilot, screen, recording)
        assert screen.status is not None and screen.status.step == 20 and not drawn
        await press(pilot, "escape")
        await until(pilot, lambda: "step 20/74" in flat(app), "for the newest figures at once")


async def test_a_screen_that_is_covered_draws_nothing(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 10)
    async with shown(recording) as (app, pilot, _):
        home = app.screen_stack[-2]
        assert app._background_screens == [] and not home.is_current
        await press(pilot, "s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmModal), "for the question")
        assert app._background_screens == [app.screen_stack[-2]]  # through a window it can be seen


def test_an_update_sends_only_what_changed() -> None:
    strips = [{0: Strip([Segment("abcdef")]), 6: Strip([Segment("ghijkl")])}]
    update = ChopsUpdate(strips, [(0, 4, 8)], [[6, 12]])
    sent = Trimmed.of(update).render_segments(Console())
    assert sent == "\x1b[1;5Hef\x1b[1;7Hgh"


async def test_another_pane_needs_no_new_layout(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 45)
    async with shown(recording, (120, 36)) as (app, pilot, screen):
        await press(pilot, "4")
        laid: list[float] = []
        refresh = screen._refresh_layout
        screen._refresh_layout = lambda *a, **k: (laid.append(time.monotonic()), refresh(*a, **k))[1]  # pyright: ignore[reportAttributeAccessIssue]
        for key in ("5", "1", "4"):
            await press(pilot, key)
        assert not laid and "Disk free" in flat(app)


async def test_all_panes_are_named_where_a_terminal_is_wide() -> None:
    recording = recorded.new().started().ready().train(1, 45).finished()
    async with shown(recording, (120, 36)) as (app, _, _):
        names = "‹Result› Samples Log Output Machine Recipe Files"
        assert names in flat(app)


async def test_a_log_that_is_followed_is_followed_in_another_size(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 45)
    async with shown(recording, (120, 36)) as (app, pilot, _):
        await press(pilot, "2")
        assert "F following" in flat(app)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: app.size.width == 80, "for the other size")
        await until(pilot, lambda: "Checkpoint 40 saved" in flat(app), "for the end of the log")
        assert "F following" in flat(app)


def test_the_key_to_act_on_a_finding_is_never_left_out() -> None:
    sentence = "It memorises: held-out loss rises while training loss falls. It was best at step 40."
    evidence = "Held-out 1.234 at step 40, 1.456 at step 80; training 0.812, then 0.345."
    one = Advice("overfitting", "warning", sentence, evidence, Action("best", "go back to step 40"))
    for width in range(50, 140):
        for most in (1, 2, 4):
            lines = [line.plain for line in advising.advice([one, one], width, most)]
            assert "a: go back to step 40" in lines[-1], (width, most)
            assert len(lines) <= most and max(map(len, lines)) <= width


def test_a_finding_on_the_edge_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    now, found = [100.0], [Advice("plateau", "hint", "Level.", "1.0")]
    monkeypatch.setattr(advising, "monotonic", lambda: now[0])
    monkeypatch.setattr(Story, "advice", lambda *_: list(found))
    counsel, story = advising.Counsel(), Story()

    def told(step: int, seconds: float, live: bool = True) -> list[str]:
        now[0] += seconds
        story.step = events.Step(step, 100, 0.1, 1.0, 1e-4)
        return [advice.rule for advice in counsel.of(story, None, live)]

    assert told(1, 0) == ["plateau"]
    found.clear()
    assert told(2, 0.5) == ["plateau"]  # not asked yet
    assert told(3, 3) == ["plateau"]  # held
    found.append(Advice("nan", "trouble", "NaN.", "2"))
    assert told(4, 3) == ["nan"]  # something else takes its place at once
    found.clear()
    assert told(5, advising.HOLD_SECONDS + 3) == []
    found.append(Advice("plateau", "hint", "Level.", "1.0"))
    assert told(6, 3) == ["plateau"]
    found.clear()
    assert told(7, 3, live=False) == []  # of a run that is over only what holds
