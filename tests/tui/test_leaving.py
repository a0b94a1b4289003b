"""How the wizard ends: by signals, by a terminal that hangs up, by an error that nobody foresaw."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetui.core.draft import Draft
from finetui.core.runs import store
from finetui.tui.screens.step import StepScreen
from tests.tui.driving import PATIENCE_SECONDS, at_step, until, wizard
from tests.tui.terminal import Terminal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_gives_the_terminal_back_and_keeps_draft(number: signal.Signals, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    try:
        terminal.read_until(b"Try the demo")
        os.write(terminal.master, b"\r")
        terminal.read_until(b"Precision")
        before = len(terminal.output)
        terminal.process.send_signal(number)
        assert terminal.end() == 128 + number
        assert b"\x1b[?1049l" in terminal.output[before:]
        assert b"\x1b[?25h" in terminal.output[before:]
        assert b"Traceback" not in terminal.output
        assert (tmp_path / "data" / "draft.yaml").is_file()
    finally:
        terminal.process.kill()
        os.close(terminal.master)


def test_a_signal_before_the_first_screen_gives_the_terminal_back_too(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    try:
        terminal.read_until(b"\x1b[?1049h")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 128 + signal.SIGTERM
        assert b"\x1b[?1049l" in terminal.output and b"\x1b[?25h" in terminal.output
    finally:
        terminal.process.kill()
        os.close(terminal.master)


def test_a_terminal_that_hangs_up_ends_the_wizard(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    try:
        terminal.read_until(b"Try the demo")
        os.close(terminal.master)
        terminal.process.send_signal(signal.SIGHUP)
        assert terminal.process.wait(PATIENCE_SECONDS) == 128 + signal.SIGHUP
    finally:
        terminal.process.kill()


async def test_an_unforeseen_error_leaves_words_and_a_log_but_no_traceback_on_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))

    def break_down() -> None:
        raise RuntimeError("the unforeseen")

    with pytest.raises(RuntimeError, match="the unforeseen"):
        async with wizard() as (app, pilot):
            app.screen.query_one("#menu").call_later(break_down)
            await until(pilot, lambda: not app.is_running)
    log = (tmp_path / "data" / "finetui.log").read_text(encoding="utf-8")
    assert "Traceback" in log and "the unforeseen" in log
    assert oct((tmp_path / "data" / "finetui.log").stat().st_mode & 0o777) == "0o600"
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert "Something went wrong inside finetui" in printed.out + printed.err


async def test_a_disk_that_refuses_the_draft_is_said_once_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "home"
    blocked.write_text("a file where a folder should be", encoding="utf-8")
    monkeypatch.setenv("FINETUI_HOME", str(blocked))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    async with wizard(demo=True) as (app, pilot):
        await pilot.press("enter")
        await until(pilot, lambda: any("cannot be saved" in str(n.title) for n in app._notifications))
        assert app.is_running and app.wizard.draft.recipe().name == "demo"
    assert Draft.load() is None and store.all_runs() == []


def test_the_wizard_imports_nothing_heavy() -> None:
    code = (
        "import sys, finetui.tui.app, finetui.tui.screens.home, finetui.tui.screens.model, finetui.tui.screens.dataset,"
        "finetui.tui.screens.lora, finetui.tui.screens.training, finetui.tui.screens.export;"
        "print([m for m in ('torch','unsloth','transformers','trl','peft','datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_haste_between_the_steps_breaks_nothing() -> None:
    """What was to be painted on a step comes to nothing once the next one is shown."""
    async with wizard(size=(80, 24)) as (app, pilot):
        app.begin()
        await at_step(app, pilot, "model")
        for step in ("dataset", "lora", "training", "export", "lora", "dataset", "model") * 6:
            screen = app.screen
            assert isinstance(screen, StepScreen)
            screen.call_after_refresh(screen.fit)
            screen.call_later(screen.focus_first)
            screen.call_later(screen.paint)
            app.go(step)
            screen.call_next(screen.fit)
            app.changed.publish(None)
            await asyncio.sleep(0)
        await at_step(app, pilot, "model")
