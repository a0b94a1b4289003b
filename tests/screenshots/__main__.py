"""Makes the pictures in `screenshots/` from one real run of the demo: `make screenshots` (about six minutes on two cores).
The one named "gpu" was taken in the same way on a machine with two of them.

The wizard is driven by keys, as a person would; nothing on the pictures is invented. Where no browser is at hand, such as on a
machine with a GPU, `python -m tests.screenshots FOLDER` leaves SVGs in FOLDER, for `render.py` to draw elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from finetui.tui.app import FinetuiApp
from finetui.tui.screens.run import RunScreen

from .render import svg_to_png

TARGET = Path(__file__).parents[2] / "screenshots"
WIDE, SMALL = (120, 36), (80, 24)
ENDED = ("completed", "stopped", "failed", "crashed")
PATIENCE_SECONDS = 5400.0


class Photographer:
    """The wizard, and the pictures taken of it."""

    def __init__(self, app: FinetuiApp, pilot: Pilot[Any], folder: Path | None) -> None:
        self.app, self.pilot, self.folder = app, pilot, folder

    async def until(self, check: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not check():
            if time.monotonic() > end:
                raise TimeoutError("the wizard did not get there")
            await self.pilot.pause(0.1)

    async def at(self, step: str) -> None:
        await self.until(lambda: getattr(self.app.screen, "step", "") == step)

    async def take(self, name: str, *sizes: tuple[int, int]) -> None:
        """A picture of what is shown at each of `sizes`; the terminal ends at the wide size."""
        for width, height in sizes:
            await self.pilot.resize_terminal(width, height)
            await self.pilot.pause(1.5)
            svg, title = self.app.export_screenshot(), f"{name}-{width}x{height}"
            if self.folder:
                (self.folder / f"{title}.svg").write_text(svg, encoding="utf-8")
            else:
                svg_to_png(svg, TARGET / f"{title}.png")
        await self.pilot.resize_terminal(*WIDE)
        print(f"took {name}", file=sys.stderr, flush=True)


async def tour(folder: Path | None) -> None:
    """Home, the five steps, the run, its end, and the pages beside them: PNGs in `screenshots/`, or SVGs in `folder`."""
    app = FinetuiApp(demo=True)
    async with app.run_test(size=WIDE) as pilot:
        camera = Photographer(app, pilot, folder)
        await camera.until(lambda: app.screen.query("#menu"))
        await pilot.pause(3.0)
        await camera.take("home", WIDE)
        await pilot.press("l")
        await pilot.pause(1.0)
        await camera.take("learn", WIDE)
        await pilot.press("escape")
        await pilot.press("d")
        for step in ("model", "dataset", "lora", "training"):
            await camera.at(step)
            await pilot.pause(4.0)
            if step == "dataset":  # its rows are counted under the model's own tokenizer
                await camera.until(lambda: app.wizard.inspection.complete is not None)
            await camera.take("plan" if step == "training" else step, WIDE, SMALL)
            if step == "dataset":
                for key, name in (("f3", "rows"), ("f4", "ledger")):
                    await pilot.press(key)
                    await pilot.pause(4.0)
                    await camera.take(name, WIDE, SMALL)
                    await pilot.press("escape")
                    await camera.at("dataset")
            await pilot.press("enter")
        await camera.until(lambda: isinstance(app.screen, RunScreen))
        screen = app.screen
        assert isinstance(screen, RunScreen)
        await camera.until(
            lambda: screen.status and screen.status.step >= screen.status.total_steps * 0.75 > 0
        )
        await camera.take("training", WIDE, SMALL)
        await camera.until(lambda: screen.status and screen.status.state in ENDED)
        await pilot.pause(3.0)
        await camera.take("finished", WIDE, SMALL)
        await pilot.press("e")
        await pilot.pause(3.0)
        await camera.take("export", WIDE)


def main() -> None:
    folder = Path(sys.argv[1]) if sys.argv[1:] else None
    (folder or TARGET).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("FINETUI_HOME", home)
        os.environ["COLORTERM"] = "truecolor"
        asyncio.run(tour(folder))


main()
