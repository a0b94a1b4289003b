"""What every test of the wizard needs: a fresh home, waiting for conditions, and the text on the screen."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot

from finetui.tui.app import FinetuiApp

os.environ.update(TERM="xterm-256color", LC_ALL="C.UTF-8")  # the alphabet follows them; a test names its own

SIZES = ((80, 24), (120, 36))
NAMES = {"model": "Model", "dataset": "Dataset", "lora": "LoRA", "training": "Training", "export": "Export"}
PATIENCE_SECONDS = 60.0
"""A loaded machine is slow; a condition that never holds fails after this."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `home` is the wizard's in this test alone; no worker is warmed up. Holds in a module that imports it."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    return tmp_path


def fill(size: tuple[int, int]) -> str:
    """How a terminal's size is called in the name of a test."""
    return f"{size[0]}x{size[1]}"


def seen(app: FinetuiApp) -> str:
    """The text that the terminal shows now, line by line."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips(app.size))


async def until(pilot: Pilot[Any], check: Callable[[], object], what: str = "") -> None:
    """Waits until `check()` is true, however long a busy machine takes, and until what follows from it is painted. Fails
    with what the screen shows."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not check():
        if time.monotonic() > deadline:
            app = pilot.app
            assert isinstance(app, FinetuiApp)
            raise AssertionError(f"waited in vain {what}\n{seen(app)}")
        await pilot.pause()
        await asyncio.sleep(0.01)
    await pilot.pause()


@asynccontextmanager
async def wizard(
    size: tuple[int, int] = (80, 24), **options: Any
) -> AsyncIterator[tuple[FinetuiApp, Pilot[Any]]]:
    """The application at `size`, Home shown."""
    app = FinetuiApp(**options)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.screen.query("#menu"), "for Home")
        yield app, pilot


async def at_step(app: FinetuiApp, pilot: Pilot[Any], step: str) -> None:
    """Waits until `step` is shown and a control has the focus."""
    await until(
        pilot, lambda: getattr(app.screen, "step", "") == step and app.focused is not None, f"for {step}"
    )
    await pilot.pause()


async def press(pilot: Pilot[Any], *keys: str) -> None:
    """Presses `keys` one by one."""
    for key in keys:
        await pilot.press(key)
    await pilot.pause()


async def type_over(pilot: Pilot[Any], text: str) -> None:
    """Replaces the text of the focused input."""
    await pilot.press("end", "ctrl+u")
    focused = pilot.app.focused
    assert focused is not None
    focused.post_message(events.Paste(text))  # as a terminal does; typing a path key by key takes long
    await until(pilot, lambda: getattr(focused, "value", None) == text, f"for {text!r} in {focused}")
