"""The model step of the wizard, away from the hub or with one on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from textual.pilot import Pilot

from finetui.core.model_download import Download
from finetui.core.recipe import Recipe
from finetui.tui.app import FinetuiApp
from finetui.tui.screens.model import ModelScreen
from tests.hub_server import Hub, running
from tests.tui.driving import SIZES, at_step, press, seen, type_over, until
from tests.worker import tiny

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
