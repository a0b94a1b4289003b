"""`finetui upload`, `ollama` and `copy` as a person or a script runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetui.core.upload import Upload
from finetui.tui.commands import exits
from tests.waiting import until

from ..hub_server import Hub, running
from ..outgoing import finished_run

TOKEN = "hf_canaryCanaryCanary"
Cli = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as found:
        yield found


@pytest.fixture
def cli(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    given = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
    }
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetui.tui", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **given, "HF_HUB_OFFLINE": "0", "PATH": "/usr/bin:/bin"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str], code: int = exits.OK) -> str:
    out, errors = process.communicate(timeout=240)
    assert process.returncode == code, (process.returncode, out, errors)
    assert TOKEN not in out + errors and "Traceback" not in out + errors
    return out + errors


def test_upload_asks_says_and_does(cli: Cli, hub: Hub) -> None:
    run = finished_run(("adapter", "gguf_q8_0"))
    assert "Add --yes" in said(cli("upload", run.id), exits.USAGE)
    assert "private" in said(cli("upload", run.id, "--dry-run"))
    assert not hub.repositories
    lines = said(
        cli("upload", run.id, "-f", "gguf-q8-0,adapter", "--to", "ours/x", "--yes", "--json")
    ).splitlines()
    told = [json.loads(line) for line in lines]
    assert told[0]["kind"] == "plan" and told[0]["private"] and told[0]["repo"] == "ours/x"
    assert told[-1] == {
        "kind": "ended",
        "state": "done",
        "url": f"{hub.url}/ours/x",
        "bytes": told[0]["bytes"],
    }
    assert hub.repositories[0].private and "demo-Q8_0.gguf" in hub.repositories[0].files
    card = json.loads(said(cli("upload", run.id, "--to=-x/y", "--yes", "--json"), exits.REFUSED))
    assert card["error"]["code"] == "hub-name"


def test_ctrl_c_leaves_an_upload_that_goes_on(cli: Cli, hub: Hub) -> None:
    run = finished_run(("gguf_q8_0",), 600_000)
    hub.uploads.bytes_per_second = 20_000
    process = cli("upload", run.id, "--yes")
    until(lambda: any(u.poll().done_bytes > 0 for u in Upload.of_run(run)))
    process.send_signal(signal.SIGINT)
    assert "The same command goes on" in said(process, exits.STOPPED)
    assert not any(u.poll().live for u in Upload.of_run(run))
    hub.uploads.bytes_per_second = 0
    assert "Uploaded and compared" in said(cli("upload", run.id, "--yes"))
    assert (
        hub.repositories[0].files["demo-Q8_0.gguf"] == (run.exports / "gguf_q8_0/demo-Q8_0.gguf").read_bytes()
    )


def test_copy_and_ollama(cli: Cli, tmp_path: Path) -> None:
    run = finished_run(("adapter", "gguf_q8_0"))
    copying, ollama = cli("copy", run.id, "out"), cli("ollama", run.id, "--name", "mine")
    assert "Copied and compared" in said(copying) and (tmp_path / "out/SHA256SUMS").is_file()
    assert f"ollama create mine -f {run.exports}/gguf_q8_0/Modelfile" in said(ollama)
    asked, replaced = cli("copy", run.id, "out", "--json"), cli("copy", run.id, "out", "--replace", "--json")
    assert '"usage"' in said(asked, exits.USAGE)
    assert json.loads(said(replaced).splitlines()[-1]) == {
        "kind": "ended",
        "state": "done",
        "path": str(tmp_path / "out"),
    }
    assert "export-missing" in said(cli("ollama", run.id, "-f", "gguf_f16", "--json"), exits.NOT_FOUND)
