"""The wizard attached to a run whose events a test writes."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.pilot import Pilot

from finetui.tui.app import FinetuiApp
from finetui.tui.screens.run import RunScreen

from . import recorded
from .driving import SIZES, seen, until
from .recorded import Recording

both_sizes = pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])


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
