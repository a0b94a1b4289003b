"""Code of a model's own repository: it runs when the person named exactly its commit, and never otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetui.core.recipe import Recipe
from finetui.core.runs.store import RunFolder

from ..hub_server import COMMIT, Hub, running
from . import harness

MODELING = """
import os, pathlib
pathlib.Path(os.environ["CANARY"]).touch()
from transformers import LlamaConfig, LlamaForCausalLM

class EvilConfig(LlamaConfig):
    model_type = "evil"

class Evil(LlamaForCausalLM):
    config_class = EvilConfig
"""


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CANARY", str(tmp_path / "canary"))
    return tmp_path / "canary"


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as hub:
        files = {p.name: p.read_bytes() for p in tiny_model.iterdir()}
        config = json.loads(files["config.json"]) | {
            "model_type": "evil",
            "architectures": ["Evil" + "ForCausalLM"],
            "auto_map": {
                "AutoConfig": "modeling_evil.EvilConfig",
                "AutoModelForCausalLM": "modeling_evil.Evil",
            },
        }
        files |= {"config.json": json.dumps(config).encode(), "modeling_evil.py": MODELING.encode()}
        hub.add("models", "me/evil", files)
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}.items():
            monkeypatch.setenv(name, value)
        offline = ("HF_HUB_OFFLINE", "UNSLOTH_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN")
        for name in offline:
            monkeypatch.delenv(name, raising=False)
        yield hub


def train(rows: Path, consent: str | None) -> RunFolder:
    made: Recipe = harness.recipe(Path("me/evil"), rows, max_steps=1, warmup_steps=0)
    model = made.model.model_copy(update={"remote_code": consent})
    run = harness.make_run(made.model_copy(update={"model": model}))
    harness.finish(harness.start("train", run), run)
    return run


def fetched(hub: Hub) -> set[str]:
    return {name.rsplit("/", 1)[-1] for name, _range in hub.ranges}


@pytest.mark.parametrize("consent", [None, "f" * 40, "main"])
def test_without_consent_nothing_of_it_is_fetched_or_run(
    hub: Hub, canary: Path, tiny_rows: Path, consent: str | None
) -> None:
    run = train(tiny_rows, consent)
    assert harness.ended(run).reason == "failed"
    assert harness.ended(run).code in ("model-remote-code", "hub-revision")
    assert not canary.exists() and "modeling_evil.py" not in fetched(hub)


def test_with_consent_it_is_fetched_and_run(hub: Hub, canary: Path, tiny_rows: Path) -> None:
    run = train(tiny_rows, COMMIT)
    assert "modeling_evil.py" in fetched(hub)
    assert canary.exists(), harness.ended(run)
    assert harness.ended(run).code != "model-remote-code", harness.ended(run)
