"""Where to? From the export screen to the hub, to Ollama and to a folder."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from finetui.core.runs.store import RunFolder
from finetui.core.upload import Upload
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.outlets import OutletsModal
from finetui.tui.modals.token import TokenModal
from finetui.tui.screens.run import RunScreen
from finetui.tui.screens.run_export import RunExportScreen

from ..hub_server import Hub, reach, running
from ..outgoing import finished_run
from .driving import SIZES, press, seen, type_over, until

both_sizes = pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # no Ollama of this machine's owner


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        more = {"HF_TOKEN": "hf_canaryCanaryCanary", "HF_HUB_DISABLE_XET": "1"}
        reach(monkeypatch, found, tmp_path / "hf", **more)
        yield found


@asynccontextmanager
async def asked(
    run: RunFolder, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[FinetuiApp, Pilot[Any], OutletsModal]]:
    """The modal over the export screen, reached with its key."""
    app = FinetuiApp(attach=run.path)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.caught_up, "for the run")
        await press(pilot, "e")
        screen = app.screen
        assert isinstance(screen, RunExportScreen)
        await until(pilot, lambda: screen.caught_up and screen.story.exports, "for the exports")
        await until(pilot, lambda: "Where to?" in seen(app).splitlines()[-1], "for the footer")
        await press(pilot, "o")
        await until(pilot, lambda: isinstance(app.screen, OutletsModal), "for the modal")
        modal = app.screen
        assert isinstance(modal, OutletsModal)
        await until(pilot, lambda: "Look what would be done" in seen(app), "for its button")
        yield app, pilot, modal


@both_sizes
async def test_a_private_upload(hub: Hub, size: tuple[int, int]) -> None:
    run = finished_run(("adapter",))
    async with asked(run, size) as (app, pilot, modal):
        await press(pilot, "f5")
        await until(pilot, lambda: modal.planned is not None, "for the plan")
        await until(pilot, lambda: "/me/demo" in seen(app) and "private" in seen(app), "for its words")
        assert not hub.repositories and "Upload privately" in seen(app)
        await press(pilot, "f5")
        await until(pilot, lambda: "Uploaded and compared" in seen(app), "for the end")
        (repository,) = hub.repositories
        assert repository.private and "adapter_model.safetensors" in repository.files
        await press(pilot, "f5")
        assert app.clipboard == f"{hub.url}/me/demo"


async def test_an_upload_goes_on_without_the_window_and_is_found_again(hub: Hub) -> None:
    run = finished_run(("adapter",), 400_000)
    hub.uploads.bytes_per_second = 20_000
    async with asked(run) as (app, pilot, modal):
        await press(pilot, "f5")
        await until(pilot, lambda: modal.planned is not None, "for the plan")
        await press(pilot, "f5")
        await until(pilot, lambda: "Uploading" in seen(app) and "Stop" in seen(app), "for the progress")
        await press(pilot, "escape")
        assert isinstance(app.screen, RunExportScreen)
        (one,) = Upload.of_run(run)
        assert one.poll().live
        await press(pilot, "o")
        await until(pilot, lambda: "Uploading" in seen(app), "for the upload again")
        await press(pilot, "f5")
        await until(pilot, lambda: one.poll().state == "cancelled", "for its end")
        await until(pilot, lambda: "Stopped. The same upload goes on" in seen(app), "for the words")


async def test_a_full_repository_and_a_missing_token_are_cards_with_a_way_on(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("models", "me/demo", {"notes.txt": b"mine"}, private=True)
    run = finished_run(("adapter",))
    async with asked(run, (120, 36)) as (app, pilot, modal):
        await press(pilot, "f5")
        await until(pilot, lambda: "holds other files already" in seen(app), "for the card")
        await press(pilot, "f5")
        await until(pilot, lambda: "Replace: Upload privately" in seen(app), "for the plan")
        monkeypatch.delenv("HF_TOKEN")
        await press(pilot, "shift+tab", "shift+tab", "space")  # public, which makes a new plan needful
        modal.query_one("#outlets-go").focus()
        await press(pilot, "f5")
        await until(
            pilot, lambda: "no hub token" in seen(app) and "Give a token" in seen(app), "for the card"
        )
        await press(pilot, "f5")
        await until(
            pilot,
            lambda: isinstance(app.screen, TokenModal) and "right to write" in seen(app),
            "for the token",
        )


async def test_a_copy_to_a_folder(tmp_path: Path, hub: Hub) -> None:
    run = finished_run(("adapter", "gguf_q8_0"))
    async with asked(run) as (app, pilot, modal):
        modal.query_one("#outlets-place").focus()
        await press(pilot, "right", "right")
        assert modal.place.key == "folder" and modal.formats == ("adapter",)
        modal.query_one("#outlets-name").focus()
        await type_over(pilot, str(tmp_path / "[bold] out"))
        await press(pilot, "enter")
        await until(pilot, lambda: modal.planned is not None, "for the plan")
        assert not (tmp_path / "[bold] out").exists()
        await press(pilot, "enter")
        await until(pilot, lambda: "Copied to" in seen(app), "for the end")
        assert (tmp_path / "[bold] out/SHA256SUMS").is_file()
        assert modal.standing is not None
        checked = ["sh", "-c", modal.standing.command]
        assert subprocess.run(checked, capture_output=True, check=False).returncode == 0, "as it is shown"
        assert not (tmp_path / "[bold] out/demo-Q8_0.gguf").exists(), "only what was ticked"


async def test_without_ollama_there_are_the_commands(hub: Hub) -> None:
    async with asked(finished_run(("adapter", "gguf_q8_0")), (120, 36)) as (app, pilot, modal):
        modal.query_one("#outlets-place").focus()
        assert modal.formats == ("adapter",)
        await press(pilot, "right")
        assert modal.formats == ("gguf_q8_0",), "what Ollama can take is ticked"
        await press(pilot, "f5")
        await until(pilot, lambda: "ollama create demo" in seen(app), "for the commands")
        await press(pilot, "escape", "o")
        await until(pilot, lambda: isinstance(app.screen, OutletsModal), "for the window again")
        again = app.screen
        assert isinstance(again, OutletsModal)
        again.query_one("#outlets-formats").focus()
        await press(pilot, "a")
        again.query_one("#outlets-place").focus()
        await press(pilot, "right")
        assert again.formats == ("adapter", "gguf_q8_0"), "what the person ticked stays"


@both_sizes
async def test_an_adapter_goes_into_ollama_over_a_base_named_here(
    hub: Hub, tmp_path: Path, size: tuple[int, int]
) -> None:
    run = finished_run(("adapter",))
    folder = run.exports / "adapter_gguf"
    folder.mkdir()
    (folder / "demo-lora.gguf").write_bytes(b"GGUF" * 100)
    (folder / "Modelfile").write_text("FROM ./BASE.gguf\nADAPTER ./demo-lora.gguf\n")
    base = tmp_path / "base.gguf"
    base.write_bytes(b"GGUF" * 100)
    async with asked(run, size) as (app, pilot, modal):
        assert not modal.query_one("#outlets-base").region
        modal.query_one("#outlets-place").focus()
        await press(pilot, "right")
        assert modal.formats == ("adapter_gguf",)
        await press(pilot, "f5")
        await until(pilot, lambda: "none was named" in seen(app), "for the card")
        modal.query_one("#outlets-base").focus()
        await type_over(pilot, str(base))
        await press(pilot, "enter")
        await until(pilot, lambda: modal.planned is not None, "for the plan")
        assert modal.planned is not None
        assert f"FROM {base}" in modal.planned.lines[-2] and "sed " in modal.planned.lines[-2]
        assert modal.query_one("#outlets-base").region.height == 1


async def test_without_an_export_the_key_is_not_there() -> None:
    from . import recorded

    run = recorded.new().started().ready().train(1, 3).run
    app = FinetuiApp(attach=run.path)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.caught_up, "for the run")
        screen = RunExportScreen(run)
        app.push_screen(screen)
        await until(pilot, lambda: screen.is_current and screen.caught_up, "for the screen")
        await press(pilot, "o")
        assert app.screen is screen
