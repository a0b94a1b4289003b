"""Exports of a run that has learned something."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from finetui.core import export_record, recipe_file
from finetui.core.export import COMMON, FORMATS
from finetui.core.recipe import DatasetSection
from finetui.core.runs import checkpoints, events, manifest, state
from finetui.core.system import Gpu, Machine
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.confirm import ConfirmModal
from finetui.tui.screens.run import RunScreen
from finetui.tui.screens.run_export import RunExportScreen
from finetui.tui.widgets.menu import Menu

from ..core.test_export import LLAMA_8B
from ..worker import tiny
from ..worker.exporting import make_run
from . import recorded
from .driving import SIZES, home, press, seen, until
from .recorded import Recording

__all__ = ["home"]

both_sizes = pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])


@asynccontextmanager
async def exporting(
    recording: Recording, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[FinetuiApp, Pilot[Any], RunExportScreen]]:
    """The export screen over the run, all known."""
    app = FinetuiApp(attach=recording.run.path)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.caught_up, "for the run")
        below = app.screen
        assert isinstance(below, RunScreen)
        await until(pilot, lambda: below.known.recipe is not None, "for the recipe")
        await press(pilot, "e")
        screen = app.screen
        assert isinstance(screen, RunExportScreen)
        await until(pilot, lambda: screen.caught_up and screen.free_bytes is not None, "for the history")
        await pilot.pause()
        yield app, pilot, screen


def flat(app: FinetuiApp) -> str:
    return " ".join(seen(app).split())


@both_sizes
async def test_formats_with_sizes_and_what_is_there_already(size: tuple[int, int]) -> None:
    recording = recorded.new().started().ready().train(1, 74).finished()
    async with exporting(recording, size) as (app, pilot, screen):
        text = flat(app)
        for info in FORMATS.values():
            assert (info.title + " " in text) == info.common
        assert "The base model has 256.6 MiB" in text
        assert "✓ 138.1 MiB" in text and "✓ 20.9 MiB" in text
        assert re.search(r"GGUF F16 .*~2\d\d\.\d MiB", text) and re.search(
            r"GGUF Q4_K_M .*~\d+\.\d MiB", text
        )
        assert "256.6 MiB → 138.1 MiB" in text and "ollama create demo" in text
        assert screen.ticked == set()  # all that was asked for is there
        for _ in range(3):
            await press(pilot, "down")
        await until(
            pilot,
            lambda: "GGUF Q6_K: a little smaller" in flat(app) and "hardly measurable" in flat(app),
            "for the explanation",
        )


async def test_ticking_adds_up_and_nothing_ticked_starts_nothing() -> None:
    recording = recorded.new().started().ready().train(1, 74).finished()
    async with exporting(recording) as (app, pilot, screen):
        before = state.status(recording.run)
        await press(pilot, "enter")
        assert "Nothing is ticked yet" in flat(app)
        await press(pilot, "space")
        assert screen.ticked == {"merged"} and "1 ticked" in flat(app) and "free" in flat(app)
        await press(pilot, "space")
        assert screen.ticked == set()
        assert state.status(recording.run) == before and not recording.run.manifest.exists()


async def test_too_little_space_is_said_before_anything_starts() -> None:
    recording = recorded.new().started().ready().train(1, 74).finished()
    async with exporting(recording) as (app, pilot, screen):
        await press(pilot, "space")
        screen.free_bytes = 1024
        await press(pilot, "enter")
        assert "too little space" in flat(app) and not recording.run.manifest.exists()


async def test_an_export_that_cannot_be_done_ends_in_a_card_and_can_be_tried_again() -> None:
    """A real worker, on a run whose adapter is torn."""
    recording = recorded.new().started().ready().train(1, 3, every=0)
    recording.add(events.Checkpoint(3, "checkpoints/checkpoint-3"), events.Ended("train", "completed", 9.0))
    recording.run.adapter.mkdir()
    (recording.run.adapter / "adapter_model.safetensors").write_bytes(b"torn")
    async with exporting(recording) as (app, pilot, screen):
        assert screen.ticked == {"adapter"}
        await press(pilot, "enter")
        await until(pilot, lambda: manifest.read(recording.run) is not None, "for the worker")
        await until_long(
            pilot,
            lambda: screen.status is not None and screen.status.job == "export" and not screen.status.live,
        )
        await until(pilot, lambda: "✗" in flat(app), "for the card")
        assert (
            screen.status is not None and screen.status.state == "failed" and screen.status.card is not None
        )
        assert screen.status.card.what.split()[0] in flat(app)
        assert screen.check_action("start", ())
        await press(pilot, "escape")
        assert isinstance(app.screen, RunScreen)


async def test_a_run_that_has_saved_nothing_starts_no_worker() -> None:
    recording = recorded.new().started().ready().train(1, 3, every=0)
    recording.add(events.Checkpoint(3, "checkpoints/checkpoint-3"), events.Ended("train", "completed", 9.0))
    async with exporting(recording) as (app, pilot, screen):
        await press(pilot, "enter")
        await until(pilot, lambda: "There is nothing to export yet." in flat(app), "for the card")
        assert manifest.read(recording.run) is None and screen.check_action("start", ())


def with_weights(recording: Recording) -> None:
    """An adapter, a checkpoint of step 40 that is better, and a merged export of other weights."""
    run = recording.run
    for folder in (run.adapter, run.checkpoints / "checkpoint-40", run.exports / "merged"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
    checkpoints.seal(run.checkpoints / "checkpoint-40")
    recording.add(events.Evaluation(40, 0.01))


@both_sizes
async def test_the_less_common_ones_are_folded_away(size: tuple[int, int]) -> None:
    recording = recorded.new().started().ready().train(1, 74).finished()
    async with exporting(recording, size) as (app, pilot, screen):
        menu = screen.query_one("#formats", Menu)
        menu.highlight("more")
        await press(pilot, "space")
        assert screen.order == tuple(FORMATS)
        menu.highlight("gguf_iq4_xs")
        await until(pilot, lambda: "perplexity +3.7 %" in flat(app), "for the loss")
        await press(pilot, "space")
        menu.highlight("more")
        await press(pilot, "space")
        assert len(screen.order) == len(COMMON) + 1 and "GGUF IQ4_XS" in flat(app)
        assert "meanwhile)" in flat(app)  # the F16 file that it is quantized from


async def test_the_weights_can_be_chosen_and_are_named() -> None:
    recording = recorded.new().started().ready().train(1, 74).finished()
    with_weights(recording)
    async with exporting(recording, (120, 36)) as (app, pilot, _screen):
        await until(pilot, lambda: "what the run ended with" in flat(app), "for the result")
        await press(pilot, "w")
        await until(pilot, lambda: "what the run ended with" in flat(app), "for the last")
        await press(pilot, "w")
        await until(pilot, lambda: "Of step 40, a checkpoint" in flat(app), "for the best")


async def test_the_importance_matrix_is_turned_on_and_made(tmp_path: Path) -> None:
    """To its effect: a real worker quantizes with a matrix of the run's own rows."""
    base = tiny.make(tmp_path / "base", hidden=256, intermediate=512)
    recording = recorded.new().started().ready().train(1, 3, every=0)
    recording.add(events.Checkpoint(3, "checkpoints/checkpoint-3"), events.Ended("train", "completed", 9.0))
    run = recording.run
    data = DatasetSection(source=str(tiny.write_rows(tmp_path / "rows.jsonl", 10)))
    recipe = make_run(run.path, base).recipe.model_copy(update={"dataset": data})
    recipe_file.save(recipe, run.recipe)
    async with exporting(recording) as (app, pilot, screen):
        menu = screen.query_one("#formats", Menu)
        menu.highlight("adapter")
        await press(pilot, "space")
        menu.highlight("gguf_q3_k_m")
        await press(pilot, "space")
        assert screen.ticked == {"gguf_q3_k_m"}
        assert "importance matrix" not in flat(app).replace("with an importance matrix.", "")
        assert "i makes it with an importance matrix" in flat(app)
        tiny_one, large = screen.known, replace(screen.known, facts=LLAMA_8B)
        screen.known = large  # of which the matrix takes more memory than what comes before it
        memory = screen._budget(screen.formats())
        await press(pilot, "i")
        await until(pilot, lambda: "With an importance matrix" in flat(app), "for its words")
        assert "memory · importance matrix" in flat(app) and "is made with an importance matrix" in flat(app)
        now = screen._budget(screen.formats())
        assert memory and now and memory.ram_bytes and now.ram_bytes and now.ram_bytes > memory.ram_bytes
        screen.known = tiny_one
        await press(pilot, "i")
        await until(pilot, lambda: "cannot be made without: IQ3_XS" in flat(app), "for what needs one")
        await press(pilot, "i", "enter")
        await until_long(
            pilot, lambda: screen.status is not None and screen.status.job == "export" and not screen.live
        )
        record = export_record.read(run.exports / "gguf_q3_k_m")
        assert record is not None and record.weighed, run.log.read_text()[-3000:]
        assert [file.suffix for file in run.importance.iterdir()] == [".gguf"]


