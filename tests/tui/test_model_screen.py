"""The model step: four lists, what is known of each model, and how one is chosen."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from textual import events

from finetui.core.model_catalog import CATALOG
from finetui.tui.screens.model import ModelScreen
from tests.hub_server import Hub
from tests.tui.driving import at_step, press, seen, until, wizard
from tests.tui.model_step import begun, both_sizes, files, flat, home, hub, row, screen, source, typed
from tests.worker import tiny

__all__ = ["files", "home", "hub"]


def hit(id: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "downloads": 1234,
        "likes": 5,
        "gated": False,
        "tags": ["safetensors", "license:mit", "conversational"],
        "safetensors": {"total": 600_000_000},
        **more,
    }


@both_sizes
async def test_recommended_models_say_size_fit_and_what_they_are_good_at(size: tuple[int, int]) -> None:
    async with wizard(size) as (app, pilot):
        await begun(app, pilot)
        assert row(app).source == "demo" and app.focused is screen(app).browser.model_list
        for name in ("Recommended", "Hub search", "On this machine", "My runs", "Size", "4-bit", "16-bit"):
            assert name in seen(app), name
        line = next(line for line in seen(app).splitlines() if "Demo: SmolLM2" in line and "135 M" in line)
        assert "✓" in line and "135 M" in line
        machine = app.wizard.machine
        assert machine is not None
        assert ("fits" in line or "tight" in line) and ("needs GPU" in line) is not machine.has_gpu
        assert ("GiB free" in flat(app) or "free now" in flat(app)) and "8,192" in flat(
            app
        )  # details of the highlighted one
        await press(pilot, "down")
        sizes = [r.parameters or 0 for r in screen(app).browser.model_list.rows[1:]]
        assert sizes == sorted(sizes) and len(sizes) == len(CATALOG) - 1  # the demo's own model stands first
        assert source(app) == "demo"  # looking is not choosing
        await press(pilot, "end")
        biggest = max(CATALOG, key=lambda m: m.parameters)
        assert row(app).parameters == biggest.parameters and ("too big" in seen(app) or machine.has_gpu)
        await press(pilot, "o")
        families = [r.family for r in screen(app).browser.model_list.rows[1:]]
        assert families == sorted(families) and row(app).parameters == biggest.parameters


@both_sizes
async def test_typing_filters_and_escape_empties(size: tuple[int, int]) -> None:
    async with wizard(size) as (app, pilot):
        await begun(app, pilot)
        await press(pilot, "slash", *"llama")
        rows = screen(app).browser.model_list.rows
        assert 0 < len(rows) < len(CATALOG)
        assert all("llama" in f"{r.title} {r.source} {r.license} {r.words} {r.family}".lower() for r in rows)
        await press(pilot, *"zzz")
        assert "Nothing here matches" in seen(app)
        await press(pilot, "enter")
        assert source(app) == "demo" and isinstance(app.screen, ModelScreen)
        await press(pilot, "escape")
        assert len(screen(app).browser.model_list.rows) >= len(CATALOG)
        await press(pilot, "down", "2")  # in the list a digit is a key
        assert screen(app).browsing.tab == "hub"


async def test_what_is_pasted_onto_the_list_is_what_is_looked_for() -> None:
    async with wizard((80, 24)) as (app, pilot):
        await begun(app, pilot)
        listed = screen(app).browser.model_list
        assert app.focused is listed
        listed.post_message(events.Paste("Qwen3 0.6B"))
        await until(pilot, lambda: screen(app).browser.text == "Qwen3 0.6B", "for the filter")
        await press(pilot, "escape")


async def test_space_chooses_and_stays_enter_goes_on_and_the_choice_is_found_again(
    home: Path, files: dict[str, bytes]
) -> None:
    tiny.make(home / "here" / "mine")
    (home / "here" / "packed.gguf").write_bytes(b"GGUF" + bytes(60))
    async with wizard() as (app, pilot):
        await begun(app, pilot)
        await press(pilot, "3")
        await until(pilot, lambda: "mine" in seen(app), "for the local list")
        assert "cannot be tuned" in seen(app)  # the GGUF, listed with its reason
        await until(pilot, lambda: row(app) is not None)
        assert row(app).title == "mine"
        await press(pilot, "space")
        await until(
            pilot, lambda: app.wizard.model_facts is not None and app.wizard.model_facts.title == "mine"
        )
        assert isinstance(app.screen, ModelScreen) and source(app) == str(home / "here" / "mine")
        await press(pilot, "down")
        await until(pilot, lambda: "made for running, not for training" in flat(app), "for the reason")
        await press(pilot, "up", "enter")
        await at_step(app, pilot, "dataset")
        await press(pilot, "escape")
        await at_step(app, pilot, "model")
        await until(pilot, lambda: row(app) is not None and row(app).title == "mine", "for the same row")
        await press(pilot, "1")
        assert row(app).source == str(home / "here" / "mine")  # first, whatever the list


@both_sizes
async def test_search_is_live_and_only_the_newest_answer_counts(hub: Hub, size: tuple[int, int]) -> None:
    hub.found = [hit("me/one"), hit("me/two", gated="manual"), hit("me/[bold]x"), hit("../../etc")]
    async with wizard(size) as (app, pilot):
        await begun(app, pilot)
        await press(pilot, "right")
        assert "Type what you look for" in flat(app) and app.focused is not None
        assert app.focused.id == "model-filter"
        for key in "qwen":  # faster than any machine is slow
            app.post_message(events.Key(key, key))
        await until(pilot, lambda: "me/one" in seen(app), "for the hits")
        assert "2 found" in seen(app) and "etc" not in seen(app) and "gated" in seen(app)
        assert len(hub.queries) < 4 and hub.queries[-1]["search"] == ["qwen"]  # not one for each key
        hub.found = [hit("me/three")]
        await press(pilot, *"3x")
        await until(pilot, lambda: "me/three" in seen(app), "for the other hits")
        await press(pilot, "backspace", "backspace")
        await until(pilot, lambda: "me/one" in seen(app), "for the first, which are remembered")
        asked = len(hub.queries)
        await press(pilot, "escape")
        await until(pilot, lambda: "Type what you look for" in flat(app))
        assert len(hub.queries) == asked


async def test_a_search_that_fails_says_why(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.status, hub.retry_after = 429, "90"
    async with wizard() as (app, pilot):
        await begun(app, pilot)
        await press(pilot, "2", *"qwen")
        await until(pilot, lambda: "slow down" in flat(app) and "1 min 30 s" in flat(app), "for the wait")
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        await press(pilot, *"3")
        await until(pilot, lambda: "✗ offline" in seen(app), "for offline")
        assert "on this machine can still be chosen" in flat(app)
        hub.status = None
        hub.found = [hit("me/late")]
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        await press(pilot, "f5")
        await until(pilot, lambda: "me/late" in seen(app), "for the second try")


async def test_enter_waits_for_the_look_then_goes_on_or_stays(hub: Hub, files: dict[str, bytes]) -> None:
    hub.add("models", "me/good", files)
    hub.add(
        "models",
        "me/pickle",
        {k: v for k, v in files.items() if "safetensors" not in k} | {"pytorch_model.bin": b"x"},
    )
    async with wizard() as (app, pilot):
        await begun(app, pilot)
        await typed(app, pilot, "me/pickle")
        await press(pilot, "enter")
        await until(pilot, lambda: app.wizard.model_error is not None, "for the refusal")
        await until(pilot, lambda: "only as pickle files" in flat(app), "for the card")
        assert isinstance(app.screen, ModelScreen)
        await typed(app, pilot, "me/good")
        await press(pilot, "enter")
        await at_step(app, pilot, "dataset")
        assert source(app) == "me/good" and app.wizard.model_facts is not None
        assert app.wizard.model_facts.vocabulary == 264


async def test_names_on_the_disk_are_shown_and_not_obeyed(home: Path, files: dict[str, bytes]) -> None:
    name = "[@click=app.quit]x[$primary] \x1b]52;c;aGk=\x07\u202egnp"
    shutil.copytree(tiny.make(home / "good"), home / "here" / name)
    async with wizard() as (app, pilot):
        await begun(app, pilot)
        await press(pilot, "3")
        await until(pilot, lambda: "x[$primary]" in seen(app), "for its name")
        assert not any(bad in seen(app) for bad in "\x1b\x07\u202e")
        y, line = next((y, line) for y, line in enumerate(seen(app).splitlines()) if "x[$primary]" in line)
        await pilot.click(offset=(line.find("x[$"), y))
        await pilot.pause()
        assert app.is_running and app.return_value is None
        await until(pilot, lambda: app.wizard.problem("model.source") is not None, "for the refusal")
        await until(pilot, lambda: "control character" in flat(app), "for its words")


@both_sizes
async def test_a_click_chooses_and_a_click_on_a_list_opens_it(home: Path, size: tuple[int, int]) -> None:
    tiny.make(home / "here" / "mine")
    async with wizard(size) as (app, pilot):
        await begun(app, pilot)

        async def click_on(words: str) -> None:
            y, line = next((y, line) for y, line in enumerate(seen(app).splitlines()) if words in line)
            await pilot.click(offset=(line.find(words) + 2, y))
            await pilot.pause()

        await click_on("On this machine")
        await until(pilot, lambda: "mine" in seen(app), "for the local list")
        await click_on("Recommended")
        await until(pilot, lambda: "Demo: SmolLM2" in seen(app), "for the first list")
        await click_on("On this machine")
        await until(pilot, lambda: "mine" in seen(app), "for the local list again")
        await click_on("108 K")  # in its row
        await until(pilot, lambda: source(app) == str(home / "here" / "mine"), "for the choice")
        assert isinstance(app.screen, ModelScreen)
        await click_on("Continue")
        await at_step(app, pilot, "dataset")
