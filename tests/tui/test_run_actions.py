"""What can be done with a run from the runs browser and from its dashboard, with its keys."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetui.core import recipe_file
from finetui.core.demo.recipe import demo_recipe
from finetui.core.recipe import Recipe
from finetui.core.runs import care, checkpoints, control, events, launch, lineage, manifest, queue, store
from finetui.tui.modals.actions import ActionsModal
from finetui.tui.modals.confirm import ConfirmModal
from finetui.tui.modals.failure import FailureModal
from finetui.tui.modals.text import TextModal
from finetui.tui.screens.run import RunScreen
from finetui.tui.screens.run_export import RunExportScreen
from finetui.tui.screens.runs import RunsScreen
from finetui.tui.widgets.footer import MOST, Footer

from . import recorded
from .driving import SIZES, press, seen, type_over, until, wizard
from .recorded import Recording
from .run_screen import worker

__all__ = ["worker"]


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A home of its own, a CPU to train on, and a worker that ends at once: what is started is looked at, not trained."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    monkeypatch.setenv("UNSLOTH_FORCE_CPU", "1")
    monkeypatch.setattr(launch, "WORKER_MODULE", "json.tool")
    monkeypatch.chdir(tmp_path)
    yield


def of(**changes: object) -> Recipe:
    recipe = demo_recipe()
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})


def made(recipe: Recipe, *end: events.Event, checkpoint: int = 0) -> Recording:
    """A run of `recipe` that trained for 45 steps and then met `end`."""
    recording = recorded.new(recipe).started().ready().train(1, 45, every=0)
    recording.run.adapter.mkdir()
    for step in range(10, checkpoint + 1, 10):
        folder = recording.run.checkpoints / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_bytes(b"w" * 2000)
        checkpoints.seal(folder)
        recording.add(events.Checkpoint(step, f"checkpoints/checkpoint-{step}"))
    return recording.add(*end)


def out_of_memory() -> events.Ended:
    return events.Ended("train", "failed", 9.0, "The GPU ran out of memory.", "2 GiB", "Less.", "gpu-memory")


def others(*known: Recording) -> list[store.RunFolder]:
    return [run for run in store.all_runs() if run.path not in {one.run.path for one in known}]


async def browser(app, pilot) -> RunsScreen:
    await press(pilot, "r")
    screen = app.screen
    assert isinstance(screen, RunsScreen)
    await until(pilot, lambda: screen.shown_keys() and screen.chosen, "for the runs")
    return screen


async def modal(app, pilot, kind: type) -> None:
    await until(pilot, lambda: isinstance(app.screen, kind) and app.focused, f"for {kind.__name__}")


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
async def test_a_failed_run_is_tried_again_with_the_fix_on_one_key(size: tuple[int, int]) -> None:
    old = made(of(batch_size=8, gradient_accumulation_steps=1), out_of_memory(), checkpoint=40)
    before = {path: path.read_bytes() for path in old.run.path.rglob("*") if path.is_file()}
    async with wizard(size) as (app, pilot):
        screen = await browser(app, pilot)
        footer = seen(app).splitlines()[-1]
        assert "m Actions" in footer and "? Help" in footer and "q Quit" in footer
        assert len(screen.query_one(Footer)._shown) <= MOST
        await press(pilot, "f")
        await modal(app, pilot, FailureModal)
        text = seen(app)
        for words in (
            "The GPU ran out of memory.",
            "- training.batch_size: 8",
            "+ training.batch_size: 4",
            "step 40",
        ):
            assert words in text, text
        assert "Retry with the fix" in text and "Close" in text
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "for the new run")
        (new,) = others(old)
        assert isinstance(app.screen, RunScreen) and app.screen.run.path == new.path
        assert lineage.origin(new) == lineage.Origin(old.run.id, "retry", 40)
        training = recipe_file.load(new.recipe).training
        assert (training.batch_size, training.gradient_accumulation_steps) == (4, 2)
        assert {path: path.read_bytes() for path in old.run.path.rglob("*") if path.is_file()} == before


async def test_the_dashboard_retries_with_the_same_key_and_has_all_actions_in_a_menu() -> None:
    nan = events.Ended(
        "train", "failed", 9.0, "The loss became NaN at step 45.", "Too high.", "A third.", "loss-nan"
    )
    old = made(of(learning_rate=3e-3), nan, checkpoint=40)
    async with wizard() as (app, pilot):
        app.open_run(old.run.path)
        await until(pilot, lambda: "retry with the fix" in seen(app), "for the card")
        await press(pilot, "f")
        await modal(app, pilot, FailureModal)
        assert "+ training.learning_rate: 0.001" in seen(app) and "from the beginning" in seen(app)
        await press(pilot, "b")
        await until(pilot, lambda: getattr(app.screen, "step", "") == "training", "for the settings")
        assert app.wizard.draft.recipe().training.learning_rate == 1e-3
        assert app.wizard.origin == lineage.Origin(old.run.id, "retry")
    async with wizard() as (app, pilot):
        app.open_run(old.run.path)
        await until(pilot, lambda: "retry with the fix" in seen(app), "for the card")
        await press(pilot, "m")
        await modal(app, pilot, ActionsModal)
        assert "Delete" in seen(app) and "Train longer" not in seen(app)
        await press(pilot, "n")
        await modal(app, pilot, TextModal)
        await type_over(pilot, "Kiosk [bold]7")
        await press(pilot, "enter")
        await until(pilot, lambda: care.labels(old.run).title == "Kiosk [bold]7", "for the name")


FULL = ("The disk is full.", "The export did not fit.", "Free some space.", "no-space")
MADE_LATER = (
    events.Ended("train", "completed", 9.0),
    events.Started("export", 2**22 - 3, 1.0, manifest.this_host(), "demo"),
    events.Progress("export", 0, 1, "formats"),
    events.Ended("export", "failed", 1.0, *FULL),
)
AT_ITS_END = (events.Progress("export", 0, 1, "formats"), events.Ended("train", "failed", 9.0, *FULL))


@pytest.mark.parametrize("end", [MADE_LATER, AT_ITS_END], ids=["made later", "at the end of the training"])
async def test_an_export_that_failed_is_changed_on_the_export_and_not_in_the_wizard(
    end: tuple[events.Event, ...],
) -> None:
    old = made(of(), *end, checkpoint=40)
    (old.run.adapter / "adapter_model.safetensors").write_bytes(b"w")
    async with wizard() as (app, pilot):
        app.open_run(old.run.path)
        await until(pilot, lambda: "change and retry: Export" in seen(app), "for the way")
        dashboard = app.screen
        await press(pilot, "b")
        await until(pilot, lambda: isinstance(app.screen, RunExportScreen), "for the export")
        await press(pilot, "escape")
        await until(pilot, lambda: app.screen is dashboard, "for the run")
        await press(pilot, "f")
        await modal(app, pilot, FailureModal)
        await press(pilot, "b")
        await until(pilot, lambda: isinstance(app.screen, RunExportScreen), "for the export")


async def test_only_a_run_with_an_adapter_is_one_to_start_from() -> None:
    old = made(of(), events.Ended("train", "failed", 9.0, "It broke."), checkpoint=40)
    async with wizard() as (app, pilot):
        screen = await browser(app, pilot)
        await press(pilot, "m")
        await modal(app, pilot, ActionsModal)
        assert "Duplicate" in seen(app) and "From its adapter" not in seen(app)
        await press(pilot, "escape")
        (old.run.adapter / "adapter_model.safetensors").write_bytes(b"w")
        await until(pilot, lambda: screen.check_action("act", ("onward",)), "for the adapter")
        await press(pilot, "m")
        await modal(app, pilot, ActionsModal)
        assert "From its adapter" in seen(app)


REQUESTED = {"p": "pause", "S": "save", "v": "evaluate", "w": "sample"}
TITLES = ("Pause", "Save now", "Evaluate now", "Sample now", "asks first, and what to keep")


async def in_menu(app, pilot, key: str) -> None:
    await press(pilot, "m")
    await modal(app, pilot, ActionsModal)
    await press(pilot, key)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
async def test_what_a_run_at_work_is_asked_for_is_in_its_menu(
    size: tuple[int, int], worker: subprocess.Popen[bytes]
) -> None:
    """From the dashboard and from the browser, by the keys that the dashboard has for it; and only where it applies."""
    live = recorded.new(of()).started(worker.pid).ready().train(1, 5, every=0)
    asked = lambda: set(control.pending(live.run))  # noqa: E731
    async with wizard(size) as (app, pilot):
        for open_it in (lambda: app.open_run(live.run.path), lambda: app.push_screen(RunsScreen())):
            control.clear(live.run)
            open_it()
            await until(pilot, lambda: "5/74" in seen(app), "for the run")
            place = app.screen
            await press(pilot, "m")
            await modal(app, pilot, ActionsModal)
            text = seen(app)
            assert all(title in text for title in TITLES) and "Go on" not in text, text
            assert "Resume" not in text and "Delete" not in text, text
            await press(pilot, "escape")
            for key, name in REQUESTED.items():
                await in_menu(app, pilot, key)
                await until(pilot, lambda name=name: name in asked(), f"for {name}")
            await until(pilot, lambda place=place: app.screen is place, "for the place")
            live.add(events.Paused(5))
            await until(pilot, lambda place=place: is_paused(place), "for the pause to be seen")
            await in_menu(app, pilot, "p")
            await until(pilot, lambda: "continue" in asked() and "pause" not in asked(), "to go on")
            await press(pilot, "p")  # the same key without the menu
            await in_menu(app, pilot, "s")
            await modal(app, pilot, ConfirmModal)
            await press(pilot, "enter")
            await until(pilot, lambda: "stop" in asked(), "for the stop")
            await in_menu(app, pilot, "s")
            await modal(app, pilot, ConfirmModal)
            await press(pilot, "right", "enter")
            await until(pilot, lambda: "stop-now" in asked(), "for the stop without a save")
            live.add(events.Continued(5, 1.0))
            await until(pilot, lambda place=place: not is_paused(place), "to be seen to go on")
        live.add(events.Ended("train", "stopped", 9.0))
        worker.kill()
        worker.wait()
        await until(pilot, lambda: "stopped" in seen(app), "for its end")
        await press(pilot, "m")
        await modal(app, pilot, ActionsModal)
        assert not any(title in seen(app) for title in TITLES)


def is_paused(place: object) -> bool:
    if isinstance(place, RunScreen):
        return place.status is not None and place.status.paused
    assert isinstance(place, RunsScreen)
    return place.chosen is not None and place.chosen.paused


async def test_where_no_step_comes_a_run_can_only_be_stopped(worker: subprocess.Popen[bytes]) -> None:
    """In an export of its own and in one at the end of a training, from the dashboard and from the browser."""
    later = made(of(), events.Ended("train", "completed", 9.0), checkpoint=40)
    later.started(worker.pid, job="export").add(events.Progress("export", 0, 2, "formats"))
    same = recorded.new(of()).started(worker.pid).ready().train(1, 74, every=0)
    same.add(events.Progress("export", 0, 2, "formats"))
    async with wizard() as (app, pilot):
        for live in (later, same):
            for open_it in (
                lambda live=live: app.open_run(live.run.path),
                lambda: app.push_screen(RunsScreen()),
            ):
                open_it()
                await until(pilot, lambda: "exporting" in seen(app) or "74/74" in seen(app), "for the export")
                if isinstance(app.screen, RunsScreen):
                    row = app.screen.shown_keys().index(live.run.id)
                    app.screen.table.move_cursor(row=row)
                    await pilot.pause()
                await press(pilot, "p", "S", "v", "w", "m")
                await modal(app, pilot, ActionsModal)
                assert [title for title in TITLES if title in seen(app)] == ["asks first, and what to keep"]
                await press(pilot, "s")
                await modal(app, pilot, ConfirmModal)
                await until(pilot, lambda: "What is done is kept" in seen(app), "for the question")
                assert "Save and stop" not in seen(app)
                await press(pilot, "escape")
                assert control.pending(live.run) == ()
                app.go_home()


async def test_a_run_is_named_tagged_noted_and_archived_from_the_browser() -> None:
    recording = made(of(), events.Ended("train", "completed", 9.0))
    async with wizard() as (app, pilot):
        screen = await browser(app, pilot)
        for key, text in (("n", "Kiosk"), ("t", "gpu v2"), ("e", "too many epochs")):
            await press(pilot, key)
            await modal(app, pilot, TextModal)
            await type_over(pilot, text)
            await press(pilot, "enter")
            await until(pilot, lambda: app.screen is screen, "for the browser")
        await until(pilot, lambda: care.labels(recording.run).note == "too many epochs", "for the note")
        assert care.labels(recording.run).tags == ("gpu", "v2")
        await until(pilot, lambda: "Kiosk" in seen(app), "for the name")
        await press(pilot, "t")
        await modal(app, pilot, TextModal)
        await type_over(pilot, "v2")
        await press(pilot, "enter")
        await until(pilot, lambda: care.labels(recording.run).tags == ("v2",), "for the tag to go")
        await press(pilot, "x")
        await until(pilot, lambda: not screen.shown_keys(), "for the archive")
        await press(pilot, "n", "f", "delete")
        assert app.screen is screen, "nothing is under the cursor"
        await press(pilot, "z", "x")
        await until(pilot, lambda: not care.labels(recording.run).archived, "for it to come back")


async def test_cleaning_and_deleting_say_what_they_free_and_ask() -> None:
    recording = made(of(), events.Ended("train", "completed", 9.0), checkpoint=40)
    async with wizard() as (app, pilot):
        screen = await browser(app, pilot)
        await press(pilot, "k")
        await modal(app, pilot, ConfirmModal)
        assert "checkpoint-40" in seen(app) and "KiB" in seen(app)
        await press(pilot, "enter")
        await until(pilot, lambda: len(list(recording.run.checkpoints.iterdir())) == 1, "for the cleaning")
        await until(pilot, lambda: app.screen is screen, "for the browser")
        await press(pilot, "delete")
        await modal(app, pilot, ConfirmModal)
        assert "checkpoints 2." in seen(app) and "Keep it" in seen(app)
        await press(pilot, "enter")  # what has the focus keeps it
        assert recording.run.path.exists()
        await press(pilot, "delete")
        await modal(app, pilot, ConfirmModal)
        await press(pilot, "right", "enter")
        await until(
            pilot, lambda: not recording.run.path.exists() and not screen.shown_keys(), "for it to go"
        )


async def test_a_start_beside_another_run_waits_in_the_queue_where_that_is_chosen() -> None:
    recording = made(of(), events.Ended("train", "completed", 9.0))
    slot = queue.use(queue.CPU)
    assert slot is not None
    async with wizard() as (app, pilot):
        await browser(app, pilot)
        await press(pilot, "d")
        await until(pilot, lambda: getattr(app.screen, "step", "") == "model", "for the wizard")
        assert app.wizard.draft.recipe() == recipe_file.load(recording.run.recipe)
        await until(pilot, lambda: not app.wizard.model_busy and not app.wizard.dataset_busy, "for the facts")
        app.go("training")
        await until(pilot, lambda: getattr(app.screen, "step", "") == "training", "for the step")
        app.start_run()
        await modal(app, pilot, ConfirmModal)
        text = seen(app)
        assert "Wait in the queue" in text and "Start anyway" in text and "Cancel" in text
        await press(pilot, "escape")
        assert not others(recording)
        app.start_run()
        await modal(app, pilot, ConfirmModal)
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "for the run")
        (new,) = others(recording)
        assert queue.position(new) == 1 and lineage.origin(new) == lineage.Origin(recording.run.id, "copy")
        told = manifest.read(new)
        assert told is not None and told.how == "queued"
        await until(
            pilot, lambda: "Waiting in the queue" in seen(app) and "place 1" in seen(app), "for its place"
        )
        slot.close()


async def test_a_free_machine_asks_nothing() -> None:
    recording = made(of(), events.Ended("train", "completed", 9.0))
    async with wizard() as (app, pilot):
        await browser(app, pilot)
        await press(pilot, "d")
        await until(pilot, lambda: getattr(app.screen, "step", "") == "model", "for the wizard")
        app.start_run()
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "for the run")
        (new,) = others(recording)
        told = manifest.read(new)
        assert told is not None and told.how == "cold" and queue.places() == ()


async def test_resuming_over_changed_rows_asks_first(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    recipe = of()
    section = recipe.dataset.model_copy(update={"source": str(rows)})
    recording = made(recipe.model_copy(update={"dataset": section}), checkpoint=40)
    launch.sign(recording.run, "train", 2**22 - 3, 1.0, "cold", None)
    recording.add(events.Ended("train", "stopped", 9.0))
    rows.write_text('{"prompt": "c", "completion": "d"}\n')
    async with wizard() as (app, pilot):
        screen = await browser(app, pilot)
        await press(pilot, "r")
        await modal(app, pilot, ConfirmModal)
        assert "rows.jsonl has changed" in seen(app)
        await press(pilot, "enter")
        told = manifest.read(recording.run)
        assert told is not None and told.starts == 1, "the answer in focus leaves it"
        await press(pilot, "r")
        await modal(app, pilot, ConfirmModal)
        await press(pilot, "right", "enter")
        await until(
            pilot, lambda: (m := manifest.read(recording.run)) and m.anyway and m.job == "resume", "to go on"
        )
        assert app.screen is screen