@both_sizes
async def test_the_memory_of_a_gpu_is_told_where_there_is_one(size: tuple[int, int]) -> None:
    recording = recorded.new().started().ready().train(1, 74).finished()
    async with exporting(recording, size) as (app, pilot, screen):
        screen.known = replace(screen.known, facts=LLAMA_8B)
        without = Machine(8, None, 64 << 30, 60 << 30, None)
        with_gpu = replace(without, gpus=(Gpu(0, "card", 24 << 30, 4 << 30),))

        def told(machine: Machine) -> str:
            app.wizard.machine = machine  # which the app looks at anew now and then
            screen.paint()
            return flat(app)

        for format, words in (("merged", "20.0 GiB of the GPU"), ("gguf_q8_0", "and no GPU either")):
            screen.query_one("#formats", Menu).highlight(format)
            await until(pilot, lambda words=words: words in told(with_gpu), "for what it takes")
            await until(pilot, lambda: "GPU" not in told(without), "for a machine without")


async def test_without_being_asked_only_what_needs_a_matrix_gets_one() -> None:
    recording = recorded.new().started().ready().train(1, 74).finished()
    async with exporting(recording, (120, 36)) as (app, pilot, screen):
        menu = screen.query_one("#formats", Menu)
        menu.highlight("more")
        await press(pilot, "space")
        menu.highlight("gguf_iq2_xs")
        await until(pilot, lambda: "always gets one" in flat(app), "for what it needs")
        await press(pilot, "space")
        assert screen.importance is None and "memory · importance matrix" in flat(app)


