"""The dashboard of one run, fed by event files that grow, break and lie as real ones may."""

from __future__ import annotations

import asyncio
import math
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from finetui.core import recipe_file
from finetui.core.runs import control, events, state
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.card import ErrorCard
from finetui.tui.modals.confirm import ConfirmModal
from finetui.tui.modals.quit import QuitModal
from finetui.tui.screens import following
from finetui.tui.screens.home import HomeScreen
from finetui.tui.screens.run import RunScreen
from finetui.tui.screens.run_export import RunExportScreen
from finetui.tui.widgets.dashboard.feed import SLICE, Feed

from . import recorded
from .driving import SIZES, press, seen, until
from .recorded import Recording

both_sizes = pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs and drafts of other tests are not seen, and no worker is warmed up."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A live process to sign as the worker."""
    process = recorded.sleeper()
    yield process
    if process.stdin is not None:
        process.stdin.close()
    process.wait(60)


@asynccontextmanager
async def shown(
    recording: Recording, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[FinetuiApp, Pilot[Any], RunScreen]]:
    """The wizard, attached to the run, with all of its history read."""
    app = FinetuiApp(attach=recording.run.path)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "for the run's screen")
        screen = app.screen
        assert isinstance(screen, RunScreen)
        await caught_up(pilot, screen, recording)
        yield app, pilot, screen


async def caught_up(pilot: Pilot[Any], screen: RunScreen, recording: Recording) -> None:
    """Waits until the screen has seen the newest event."""

    def there() -> bool:
        status = screen.status
        return screen.caught_up and (
            recording.seq == 0 or (status is not None and status.last_ts == recording.clock)
        )

    await until(pilot, there, "for the newest event")
    await pilot.pause()


def flat(app: FinetuiApp) -> str:
    """What is on the screen, column after column, as one line with single spaces."""
    lines = seen(app).splitlines()
    columns = [
        w.region for w in app.screen.query("#run-rail, #run-centre, #run-side") if w.display and w.region.area
    ]
    parts = [lines[0], lines[-1]]
    for region in columns or [app.screen.region]:
        parts += [line[region.x : region.right] for line in lines[region.y : region.bottom]]
    return " ".join(" ".join(parts).split())


# ── Before the first step ──


@both_sizes
async def test_a_newcomer_sees_what_happens_before_training(
    worker: subprocess.Popen[bytes], size: tuple[int, int]
) -> None:
    recording = recorded.new().started(worker.pid).add(events.Progress("start", text="importing Unsloth"))
    async with shown(recording, size) as (app, pilot, screen):
        text = flat(app)
        assert "starting" in text and "Importing Unsloth" in text and "10 to 40 seconds" in text
        assert "Turning rows into tokens" in text  # what is to come
        recording.add(
            events.Progress("load", text="weights"), events.Progress("tokenize", 3200, 20000, "rows")
        )
        await caught_up(pilot, screen, recording)
        assert "3,200/20,000 rows" in flat(app)
        recording.add(events.Progress("sample", 1, 3, "prompts"))
        await caught_up(pilot, screen, recording)
        assert "1/3 prompts" in flat(app) and "starting" in flat(app)


async def test_a_run_with_no_event_yet_opens(size: tuple[int, int] = (80, 24)) -> None:
    recording = recorded.new()
    async with shown(recording, size) as (app, _, screen):
        assert screen.status is not None
        assert "demo" in flat(app)


# ── While it trains ──


@both_sizes
async def test_figures_of_a_growing_run(worker: subprocess.Popen[bytes], size: tuple[int, int]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 10)
    async with shown(recording, size) as (app, pilot, screen):
        assert "step 10/74" in flat(app) and "training" in flat(app)
        recording.train(11, 45)
        await caught_up(pilot, screen, recording)
        text = flat(app)
        assert "step 45/74" in text and re.search(r"\d+ s left", text)
        newest = recorded.step(45, 74)
        assert f"raw {newest.loss:.3f}" in text
        assert f"{0.35 + 1.7 * math.exp(-40 / 18):.3f}" in text  # the evaluation of step 40
        assert "252 tok/s" in text and f"grad norm {newest.grad_norm:.2f}" in text
        assert "1.06 × your data" in text
        assert screen.story.curves.steps == 45 and len(screen.story.curves.loss.points()) == 45


