"""`finetui models`: the lists, their words, their JSON, their exit codes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetui.core.model_catalog import CATALOG
from finetui.tui.__main__ import main
from finetui.tui.commands import exits

from ..core.model_files import folder
from ..hub_server import Hub, running


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield found


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main(["models", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_recommended_ones_with_their_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == exits.OK
    out = capsys.readouterr().out
    assert out.startswith("demo  135 M\n") and "GiB free" in out and "16-bit" in out
    for one in CATALOG:
        assert f"\n{one.id}  " in out
    code, answer = told(capsys)
    assert code == exits.OK and answer["free_bytes"] > 0
    assert [m["id"] for m in answer["models"]] == ["demo", *(m.id for m in CATALOG)]
    for one in answer["models"]:
        assert one["fit"]["16bit"]["level"] in ("fits", "tight", "no") and one["fit"]["4bit"]["words"]


def test_searching_the_hub(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    server.found = [
        {"id": "me/thing", "safetensors": {"total": 10**9}, "gated": "auto", "tags": ["license:\x1b[31mmit"]}
    ]
    assert main(["models", "thing"]) == exits.OK
    out = capsys.readouterr().out
    assert "me/thing  1 B" in out and "gated" in out and "mit" in out and "\x1b" not in out
    assert server.queries[0]["search"] == ["thing"]
    code, answer = told(capsys, "thing")
    assert (code, answer["models"][0]["parameters"]) == (exits.OK, 10**9)
    server.found = []
    assert main(["models", "nothing"]) == exits.NOT_FOUND
    assert "matches nothing" in capsys.readouterr().out
    server.status, server.retry_after = 429, "7"
    assert main(["models", "thing"]) == exits.REFUSED
    assert "7 s" in capsys.readouterr().err
    code, answer = told(capsys, "thing")
    assert (code, answer["error"]["code"]) == (exits.REFUSED, "hub-busy")


def test_offline_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert main(["models", "qwen"]) == exits.REFUSED
    told = capsys.readouterr()
    assert "cannot be reached" in told.err
    assert "unsloth/Qwen3-0.6B" in told.out and "Llama" not in told.out, (
        "what is recommended can still be found"
    )


def test_what_is_here(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--local"]) == main(["models", "--runs"]) == exits.NOT_FOUND
    capsys.readouterr()
    folder(home / "work" / "mine")
    (home / "work" / "x.gguf").write_bytes(b"GGUF")
    assert main(["models", "--local"]) == exits.OK
    out = capsys.readouterr().out
    assert "mine" in out and "cannot be tuned" in out and "GGUF" in out
    code, answer = told(capsys, "MINE", "--local")
    assert code == exits.OK and [m["title"] for m in answer["models"]] == ["mine"]
    assert told(capsys, "--local", "--runs")[0] == exits.USAGE
