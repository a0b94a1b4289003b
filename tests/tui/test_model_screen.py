"""The model step: four lists, what is known of each model, tokens, consent, and downloads while one goes on."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from textual.events import Paste
from textual.pilot import Pilot

from finetui.core import paths, recipe_file
from finetui.core.model_catalog import CATALOG
from finetui.core.model_download import Download
from finetui.core.recipe import LoraSection, ModelSection, Recipe
from finetui.core.runs import events
from finetui.core.secrets import token_file
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.confirm import ConfirmModal
from finetui.tui.modals.token import TokenModal
from finetui.tui.screens.model import ModelScreen
from tests.hub_server import COMMIT, Hub, running
from tests.tui import recorded
from tests.tui.driving import SIZES, at_step, press, seen, type_over, until, wizard
from tests.worker import tiny

TOKEN = "hf_canaryOnTheModelScreen"
both_sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    # huggingface_hub reads the variable once, when it is imported; an earlier test may have done that offline.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "")  # whatever the screen sets is taken back
    for name in ("HF_HUB_CACHE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
        for one in Download.under_way():
            one.cancel()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a tiny model, as a repository holds them."""
    folder = tiny.make(tmp_path_factory.mktemp("tiny") / "model")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flat(app: FinetuiApp) -> str:
    return " ".join(seen(app).replace("│", " ").split())


def screen(app: FinetuiApp) -> ModelScreen:
    assert isinstance(app.screen, ModelScreen)
    return app.screen


def row(app: FinetuiApp) -> Any:
    return screen(app).browser.model_list.row


async def begun(app: FinetuiApp, pilot: Pilot[int], recipe: Recipe | None = None) -> None:
    app.begin(recipe or Recipe())
    await at_step(app, pilot, "model")
    await until(pilot, lambda: row(app) is not None and app.wizard.machine is not None, "for the list")


async def typed(app: FinetuiApp, pilot: Pilot[int], text: str) -> None:
    """Types `text` into the line over the list, and waits until the row is there."""
    if app.focused is None or app.focused.id != "model-filter":
        await press(pilot, "slash")
    await type_over(pilot, text)
    await until(pilot, lambda: row(app) is not None and row(app).source == text, f"for {text}")


def source(app: FinetuiApp) -> str:
    return str(app.wizard.draft["model.source"])


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
        listed.post_message(Paste("Qwen3 0.6B"))
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
        await press(pilot, *"qwen")
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


@both_sizes
async def test_an_adapter_as_base_is_offered_with_its_base(home: Path, size: tuple[int, int]) -> None:
    base = tiny.make(home / "base")
    adapter = adapter_at(home / "adapter", str(base))
    async with wizard(size) as (app, pilot):
        await begun(app, pilot)
        await typed(app, pilot, str(adapter))
        await until(pilot, lambda: "is an adapter" in flat(app), "for the card")
        assert "Enter takes" in flat(app)
        await press(pilot, "enter")
        await until(pilot, lambda: source(app) == str(base), "for its base")
        assert app.wizard.draft["model.adapter"] == str(adapter)
        await until(pilot, lambda: app.wizard.draft["lora.rank"] == 4, "for its rank")
        assert app.wizard.draft["lora.alpha"] == 8
        assert app.wizard.draft["lora.target_modules"] == ("q_proj", "v_proj")
        await until(pilot, lambda: app.wizard.model_facts is not None and not app.wizard.model_busy)
        await press(pilot, "enter")
        await at_step(app, pilot, "dataset")
        await press(pilot, "escape")
        await at_step(app, pilot, "model")
        await press(pilot, "end")
        await press(pilot, "home", "down", "space")  # the demo, under what is chosen
        assert source(app) == "demo" and app.wizard.draft["model.adapter"] is None


async def test_an_adapter_of_the_hub_is_fetched_and_taken_with_its_base(
    hub: Hub, home: Path, files: dict[str, bytes]
) -> None:
    hub.add("models", "me/tiny", files)
    made = adapter_at(home / "made", "me/tiny")
    parts = {path.name: path.read_bytes() for path in made.iterdir()}
    hub.add("models", "me/lora", {**parts, "optimizer.pt": b"pickle"})
    hub.add(
        "models", "me/old", {"adapter_config.json": parts["adapter_config.json"], "adapter_model.bin": b"x"}
    )
    async with wizard() as (app, pilot):
        await begun(app, pilot)
        await typed(app, pilot, "me/old")
        await until(pilot, lambda: "Enter fetches this adapter" in flat(app), "for the offer")
        await press(pilot, "enter")
        await until(
            pilot, lambda: "There is no adapter" in flat(app), "for what is wrong with pickled weights"
        )
        await press(pilot, "escape")
        assert source(app) == "demo"
        await typed(app, pilot, "me/lora")
        await until(pilot, lambda: "me/lora" in flat(app) and "is an adapter" in flat(app), "for the card")
        await press(pilot, "enter")
        await until(pilot, lambda: source(app) == "me/tiny", "for its base")
        folder = Path(str(app.wizard.draft["model.adapter"]))
        assert folder.name == COMMIT and {path.name for path in folder.iterdir()} == set(parts)
        await until(pilot, lambda: app.wizard.draft["lora.rank"] == 4, "for its rank")
    assert not any("optimizer.pt" in path for _, path, _ in hub.requests)