async def test_an_export_that_is_there_is_replaced_only_when_the_person_says_so() -> None:
    recording = recorded.new().started().ready().train(1, 74).finished()
    with_weights(recording)
    async with exporting(recording) as (app, pilot, screen):
        screen.query_one("#formats", Menu).highlight("merged")
        await press(pilot, "space", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmModal), "for the question")
        await until(pilot, lambda: "Merged, 16-bit (made by an older finetui)" in flat(app), "for its words")
        await press(pilot, "enter")  # the first answer keeps them
        await until(pilot, lambda: app.screen is screen, "for the screen")
        assert manifest.read(recording.run) is None and screen.check_action("start", ())


async def until_long(pilot: Pilot[Any], check: Any) -> None:
    """As `until`, for what a worker does: its imports alone take long on a busy machine."""
    for _ in range(8):
        try:
            await until(pilot, check, "for the worker")
            return
        except AssertionError:
            continue
    await until(pilot, check, "for the worker")


async def test_progress_of_an_export_and_its_result() -> None:
    worker = recorded.sleeper()
    try:
        recording = recorded.new().started().ready().train(1, 10, every=0)
        recording.add(
            events.Checkpoint(10, "checkpoints/checkpoint-10"), events.Ended("train", "completed", 9.0)
        )
        async with exporting(recording) as (app, pilot, screen):
            recording.started(worker.pid, "export").add(
                events.Progress("export", 1, 4, "steps", "GGUF Q8_0: converting")
            )
            await until(pilot, lambda: "Exporting: GGUF Q8_0: converting" in flat(app), "for the progress")
            assert "25 %" in flat(app) and not screen.check_action("start", ())
            recording.add(
                events.Exported(
                    "gguf_q8_0",
                    "exports/gguf_q8_0/demo.gguf",
                    144_811_200,
                    269_060_552,
                    9.0,
                    "ollama run [demo]",
                ),
                events.Ended("export", "completed", 12.0),
            )
            await until(
                pilot, lambda: "256.6 MiB → 138.1 MiB" in flat(app) and not screen.live, "for the result"
            )
            await until(pilot, lambda: "ollama run [demo]" in flat(app), "for the command")
            await press(pilot, "y")
            await until(pilot, lambda: "commands.sh" in flat(app), "for the copy")
            assert app.clipboard == "ollama run [demo]"
    finally:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait(60)


@both_sizes
async def test_small_and_large_terminals(size: tuple[int, int]) -> None:
    recording = recorded.new().started().ready().train(1, 74).finished()
    async with exporting(recording, size) as (app, pilot, _):
        for width, height in ((40, 10), (60, 20), (200, 60)):
            await pilot.resize_terminal(width, height)
            await pilot.pause()
            last = seen(app).splitlines()[-1]
            assert "?" in last and "q" in last
            assert "GGUF" in seen(app) or "Adapter" in seen(app)
