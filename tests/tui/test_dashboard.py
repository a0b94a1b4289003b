"""The dashboard of one run, fed by event files that grow, break and lie as real ones may."""

from __future__ import annotations

import asyncio
import math
import re
import subprocess
import time

from finetui.core import recipe_file
from finetui.core.runs import events
from finetui.tui.app import SNAPSHOT_SECONDS, FinetuiApp
from finetui.tui.modals.card import ErrorCard
from finetui.tui.screens.run import RunScreen
from finetui.tui.widgets.dashboard.feed import SLICE, Feed

from . import recorded
from .driving import home, press, seen, until
from .run_screen import both_sizes, caught_up, flat, shown, worker

__all__ = ["home", "worker"]


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


async def test_the_wizard_does_not_read_the_machine_beside_the_worker(
    worker: subprocess.Popen[bytes],
) -> None:
    """Each reading of a GPU holds up what trains on it."""
    recording = recorded.new().started(worker.pid).ready().train(1, 10)
    async with shown(recording) as (app, pilot, screen):
        app.wizard.machine = None
        for _ in range(25):  # twice as long as between two readings
            await asyncio.sleep(2 * SNAPSHOT_SECONDS / 25)
            await pilot.pause()
            assert app.wizard.machine is None
        recording.add(events.Ended("train", "completed", 10.0))
        await until(pilot, lambda: screen.ended and app.wizard.machine is not None, "for the machine")


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
            "peak 7.9",  # torch's 7.5, and what the driver counts beyond its 7.0 of now
            "64 °C · 341 of 450 W",
        ):
            assert part in text, part
        assert re.search(r"predicted \d", text)


@both_sizes
async def test_memory_is_predicted_once_the_rows_are_counted(
    worker: subprocess.Popen[bytes], size: tuple[int, int]
) -> None:
    recording = recorded.new().started(worker.pid).add(recorded.device(0))
    async with shown(recording, size) as (app, pilot, screen):
        await until(pilot, lambda: screen.known.facts is not None, "for what is known of the model")
        screen.paint()
        await pilot.pause()
        assert "predicted —" in flat(app)
        recording.ready()
        await caught_up(pilot, screen, recording)
        screen.paint()
        await pilot.pause()
        assert re.search(r"predicted \d", flat(app))


@both_sizes
async def test_the_peak_of_an_export_is_told_apart_from_the_trainings(
    worker: subprocess.Popen[bytes], size: tuple[int, int]
) -> None:
    recording = recorded.new().started(worker.pid).ready().train(1, 20)
    recording.add(events.Progress("export", 0, 2, "formats"), recorded.holding(2.9), recorded.holding(12.1))
    async with shown(recording, size) as (app, pilot, screen):
        await until(pilot, lambda: screen.known.facts is not None, "for what is known of the model")
        screen.paint()
        await pilot.pause()
        text = flat(app)
        assert re.search(r"peak 1\.7,? exporting 12\.1", text), text
        if size[0] < 100:
            assert "predicted" not in text  # it is the training's
    assert screen.story.peak_bytes == recorded.device(20).run_bytes


async def test_the_trainings_peak_stays_when_an_export_is_made_later(worker: subprocess.Popen[bytes]) -> None:
    recording = recorded.new().started().ready().train(1, 20).finished().started(worker.pid, "export")
    async with shown(recording) as (_, _pilot, screen):
        assert screen.story.peak_bytes == recorded.device(20).run_bytes
        assert screen.story.export_peak_bytes is None


@both_sizes
async def test_getting_the_export_tools_has_a_heading_of_its_own(
    worker: subprocess.Popen[bytes], size: tuple[int, int]
) -> None:
    recording = recorded.new().started(worker.pid).ready()
    said = "fetching the GGUF converter (0.4 MB)"
    recording.add(events.Progress("tools", text=said))
    async with shown(recording, size) as (app, pilot, _screen):
        text = flat(app)
        assert re.search(r"Turning rows into tokens.*Preparing export tools.*Asking the model", text)
        assert "starting" in text and "▸ Preparing" in text and "✓ Loading the model" in text
        await press(pilot, "2")
        assert f"Preparing export tools: {said}" in flat(app)


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
        assert not screen.check_action("act", ("stop",)) and not screen.check_action("resume", ())


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
        assert screen.check_action("fix", ()) and not screen.check_action("act", ("stop",))


async def test_resume_without_a_checkpoint_is_refused_with_a_card() -> None:
    recording = recorded.new().started().ready().train(1, 45)
    recording.add(events.Ended("train", "stopped", 60.0))
    async with shown(recording) as (app, pilot, _):
        assert "r resumes from the checkpoint" in flat(app)
        await press(pilot, "r")  # the event says that there is one, but its folder has gone
        await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
        await until(pilot, lambda: "cannot be resumed" in flat(app), "for its words")
        await press(pilot, "escape")
        assert isinstance(app.screen, RunScreen)