async def test_a_step_that_takes_long_leaves_the_time_of_the_steps_after_it(
    worker: subprocess.Popen[bytes],
) -> None:
    recording = recorded.new().started(worker.pid).ready()
    recording.clock -= 5000  # its last word is long ago
    recording.train(1, 20)
    async with shown(recording) as (app, _, screen):
        assert screen.status is not None and screen.status.eta_seconds is not None
        assert screen.status.eta_seconds > 50  # 54 steps of about a second, and never below none
        assert "-" not in re.findall(r"(\S+) s left", flat(app))[0]
        assert "No word from the worker" in flat(app)


async def test_nan_torn_unknown_and_foreign_lines_do_no_harm(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5, every=0)
    recording.add(
        recorded.step(6, 74, math.nan),
        recorded.step(7, 74, math.inf),
        events.Unknown("coach", {"line": "hello"}),
    )
    recording.raw(b"\xff\xfenot json\n").raw(b'{"seq": 1}\n').raw(b"[" * 5000 + b"\n")
    recording.train(8, 9, every=0)
    recording.raw(b'{"v":1,"seq":99999,"ts":1')
    async with shown(recording) as (app, pilot, screen):
        drawn = [x for x, _ in screen.story.curves.loss.points()]
        assert drawn == [1, 2, 3, 4, 5, 8, 9] and screen.story.curves.loss.bad == 2
        assert "step 9/74" in flat(app)
        await press(pilot, "2")
        assert "loss of step 6 is NaN" in flat(app)


async def test_a_missing_reading_is_a_dash_and_no_zero(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 3, every=0)
    recording.add(
        events.Device("cuda:0", "NVIDIA H100", total_bytes=80 * recorded.GIB, reserved_bytes=9 * recorded.GIB)
    )
    async with shown(recording, (120, 36)) as (app, _, _screen):
        text = flat(app)
        assert "— busy" in text or re.search(r"H100 —", text)
        assert "9.0 of 80.0 GiB" in text  # what torch counts, where the driver says nothing
        assert "others —" in text and "— · — W" in text


async def test_the_gpu_pane_tells_whose_memory_it_is(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 3, every=0).add(recorded.gpu(0))
    async with shown(recording, (120, 36)) as (app, _, screen):
        await until(_, lambda: screen.predicted_bytes() is not None, "for the prediction")
        screen.paint()
        await _.pause()
        text = flat(app)
        for part in (
            "RTX 4090",
            "97 % busy",
            "7.4 of 24.0 GiB",
            "others 3.1",
            "free 13.5",
            "peak 7.5",
            "64 °C · 341 of 450 W",
        ):
            assert part in text, part
        assert re.search(r"predicted \d", text)


async def test_hostile_texts_are_shown_literally(worker: subprocess.Popen[bytes]) -> None:
    nasty = "[bold red]x[/] \x1b]52;c;aGk=\x07\x1b[2Jwiped [link=http://e.vil]"
    recording = recorded.new().started(worker.pid).ready().train(1, 2, every=0)
    recording.add(
        events.Sample(0, 0, nasty, nasty, nasty), events.Sample(2, 0, nasty, nasty, nasty),
        events.Warned("x", nasty, nasty, nasty), events.Progress(nasty, 1, 2, nasty, nasty),
    )  # fmt: skip
    recording.run.log.write_bytes(f"loading 1%\rloading 100%\n{nasty}\n".encode())
    async with shown(recording) as (app, pilot, _):
        assert "[bold red]x[/]" in flat(app)
        for key in ("2", "4", "5", "6", "1"):
            await press(pilot, key)
            assert "\x1b" not in seen(app)
        await press(pilot, "3")
        await until(pilot, lambda: "loading 100%" in flat(app), "for the log")
        assert "\x1b" not in seen(app)
        assert "loading 1%" not in flat(app)


