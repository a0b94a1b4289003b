"""All runs in one table, and some of them side by side."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from finetui.core.demo.recipe import demo_recipe
from finetui.core.errors import FinetuiError
from finetui.core.runs import (
    care,
    checkpoints,
    chosen,
    compare,
    event_log,
    events,
    launch,
    queue,
    summary,
    turns,
)
from finetui.core.runs.summary import Summaries, Summary
from finetui.tui.screens.compare import CompareScreen
from finetui.tui.screens.run import RunScreen
from finetui.tui.screens.runs import RunsScreen
from finetui.tui.widgets.dashboard import panes
from finetui.tui.widgets.dashboard.story import Story

from . import recorded
from .command_line import finetui
from .driving import SIZES, home, press, seen, until, wizard
from .recorded import Recording
from .run_screen import worker

__all__ = ["home", "worker"]


def made(name: str, steps: int, rate: float = 1e-3) -> Recording:
    """A finished run with its own learning rate."""
    recipe = demo_recipe()
    training = recipe.training.model_copy(update={"learning_rate": rate})
    recording = recorded.new(recipe.model_copy(update={"name": name, "training": training}))
    recording.add(events.Started("train", 2**22 - 3, 1.0, recorded.manifest.this_host(), name))
    recording.add(*recorded.samples(0)).train(1, steps)
    return recording.add(events.Ended("train", "completed", 3.0 * steps))


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
async def test_runs_are_sorted_filtered_marked_and_compared(size: tuple[int, int]) -> None:
    made("alpha", 60)
    made("beta", 20, 2e-4)
    made("gamma", 40)
    async with wizard(size) as (app, pilot):
        await press(pilot, "r")
        screen = app.screen
        assert isinstance(screen, RunsScreen)
        await until(pilot, lambda: len(screen.shown_keys()) == 3, "for the runs")
        assert "3 runs" in seen(app) and "gamma" in seen(app) and "60/74" in seen(app)
        await press(pilot, "o", "o", "o", "o")  # by the best held-out loss
        assert screen.order == "best" and [one.name for one in screen.shown] == ["alpha", "gamma", "beta"]
        await press(pilot, "O")
        assert [one.name for one in screen.shown] == ["beta", "gamma", "alpha"]
        await press(pilot, "slash", *"best<0.42")
        await until(pilot, lambda: [one.name for one in screen.shown] == ["alpha"], "for the filter")
        await press(pilot, "enter", "escape")
        assert len(screen.shown) == 3
        await press(pilot, "c")
        assert app.screen is screen  # nothing is marked
        await press(pilot, "up", "up", "space", "space", "c")
        compared = app.screen
        assert isinstance(compared, CompareScreen)
        await until(
            pilot, lambda: len(compared.compared) == 2 and "Learning rate" in seen(app), "for the runs"
        )
        text = seen(app)
        assert "0.0002" in text and "0.001" in text and "Loss" in text
        drawn = [line.partition("│")[2] or line.partition("┤")[2] for line in text.splitlines()]
        for number in "12":  # a curve is told by its number, not by its colour alone
            assert any(number in line for line in drawn), text
        assert re.search(r"^ *Recipes +1 +2 *$", text, re.MULTILINE), text
        await press(pilot, "c", "x", "l", "escape")
        assert app.screen is screen
        await press(pilot, "up", "up", "enter")
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "for the run")


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
async def test_compared_runs_of_one_name_are_told_apart(size: tuple[int, int]) -> None:
    name = "kiosk-helper-on-all-messages"
    for begins in ("20260102-101112", "20260203-101112"):
        run = made(name, 20).run
        old = run.path.rename(run.path.with_name(f"{begins}-{name}"))
    shutil.copytree(old, old.with_name(f"{old.name}-2"))
    made("other", 20)
    async with wizard(size) as (app, pilot):
        await until(pilot, lambda: "other" in seen(app), "for the runs")
        app.push_screen(CompareScreen(Summaries().read()))
        await until(pilot, lambda: "4 ━" in seen(app), "for what was read")
        told = re.findall(r"^ *\d ━ (.+?)  completed", seen(app), re.MULTILINE)
    assert told[0] == "other"
    for words, stamp in zip(
        told[1:], ("20260203-101112-2", "20260203-101112", "20260102-101112"), strict=True
    ):
        assert words.startswith("kio") and words.endswith(f" {stamp}")


async def test_a_run_without_a_checkpoint_is_offered_no_resume(worker: subprocess.Popen[bytes]) -> None:
    """And an empty filter says how to leave it, one that is paused that it is."""
    failed = recorded.new().started().add(events.Ended("train", "failed", 9.0, "It broke."))
    live = recorded.new().started(worker.pid).ready().train(1, 5, every=0).add(events.Paused(5))
    async with wizard((120, 36)) as (app, pilot):
        await press(pilot, "r")
        screen = app.screen
        assert isinstance(screen, RunsScreen)
        await until(pilot, lambda: len(screen.shown_keys()) == 2 and "paused" in seen(app), "for the runs")
        screen.table.move_cursor(row=screen.shown_keys().index(failed.run.id))
        await pilot.pause()
        assert not screen.check_action("act", ("resume",)) and screen.check_action("act", ("failure",))
        failed.add(events.Checkpoint(5, "checkpoints/checkpoint-5"))
        await until(pilot, lambda: screen.check_action("act", ("resume",)), "for the checkpoint")
        await press(pilot, "slash", *"nosuch")
        await until(pilot, lambda: "Esc shows all" in seen(app), "for the way out")
        await press(pilot, "enter", "escape")
        assert live.run.id in screen.shown_keys()


def test_summaries_are_kept_until_a_file_changes(tmp_path: Path) -> None:
    first, second = made("one", 20), made("two", 20)
    found = Summaries().read()
    assert {one.name for one in found} == {"one", "two"} and all(one.bytes > 0 for one in found)
    kept = json.loads((tmp_path / "home" / "cache" / "runs.json").read_text())
    for entry in kept["runs"].values():  # what is kept is believed
        entry["is"]["model"] = "kept"
    (tmp_path / "home" / "cache" / "runs.json").write_text(json.dumps(kept))
    care.label(first.run, title="renamed", add_tags=["best"])
    again = {one.run: one for one in Summaries().read()}
    assert again[second.run.id].model == "kept"
    assert again[first.run.id].model == "demo" and again[first.run.id].name == "renamed"
    (tmp_path / "home" / "cache" / "runs.json").write_text("no json")
    assert len(Summaries().read()) == 2


@pytest.mark.parametrize("title", ["nan", "inf", "-inf"])
def test_a_name_that_reads_as_a_number_stays_a_name(title: str) -> None:
    run = made("one", 20).add(recorded.step(21, 74, float(title))).run
    care.label(run, title=title, add_tags=["nan"])
    first, again = Summaries().read(), Summaries().read()
    assert repr(first) == repr(again) and again[0].name == title and again[0].tags == ("nan",)
    assert repr(again[0].loss) == title
    assert [one.name for one in summary.matching(summary.ordered(again, "name"), title)] == [title]


def test_a_run_that_was_killed_while_it_waited_waits_no_more() -> None:
    run = made("one", 20).run
    waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        launch.sign(run, "resume", waiting.pid, time.time(), turns.HOW, None)
        with queue.changing() as places:
            places.append(queue.Place(str(run.path.absolute()), "resume"))
        summaries = Summaries()
        assert [one.state for one in summaries.read()] == ["queued"]
    finally:
        waiting.kill()
        waiting.wait()
    queue.leave(run)
    assert [one.state for one in (*summaries.read(), *Summaries().read())] == ["crashed", "crashed"]


async def test_a_run_that_cannot_be_read_hides_no_other(home: Path) -> None:
    worker = recorded.sleeper()
    try:
        at_work = recorded.new().started(worker.pid).ready().train(1, 9)
        lost = made("lost", 20)
        content = lost.run.events.read_bytes()
        lost.run.events.unlink()
        lost.run.events.mkdir()  # what a disk refuses in any other way goes the same way
        summaries = Summaries()
        found = {one.run: one for one in summaries.read()}
        card = found[lost.run.id].card
        assert card is not None and "cannot be read" in card.what and found[at_work.run.id].state == "running"
        listed = finetui("runs")
        assert (
            listed.returncode == 0 and at_work.run.id in listed.stdout and "cannot be read" in listed.stdout
        )
        assert finetui("runs", "--sort", "name").returncode == 0
        assert finetui("clean").returncode == 0
        named = finetui("attach", lost.run.id, "--plain")
        assert named.returncode == 6 and "cannot be read" in named.stderr
        async with wizard((120, 36)) as (app, pilot):
            await until(pilot, lambda: "Running" in seen(app) and "cannot be read" in seen(app), "for Home")
            await press(pilot, "r")
            screen = app.screen
            assert isinstance(screen, RunsScreen)
            await until(pilot, lambda: len(screen.shown_keys()) == 2, "for the runs")
            app.open_run(lost.run.path)
            await until(pilot, lambda: "cannot be read" in seen(app), "for the card")
        lost.run.events.rmdir()
        lost.run.events.write_bytes(content)
        assert {one.state for one in summaries.read()} == {"running", "completed"}
    finally:
        worker.kill()
        worker.communicate()


def test_after_a_resume_that_goes_back_all_say_the_same_best() -> None:
    recording = recorded.new().started().ready().train(1, 20, every=0)
    recording.add(events.Evaluation(20, 0.8)).train(21, 40, every=0).add(events.Evaluation(40, 0.5))
    recording.started(job="resume").train(21, 30, every=0).add(events.Evaluation(30, 0.85))
    recording.train(31, 34, every=0).add(events.Ended("resume", "stopped", 40.0))
    for step in (10, 20, 30):
        folder = recording.run.checkpoints / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_text("w")
        checkpoints.seal(folder)
    (one,) = Summaries().read()
    story = Story()
    story.extend(event_log.read_all(recording.run.events))
    assert (one.best, one.best_evaluation_step) == (0.8, 20) and story.curves.best == (20.0, 0.8)
    assert any("best 0.800 at 20" in line.plain for line in panes.figures(story, 120, 2))
    assert [path.name for path in care.cleaning(recording.run).kept] == ["checkpoint-20", "checkpoint-30"]
    assert chosen.told(recording.run)[1] == {20: 0.8, 30: 0.85}


async def test_an_export_makes_no_completed_run_of_one_that_was_stopped() -> None:
    recording = made("alpha", 20)
    recording.add(
        events.Checkpoint(20, "checkpoints/checkpoint-20"),
        events.Started("train", 2**22 - 3, 1.0, recorded.manifest.this_host(), "alpha"),
    ).train(1, 10)
    recording.add(events.Ended("train", "stopped", 9.0))
    recording.add(events.Started("export", 2**22 - 3, 1.0, recorded.manifest.this_host(), "alpha"))
    recording.add(events.Ended("export", "completed", 3.0))
    (told,) = Summaries().read()
    assert told.state == "stopped"
    async with wizard() as (app, pilot):
        await until(pilot, lambda: "stopped" in seen(app), "for Home")
        app.open_run(recording.run.path)
        await until(pilot, lambda: "stopped" in seen(app).partition("\n")[0], "for the run")
        await until(
            pilot, lambda: "Stopped. Loss" in seen(app) and "ompleted" not in seen(app), "for the result"
        )


def test_what_is_not_known_comes_last_and_words_are_all_needed() -> None:
    some = [
        Summary(
            "20260101-000000-a",
            "a",
            "completed",
            loss=0.5,
            best_evaluation_loss=float("nan"),
            model="org/llama",
        ),
        Summary("20260102-000000-b", "b", "failed", tags=("night",)),
        Summary("20260103-000000-c", "c", "running", loss=0.2, evaluation_loss=0.3, model="org/llama"),
    ]
    assert [one.name for one in summary.ordered(some, "newest")] == ["c", "b", "a"]
    assert [one.name for one in summary.ordered(some, "loss")] == ["c", "a", "b"]
    assert [one.name for one in summary.ordered(some, "loss", reverse=True)] == ["a", "c", "b"]
    assert [one.name for one in summary.ordered(some, "best")][0] == "c"
    assert [one.name for one in summary.matching(some, "llama running")] == ["c"]
    assert [one.name for one in summary.matching(some, "#night")] == ["b"]
    assert [one.name for one in summary.matching(some, "loss<0.4")] == ["c"]
    assert summary.matching(some, "loss<x") == []


def test_differences_and_answers_of_two_runs() -> None:
    runs = [compare.read(made("one", 20).run), compare.read(made("two", 40, 5e-4).run)]
    assert [one.curves.newest for one in runs] == [20, 40]
    different = {one.path: one.values for one in compare.differences(runs)}
    assert different == {"training.learning_rate": ("0.001", "0.0005")}
    assert runs[0].answers[recorded.PROMPTS[0]] == recorded.ANSWERS[0]
    one, two = (one.recipe for one in runs)
    assert one is not None and two is not None
    section = two.lora.model_copy(update={"rslora": True})
    told = compare.differences([runs[0], replace(runs[1], recipe=one.model_copy(update={"lora": section}))])
    assert told[0].values == ("off", "on")
    for count in (1, 7):
        with pytest.raises(FinetuiError):
            compare.check(count)


def test_the_command_line_sorts_filters_and_compares(tmp_path: Path) -> None:
    made("alpha", 60)
    made("beta", 20, 2e-4)

    def told(*words: str) -> str:
        command = [sys.executable, "-m", "finetui.tui", *words]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ, timeout=120
        ).stdout

    rows = json.loads(told("runs", "--sort", "best", "--json"))
    assert [row["name"] for row in rows] == ["alpha", "beta"] and rows[0]["best_evaluation_step"] == 60
    assert "alpha" not in told("runs", "--filter", "beta")
    text = told("compare", "alpha", "beta")
    assert "Learning rate" in text and "2: 0.0002" in text and recorded.ANSWERS[0][:30] in text
    assert len(json.loads(told("compare", "alpha", "beta", "--json"))["differences"]) == 1
