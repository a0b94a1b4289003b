"""The dashboard by keys: its panes, the requests it leaves for the worker, and leaving it."""

from __future__ import annotations

import subprocess

import pytest

from finetui.core.runs import control, events, state
from finetui.tui.modals.confirm import ConfirmModal
from finetui.tui.modals.quit import QuitModal
from finetui.tui.screens.home import HomeScreen
from finetui.tui.screens.run import RunScreen
from finetui.tui.screens.run_export import RunExportScreen

from . import recorded
from .driving import home, press, seen, until
from .run_screen import flat, shown, worker

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
