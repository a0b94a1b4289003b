"""The whole wizard, by keys, over a real worker: real Unsloth on a tiny random model."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from finetui.core.draft import Draft
from finetui.core.recipe import (
    DatasetSection,
    ExportSection,
    LoraSection,
    ModelSection,
    Recipe,
    TrainingSection,
)
from finetui.core.runs import state, store
from finetui.tui.screens.run import RunScreen
from finetui.tui.screens.run_export import RunExportScreen
from tests import waiting
from tests.worker import tiny

from .driving import at_step, press, seen, type_over, until, wizard

SECONDS = 240
"""A loaded machine takes minutes for what takes seconds."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a tiny model and forty rows, and a home of its own. No worker outlives the test."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("UNSLOTH_FORCE_CPU", "1")
    tiny.make(tmp_path / "model")
    tiny.write_rows(tmp_path / "rows.jsonl", 40)
    yield tmp_path
    for run in store.all_runs():
        now = state.status(run)
        if now.live and now.pid:
            os.kill(now.pid, signal.SIGKILL)


async def long(pilot: Pilot[int], check: Callable[[], object], what: str) -> None:
    """As `until`, with the patience that a worker needs."""
    end = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < end, f"waited in vain {what}\n{seen(pilot.app)}"  # type: ignore[arg-type]
        assert not isinstance(pilot.app.screen, RunScreen) or not _broke(pilot.app.screen), seen(pilot.app)  # type: ignore[arg-type]
        await pilot.pause(0.05)


def _broke(screen: RunScreen) -> bool:
    return screen.status is not None and screen.status.state in ("failed", "crashed")


async def test_by_keys_from_home_to_a_finished_run_and_one_more_export(place: Path) -> None:
    async with wizard((80, 24)) as (app, pilot):
        await press(pilot, "n")
        await at_step(app, pilot, "model")
        await press(pilot, "slash")
        await type_over(pilot, str(place / "model"))
        await press(pilot, "enter")
        await at_step(app, pilot, "dataset")
        while app.screen.picker.kind != "file":  # type: ignore[attr-defined]
            await press(pilot, "right")
        await press(pilot, "down")
        await type_over(pilot, str(place / "rows.jsonl"))
        await until(pilot, lambda: app.wizard.dataset_facts is not None, "for the dataset")
        await press(pilot, "enter")
        await at_step(app, pilot, "lora")
        await press(pilot, "enter")
        await at_step(app, pilot, "training")
        plan = app.wizard.plan()
        assert plan is not None and plan.words[:20] in " ".join(seen(app).split())
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "for the run's screen")
        screen = app.screen
        assert isinstance(screen, RunScreen)
        await long(
            pilot, lambda: screen.status is not None and screen.status.state == "completed", "for the end"
        )
        await until(pilot, lambda: screen.caught_up and "completed" in seen(app), "for the result")
        assert screen.status is not None and screen.status.step == plan.steps
        assert screen.story.curves.steps == plan.steps and screen.story.asked
        assert (screen.run.adapter / "adapter_model.safetensors").is_file()
        await until(pilot, lambda: "completed" in seen(app) and "copies" in seen(app), "for the command")

        await press(pilot, "e")
        more = app.screen
        assert isinstance(more, RunExportScreen)
        await until(pilot, lambda: more.caught_up and more.known.recipe is not None, "for the formats")
        more.ticked.clear()
        while app.screen.query_one("#formats").highlighted != 1:  # type: ignore[attr-defined]
            await press(pilot, "up")
        await press(pilot, "space", "enter")
        assert more.ticked == {"merged"}
        await long(pilot, lambda: "merged" in more.story.exports and not more.live, "for the export")
        await until(pilot, lambda: "→" in seen(app), "for its size")
        assert (more.run.path / more.story.exports["merged"].path / "config.json").is_file()


class Tmux:
    """One terminal of its own in a tmux server of its own."""

    def __init__(self, place: Path) -> None:
        self.socket = f"finetui-test-{uuid.uuid4().hex[:8]}"
        self.place = place
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "-s", "t", "sh")

    def tmux(self, *words: str) -> str:
        environment = {**os.environ, "TMUX": "", "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
        done = subprocess.run(
            ["tmux", "-u", "-L", self.socket, *words],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
            timeout=60,
        )
        return done.stdout

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-t", "t")

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", "-t", "t", *keys)

    def start(self) -> None:
        """A fresh shell that runs the wizard, and stays when it ends."""
        command = (
            f"cd {shlex.quote(str(self.place))} && {shlex.quote(sys.executable)} -m finetui.tui; exec sh"
        )
        self.tmux("respawn-pane", "-k", "-t", "t", command)

    def wait(self, *wanted: str) -> str:
        """Waits until all of `wanted` are on the screen."""
        end = time.monotonic() + SECONDS
        while True:
            shown = self.screen()
            if all(words in shown for words in wanted):
                return shown
            assert time.monotonic() < end, f"waited in vain for {wanted}\n{shown}"
            time.sleep(0.3)

    def wizard_pid(self) -> int:
        """The wizard's process: the shell's child."""
        shell = int(self.tmux("display-message", "-p", "-t", "t", "#{pane_pid}").strip())
        import psutil

        (child,) = psutil.Process(shell).children()
        return child.pid

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def terminal(place: Path) -> Iterator[Tmux]:
    made = Tmux(place)
    yield made
    made.close()


def test_in_a_real_terminal_a_run_outlives_the_killed_wizard_and_the_next_one_attaches(
    place: Path, terminal: Tmux
) -> None:
    Draft(
        Recipe(
            name="tiny",
            model=ModelSection(source=str(place / "model"), max_length=64),
            dataset=DatasetSection(source=str(place / "rows.jsonl"), evaluation_share=0.1),
            lora=LoraSection(rank=4, alpha=8, gradient_checkpointing=False),
            training=TrainingSection(
                epochs=1000, batch_size=2, evaluate_every_steps=0, save_every_steps=0, sample_count=1
            ),
            export=ExportSection(formats=("adapter",)),
        )
    ).save()
    terminal.start()
    terminal.wait("Continue your draft")
    for step in ("Precision", "Held-out share", "Rank", "Start training"):  # Enter five times trains
        terminal.keys("Enter")
        terminal.wait(step)
    terminal.keys("Enter")
    terminal.wait("step 1", "loss")
    run = store.all_runs()[0]
    worker = state.status(run).pid
    assert worker is not None

    os.kill(terminal.wizard_pid(), signal.SIGKILL)
    at = state.status(run).step
    waiting.until(lambda: state.status(run).step > at)
    assert state.status(run).live

    terminal.start()
    shown = terminal.wait("Running", "tiny")
    assert "Continue your draft" not in shown
    terminal.keys("End", "Up", "Up", "Enter")  # from Doctor over Learn to the running one
    terminal.wait("training", "s Stop")

    terminal.keys("q")
    terminal.wait("Detach", f"finetui attach {run.id}")
    terminal.keys("Enter")
    terminal.wait("goes on")
    assert state.status(run).live and state.status(run).pid == worker

    stopped = subprocess.run(
        [sys.executable, "-m", "finetui.tui", "stop", "last"], cwd=place, timeout=SECONDS
    )
    assert stopped.returncode == 0
    waiting.until(lambda: not state.status(run).live)
    assert state.status(run).state == "stopped" and state.status(run).checkpoint_step