async def test_a_long_run_is_taken_in_slices_and_keys_are_heard(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready()
    recording.add(*(recorded.step(n, 100_000, 1.0 + (n == 7_777)) for n in range(1, 50_001)))
    app = FinetuiApp(attach=recording.run.path)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "for the run's screen")
        screen = app.screen
        assert isinstance(screen, RunScreen)
        await press(pilot, "tab")
        assert screen.tab == "Log"
        await until(
            pilot,
            lambda: screen.caught_up and screen.status and screen.status.step == 50_000,
            "for the history",
        )
        await until(pilot, lambda: screen.history is None and screen.story.whole, "for the whole of it")
        curves = screen.story.curves
        assert curves.steps == 50_000 and curves.newest == 50_000
        assert (7_777, 2.0) in curves.loss.points()  # the spike


async def test_news_come_in_slices() -> None:
    recording = recorded.new()
    recording.add(*(recorded.step(n, 20_000) for n in range(1, 12_001)))
    feed = Feed(recording.run).start()
    try:
        counts: list[int] = []
        deadline = time.monotonic() + 60
        while sum(counts) < 12_000 and time.monotonic() < deadline:
            news = feed.take()
            if news.records:
                counts.append(len(news.records))
                assert news.more == (sum(counts) < 12_000)
            else:
                await asyncio.sleep(0.01)
        assert sum(counts) == 12_000 and max(counts) <= SLICE and len(counts) >= 3
    finally:
        feed.stop()


async def test_a_resume_that_goes_back_rewrites_the_curve(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 30, every=0)
    recording.add(events.Ended("train", "stopped", 30.0)).started(worker.pid, "resume").train(21, 25, every=0)
    async with shown(recording) as (app, _, screen):
        assert [x for x, _ in screen.story.curves.loss.points()] == list(range(1, 26))
        assert "step 25/74" in flat(app)


# ── Keys ──


async def test_panes_charts_and_samples_by_keys(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 45)
    async with shown(recording) as (app, pilot, screen):
        assert recorded.PROMPTS[0] in flat(app) and "answer of step 40" in flat(app)
        await press(pilot, "down")
        assert "Prompt 2 of 3" in flat(app) and recorded.PROMPTS[1][:40] in flat(app)
        await press(pilot, "up", "up")
        assert "Prompt 3 of 3" in flat(app)
        await press(pilot, "left")
        assert "answer of step 20 (1 of 2)" in flat(app) and "Loss at step 20" in flat(app)
        await press(pilot, "right", "right")
        assert "answer of step 40" in flat(app) and "Loss at step" not in flat(app)
        for name in ("Learning rate", "Gradient norm", "Tokens a second", "Loss"):
            await press(pilot, "c")
            await until(pilot, lambda name=name: name in flat(app), f"for {name}")
        for name, shows in (
            ("Log", "Evaluation"),
            ("Output", "The libraries have printed nothing yet."),
            ("Machine", "Disk free"),
            ("Recipe", "Sequence length"),
            ("Files", "events.jsonl"),
            ("Samples", "Prompt"),
        ):
            await press(pilot, "tab")
            await pilot.pause()
            assert screen.tab == name and f"‹{name}›" in flat(app)
            await until(pilot, lambda shows=shows: shows in flat(app), f"for {shows}")
            assert name != "Recipe" or "Checkpointing off" in flat(app), flat(app)


async def test_the_footer_keeps_help_and_quit_at_every_size(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 45)
    async with shown(recording, (120, 36)) as (app, pilot, _):
        for size in ((40, 10), (60, 20), (80, 24), (100, 30), (200, 60)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            last = seen(app).splitlines()[-1]
            assert "?" in last and "q" in last and "Stop and save" in last, size
            assert "45/74" in seen(app), size
            assert "loss" in seen(app).lower(), size


async def test_stop_asks_then_leaves_a_request_for_the_worker(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5, every=0)
    async with shown(recording) as (app, pilot, _):
        await press(pilot, "s")
        assert isinstance(app.screen, ConfirmModal)
        await press(pilot, "escape")
        assert control.pending(recording.run) == ()
        await press(pilot, "s", "enter")
        await until(pilot, lambda: control.pending(recording.run) == ("stop",), "for the request")
        await until(pilot, lambda: "saves after this step" in flat(app), "for the word")
        await press(pilot, "v", "S")
        await until(pilot, lambda: len(control.pending(recording.run)) == 3, "for the other requests")


@both_sizes
async def test_what_the_model_says_now_is_in_sight(
    worker: subprocess.Popen[bytes], size: tuple[int, int]
) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 45)
    async with shown(recording, size) as (app, pilot, _):
        await until(pilot, lambda: "leaks, wants a refund" in flat(app), "for the answer")