def adapter_at(folder: Path, base: str) -> Path:
    """An adapter of rank 4 on q and v, as PEFT writes one."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    settings = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": base,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file(
        {"base_model.model.x.lora_A.weight": np.zeros((4, 64), np.float32)},
        folder / "adapter_model.safetensors",
    )
    return folder


async def test_a_finished_run_is_gone_on_from(home: Path) -> None:
    base = tiny.make(home / "base")
    recording = recorded.new().started().ready().train(1, 3, every=0)
    recording.add(events.Ended("train", "completed", 60.0, "", "", "", ""))
    recipe = Recipe(name="first-try", model=ModelSection(source=str(base)), lora=LoraSection(rank=4, alpha=8))
    recipe_file.save(recipe, recording.run.recipe)
    adapter_at(recording.run.adapter, str(base))
    async with wizard((120, 36)) as (app, pilot):
        await begun(app, pilot)
        await press(pilot, "4")
        await until(pilot, lambda: "first-try: adapter" in seen(app) and "fits" in seen(app), "for the run")
        (line,) = [text for text in seen(app).splitlines() if "first-try: adapter" in text and "fits" in text]
        assert "needs GPU" in line  # in 4-bit; in 16-bit it fits
        await until(pilot, lambda: "rank 4, alpha 8" in flat(app), "for its details")
        await press(pilot, "enter")
        await at_step(app, pilot, "dataset")
        await until(pilot, lambda: app.wizard.draft["lora.rank"] == 4, "for its rank")
        assert source(app) == str(base) and app.wizard.draft["model.adapter"] == str(recording.run.adapter)
        assert app.wizard.draft.recipe().model.adapter


@both_sizes
async def test_a_gated_model_takes_a_token_and_forgets_it(
    hub: Hub, files: dict[str, bytes], home: Path, size: tuple[int, int]
) -> None:
    gated = hub.add("models", "me/gated", files, gated=True)
    async with wizard(size) as (app, pilot):
        await begun(app, pilot)
        await typed(app, pilot, "me/gated")
        await until(
            pilot, lambda: "is gated" in flat(app) and "Enter takes a token" in flat(app), "for the card"
        )
        assert f"{hub.url}/me/gated" in seen(app).replace("\n", "").replace(" ", "")
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, TokenModal), "for the field")
        assert f"{hub.url}/me/gated" in flat(app) and "[ ] keep it for next time" in seen(app)
        await press(pilot, *"no token", "enter")
        await until(pilot, lambda: "not a hub token" in flat(app), "for the sentence")
        await type_over(pilot, TOKEN)
        assert TOKEN not in seen(app) and "•••" in seen(app)
        gated.gated = False  # access was granted meanwhile
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, ModelScreen), "for the screen")
        await until(pilot, lambda: row(app).key in screen(app).browsing.looks, "for the facts")
        await press(pilot, "enter")
        await at_step(app, pilot, "dataset")
        assert any(auth == f"Bearer {TOKEN}" for _, path, auth in hub.requests if "me/gated" in path)
        assert not token_file().exists()
        await press(pilot, "ctrl+q")
    for file in (path for path in home.rglob("*") if path.is_file()):
        assert TOKEN.encode() not in file.read_bytes(), file


async def test_a_token_is_kept_only_where_asked_to(home: Path) -> None:
    async with wizard() as (app, pilot):
        await begun(app, pilot)
        await press(pilot, "t")
        await until(pilot, lambda: isinstance(app.screen, TokenModal), "for the field")
        await type_over(pilot, TOKEN)
        await press(pilot, "down", "space")
        await until(pilot, lambda: "readable by you alone" in flat(app), "for where it is kept")
        await press(pilot, "up", "enter")
        await until(pilot, lambda: isinstance(app.screen, ModelScreen), "for the screen")
        assert token_file().read_text() == TOKEN
        assert stat.S_IMODE(token_file().stat().st_mode) == 0o600
        for file in (path for path in paths.data().rglob("*") if path.is_file()):
            assert TOKEN.encode() not in file.read_bytes(), file


@both_sizes
async def test_code_of_a_repository_runs_only_after_a_yes(
    hub: Hub, files: dict[str, bytes], size: tuple[int, int]
) -> None:
    config = json.loads(files["config.json"])
    config |= {"auto_map": {"AutoModelForCausalLM": "modeling_evil.EvilForCausalLM"}, "model_type": "evil"}
    repository = {**files, "config.json": json.dumps(config).encode(), "modeling_evil.py": b"print('no')"}
    hub.add("models", "me/evil", repository)
    async with wizard(size) as (app, pilot):
        await begun(app, pilot)
        await typed(app, pilot, "me/evil")
        await until(pilot, lambda: "whether its code may run" in flat(app), "for the card")
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmModal), "for the question")
        for hint in ("me/evil", COMMIT, "modeling_evil.py"):
            assert hint in flat(app), hint
        await press(pilot, "enter")  # what is at hand is No
        await until(pilot, lambda: isinstance(app.screen, ModelScreen))
        assert app.wizard.draft["model.remote_code"] is None and source(app) == "demo"
        await press(pilot, "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmModal), "for the question")
        await press(pilot, "right", "enter")
        await until(pilot, lambda: app.wizard.draft["model.remote_code"] == COMMIT, "for the consent")
        assert source(app) == "me/evil"
        await until(
            pilot, lambda: app.wizard.model_facts is not None and not app.wizard.model_busy, "for the look"
        )
        assert app.wizard.model_error is None
        await press(pilot, "escape")
        await type_over(pilot, "")
        app.screen.query_one("#model-list").focus()
        await press(pilot, "home", "down", "space")
        assert app.wizard.draft["model.remote_code"] is None  # it held for that model alone


async def test_a_download_goes_on_while_the_person_does(
    hub: Hub, files: dict[str, bytes], home: Path
) -> None:
    slow = hub.add("models", "me/slow", files, bytes_per_second=60_000.0)
    app_options: dict[str, Any] = {}
    async with wizard((120, 36), **app_options) as (app, pilot):
        await begun(app, pilot)
        await typed(app, pilot, "me/slow")
        await until(pilot, lambda: row(app).key in screen(app).browsing.looks, "for the facts")
        await press(pilot, "down", "d")
        await until(pilot, lambda: app.downloads.live("me/slow"), "for its start")
        await until(pilot, lambda: "slow " in seen(app).splitlines()[0], "for the header")
        await until(pilot, lambda: "Stop download" in seen(app), "for the way to stop it")
        await press(pilot, "enter")
        await at_step(app, pilot, "dataset")
        await until(pilot, lambda: "%" in seen(app).splitlines()[0], "for the share")
        await press(pilot, "escape")
        await at_step(app, pilot, "model")
        await until(pilot, lambda: " of " in flat(app) and "/s" in flat(app), "for bytes and speed")
        await press(pilot, "x")
        await until(pilot, lambda: not app.downloads.live("me/slow"), "for its end")
        state = app.downloads.state("me/slow")
        assert state is not None and state.state == "cancelled"
        await until(pilot, lambda: "download cancelled" in flat(app), "for the word")
        slow.bytes_per_second = 0.0
        await press(pilot, "d")
        await until(
            pilot, lambda: (s := app.downloads.state("me/slow")) is not None and s.state == "done", "done"
        )
        await until(
            pilot, lambda: app.wizard.model_facts is not None and app.wizard.model_facts.cached, "cached"
        )
        await until(pilot, lambda: "slow" not in seen(app).splitlines()[0], "for the header")
        assert not any("d Download" in line for line in seen(app).splitlines())


async def test_a_download_that_fails_says_why(hub: Hub, files: dict[str, bytes]) -> None:
    repository = hub.add("models", "me/gone", files)
    app = FinetuiApp()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: app.screen.query("#menu"), "for Home")
        await begun(app, pilot)
        await typed(app, pilot, "me/gone")
        await until(pilot, lambda: row(app).key in screen(app).browsing.looks, "for the facts")
        repository.status = 503
        await press(pilot, "down", "d")
        await until(
            pilot, lambda: (s := app.downloads.state("me/gone")) is not None and s.state == "failed", "fail"
        )
        await until(pilot, lambda: "download failed" in flat(app), "for the word")
        assert "503" in flat(app) or "could not" in flat(app) or "hub" in flat(app)


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
        assert "control character" in flat(app)


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
