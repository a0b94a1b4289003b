"""Model and dataset from a hub: downloaded, trained, and named in the adapter as the recipe names them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetui.core.runs.event_log import read_all
from finetui.core.runs.events import DatasetReady, Progress

from ..hub_server import Hub, running
from . import harness
from .test_script import losses_of_script

TOKEN = "hf_canaryCanaryCanary"


@pytest.fixture
def hub(tiny_model: Path, tiny_rows: Path) -> Iterator[Hub]:
    with running() as hub:
        files = {p.name: p.read_bytes() for p in tiny_model.iterdir()}
        hub.add("models", "somebody/tiny", files | {"pytorch_model.bin": b"a pickle", "modeling.py": b"boom"})
        hub.add("models", "somebody/secret", files, gated=True)
        hub.add("datasets", "somebody/rows", {"train.jsonl": tiny_rows.read_bytes()})
        yield hub


def online(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN}.items():
        monkeypatch.setenv(name, value)
    offline = ("HF_HUB_OFFLINE", "UNSLOTH_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    for name in (*offline, "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)


def train(hub: Hub, home: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> harness.RunFolder:
    online(hub, home, monkeypatch)
    run = harness.make_run(harness.recipe(Path(model), Path("somebody/rows"), max_steps=2))
    harness.finish(harness.start("train", run), run)
    return run


def test_a_run_from_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(hub, tmp_path, "somebody/tiny", monkeypatch)
    assert harness.ended(run).reason == "completed", harness.ended(run)
    (data,) = harness.events(run, DatasetReady)
    assert (data.rows, data.evaluation_rows) == (36, 4)
    config = json.loads((run.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "somebody/tiny"
    fetched = {path.rsplit("/", 1)[-1] for _method, path, _token in hub.requests}
    assert "model.safetensors" in fetched and not {"pytorch_model.bin", "modeling.py"} & fetched
    stages = {r.event.stage for r in read_all(run.events) if isinstance(r.event, Progress)}
    assert "download" in stages
    for folder, _folders, names in os.walk(run.path):
        for name in names:
            assert TOKEN.encode() not in Path(folder, name).read_bytes(), name


def test_a_gated_model_is_refused_with_what_to_do(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(hub, tmp_path, "somebody/secret", monkeypatch)
    assert (harness.ended(run).reason, harness.ended(run).code) == ("failed", "hub-gated")


def test_a_script_takes_the_very_model_that_the_run_took(
    hub: Hub, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU Unsloth would take a copy of its own in place of this one."""
    named = "Qwen/Qwen3-0.6B"
    hub.add("models", named, {p.name: p.read_bytes() for p in tiny_model.iterdir()})
    online(hub, tmp_path / "home", monkeypatch)
    recipe = harness.recipe(Path(named), Path("somebody/rows"), max_steps=2)
    run = harness.trained(recipe)
    assert losses_of_script(recipe, tmp_path) == harness.losses(run)
    asked = {path.split("/resolve/")[0] for _method, path, _token in hub.requests if "/resolve/" in path}
    assert asked == {named, "datasets/somebody/rows"}
