"""The dashboard by keys: its panes, the requests it leaves for the worker, and leaving it."""

from __future__ import annotations

import subprocess

import pytest

from finetui.core.runs import control, events, state
from finetui.tui.modals.confirm import ConfirmModal
from finetui.tui.modals.quit import QuitModal
from finetui.tui.screens import following
from finetui.tui.screens.home import HomeScreen
from finetui.tui.screens.run import RunScreen
from finetui.tui.screens.run_export import RunExportScreen

from . import recorded
from .driving import home, press, seen, until
from .run_screen import both_sizes, flat, shown, worker

__all__ = ["home", "worker"]


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
            assert "?" in last and "q" in last and "s Stop" in last, size
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
        await until(pilot, lambda: f"finetui attach {recording.run.id}" in flat(app), "for its words")
        await press(pilot, *keys)
        await until(pilot, lambda: not app.is_running or app.return_code == 0, "for the end")
    assert control.pending(recording.run) == asked
    assert worker.poll() is None and state.status(recording.run).live


async def test_who_leaves_what_has_nothing_to_save_is_offered_no_save(
    worker: subprocess.Popen[bytes],
) -> None:
    recording = recorded.new().started(worker.pid).add(events.Progress("load", text="weights"))
    async with shown(recording) as (app, pilot, _):
        await press(pilot, "q")
        await until(pilot, lambda: "not come to its first step" in flat(app), "for the question")
        assert "Save and stop" not in flat(app)
        await press(pilot, "s")
        assert isinstance(app.screen, QuitModal) and control.pending(recording.run) == ()
        await press(pilot, "x")
        await until(pilot, lambda: not app.is_running or app.return_code == 0, "for the end")
    assert control.pending(recording.run) == ("stop-now",)


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