@both_sizes
async def test_the_menu_asks_the_worker_and_a_pause_says_how_to_go_on(
    worker: subprocess.Popen[bytes], size: tuple[int, int]
) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5, every=0)
    async with shown(recording, size) as (app, pilot, _):
        assert "m Actions" in seen(app).splitlines()[-1]
        await press(pilot, "m")
        await until(pilot, lambda: "Save now" in seen(app) and "Evaluate now" in seen(app), "for the menu")
        await press(pilot, "p")
        await until(pilot, lambda: control.pending(recording.run) == ("pause",), "for the request")
        await until(pilot, lambda: "Pausing after this step" in flat(app), "for the word")
        recording.add(events.Paused(5))
        await until(pilot, lambda: "p goes on" in flat(app), "for the way on")
        await press(pilot, "m")
        await until(pilot, lambda: "Go on" in seen(app), "for the menu")


async def test_what_an_action_did_is_said_until_it_is_done(
    worker: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SAID_SECONDS", 0.0)
    recording = recorded.new().started(worker.pid).ready().train(1, 5, every=0)
    async with shown(recording) as (app, pilot, _):
        await press(pilot, "S")
        await until(pilot, lambda: "A checkpoint is saved after this step" in flat(app), "for the word")
        recording.train(6, 9, every=0)
        await until(pilot, lambda: "A checkpoint is saved" not in flat(app), "for its end")


async def test_home_says_that_the_run_goes_on_and_attaches_again(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5, every=0)
    async with shown(recording) as (app, pilot, _):
        await press(pilot, "escape")
        assert isinstance(app.screen, HomeScreen)
        await until(pilot, lambda: "The run goes on" in flat(app), "for the word")
        await until(pilot, lambda: "Running" in flat(app) and "5/74" in flat(app), "for the run in the list")


# ── Its end ──


@both_sizes
async def test_a_finished_demo_shows_its_score_and_what_to_do_next(size: tuple[int, int]) -> None:
    recording = recorded.new().started().ready().train(1, 74).finished()
    async with shown(recording, size) as (app, pilot, screen):
        text = flat(app)
        assert "completed" in text
        assert re.search(r"valid JSON 0/40 \(0 %\) 40/40 \(100 %\)", text)
        assert re.search(r"category right 0/40 \(0 %\) 37/40 \(92 %\)", text)
        assert "base answers" in text and "tuned answers" in text and recorded.PROMPTS[0] in text
        shown_text = ""
        for _ in range(12):
            shown_text += flat(app)
            await press(pilot, "pagedown")
        for part in (
            *recorded.PROMPTS,
            "256.6 MiB → 138.1 MiB",
            "256.6 MiB → 20.9 MiB",
            "ollama create demo",
        ):
            assert part[:40] in shown_text, part
        await press(pilot, "y")
        written = recording.run.exports / "commands.sh"
        await until(
            pilot,
            lambda: written.exists() and "commands.sh" in flat(app) or "Copied" in flat(app),
            "for the copy",
        )
        assert app.clipboard.startswith("ollama create demo")
        assert "ollama create demo -f exports/gguf_q8_0/Modelfile && ollama run demo" in written.read_text()
        assert not screen.check_action("stop", ()) and not screen.check_action("resume", ())


@both_sizes
async def test_a_failed_run_shows_its_card_and_the_way_back(size: tuple[int, int]) -> None:
    why = "The run needed more than the 24.0 GiB of the card; other programs hold 3.1 GiB of it."
    recording = recorded.new().started().ready().train(1, 41, every=0)
    recording.add(
        events.Ended(
            "train", "failed", 60.0, "The GPU's memory ran out.", why, "Halve the batch size.", "gpu-memory"
        )
    )
    async with shown(recording, size) as (app, pilot, screen):
        text = flat(app)
        assert "The GPU's memory ran out." in text and "Halve the batch size." in text and "failed" in text
        assert "24.0 GiB of the card" in text and "resume from the checkpoint" in text
        await until(pilot, lambda: screen.known.recipe is not None, "for the recipe")
        await press(pilot, "b")
        await until(pilot, lambda: getattr(app.screen, "step", "") == "training", "for the step to fix")
        assert app.wizard.draft.recipe() == recipe_file.load(recording.run.recipe)


async def test_a_vanished_worker_is_a_crash_with_its_reason(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5, every=0)
    recording.run.log.write_text("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n")
    async with shown(recording) as (app, pilot, screen):
        assert screen.status is not None and screen.status.live
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait(60)
        await until(pilot, lambda: "crashed" in flat(app) and "memory ran out" in flat(app), "for the crash")
        assert screen.check_action("fix", ()) and not screen.check_action("stop", ())


async def test_resume_without_a_checkpoint_is_refused_with_a_card() -> None:
    recording = recorded.new().started().ready().train(1, 45)
    recording.add(events.Ended("train", "stopped", 60.0))
    async with shown(recording) as (app, pilot, _):
        assert "r resumes from the checkpoint" in flat(app)
        await press(pilot, "r")  # the event says that there is one, but its folder has gone
        await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
        assert "cannot be resumed" in flat(app)
        await press(pilot, "escape")
        assert isinstance(app.screen, RunScreen)


# ── Leaving ──


@pytest.mark.parametrize(
    ("keys", "asked"),
    [(["enter"], ()), (["down", "enter"], ("stop",)), (["down", "down", "enter"], ("stop-now",))],
    ids=["detach", "save and stop", "stop"],
)
async def test_leaving_asks_and_does_what_was_answered(
    worker: subprocess.Popen[bytes], keys: list[str], asked: tuple[str, ...]
) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5, every=0)
    async with shown(recording) as (app, pilot, _):
        await press(pilot, "q")
        await until(pilot, lambda: isinstance(app.screen, QuitModal), "for the question")
        assert f"finetui attach {recording.run.id}" in flat(app)
        await press(pilot, *keys)
        await until(pilot, lambda: not app.is_running or app.return_code == 0, "for the end")
    assert control.pending(recording.run) == asked
    assert worker.poll() is None and state.status(recording.run).live


