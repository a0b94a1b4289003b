"""What stands between a model and its use: adapters and their base, tokens, consent, and downloads."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from finetui.core import paths, recipe_file
from finetui.core.recipe import LoraSection, ModelSection, Recipe
from finetui.core.runs import events
from finetui.core.secrets import token_file
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.confirm import ConfirmModal
from finetui.tui.modals.token import TokenModal
from finetui.tui.screens.model import ModelScreen
from tests.hub_server import COMMIT, Hub
from tests.tui import recorded
from tests.tui.driving import at_step, press, seen, type_over, until, wizard
from tests.tui.model_step import begun, both_sizes, files, flat, home, hub, row, screen, source, typed
from tests.worker import tiny

__all__ = ["files", "home", "hub"]


TOKEN = "hf_canaryOnTheModelScreen"


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
        await until(pilot, lambda: "[ ] keep it for next time" in seen(app), "for its words")
        assert f"{hub.url}/me/gated" in flat(app)
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
            await until(pilot, lambda hint=hint: hint in flat(app), hint)
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
    slow = hub.add("models", "me/slow", files, bytes_per_second=10_000.0)
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