@pytest.mark.parametrize("place", ["run", "home"])
async def test_cancel_stays(worker: subprocess.Popen[bytes], place: str) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5, every=0)
    async with shown(recording) as (app, pilot, screen):
        if place == "home":
            await press(pilot, "escape")
        await press(pilot, "ctrl+q")
        await until(pilot, lambda: isinstance(app.screen, QuitModal), "for the question")
        await press(pilot, "escape")
        assert app.is_running and app.return_code is None and not isinstance(app.screen, QuitModal)
        assert screen.is_attached == (place == "run")


async def test_nothing_is_asked_once_the_run_has_ended() -> None:
    recording = (
        recorded.new().started().ready().train(1, 5, every=0).add(events.Ended("train", "completed", 9.0))
    )
    async with shown(recording) as (app, pilot, _):
        await press(pilot, "q")
        await until(pilot, lambda: app.return_code == 0, "for the end")


async def test_ctrl_c_never_ends_the_wizard_or_the_run(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 5, every=0)
    async with shown(recording) as (app, pilot, _):
        await press(pilot, "ctrl+c")
        assert app.is_running and app.return_code is None and worker.poll() is None


async def test_export_opens_over_the_finished_run() -> None:
    recording = recorded.new().started().ready().train(1, 74).finished()
    async with shown(recording) as (app, pilot, _):
        await press(pilot, "e")
        assert isinstance(app.screen, RunExportScreen)
        await press(pilot, "escape")
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "for the run again")
