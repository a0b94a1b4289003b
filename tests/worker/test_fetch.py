"""Downloads in the background, from a hub that is slow, cut, full, busy, gated or hostile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetui.core import hub, model
from finetui.core.errors import FinetuiError
from finetui.core.model_download import Download, DownloadState
from finetui.core.runs.events import Progress
from tests import waiting

from ..core.model_files import PARAMETERS, ask, remote, safetensors
from ..hub_server import COMMIT, Hub, running
from . import harness

PATIENCE = 120.0
TOKEN = "hf_canaryCanaryCanary"
BIG = {"model.embed_tokens.weight": [300, 64], "model.layers.0.mlp.up_proj.weight": [4096, 512]}
SIZE = len(safetensors(BIG))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        values = {
            "HF_ENDPOINT": found.url,
            "HF_HOME": str(tmp_path / "hf"),
            "FINETUI_HOME": str(tmp_path / "home"),
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        yield found
        for one in Download.under_way():
            one.cancel()


def big(server: Hub, **more: Any) -> Any:
    return server.add("models", "me/big", remote(model__safetensors=safetensors(BIG)), **more)


def look(server: Hub, tmp_path: Path, name: str, token: str | None = None) -> dict[str, Any]:
    """What the model step says of it, in a process of its own."""
    return ask(server, tmp_path / "hf", name, token=token)[name]


def until(download: Download, condition: Callable[[DownloadState], object]) -> DownloadState:
    end = time.monotonic() + PATIENCE
    while not condition(state := download.poll()):
        assert time.monotonic() < end, state
        assert state.live, (state, state.error and str(state.error))
        time.sleep(0.02)
    return state


def ended(download: Download) -> DownloadState:
    end = time.monotonic() + PATIENCE
    while (state := download.poll()).live:
        assert time.monotonic() < end, state
        time.sleep(0.02)
    return state


def refused(download: Download, code: str) -> FinetuiError:
    state = ended(download)
    assert state.state == "failed" and state.error is not None, state
    assert state.error.code == code, str(state.error)
    return state.error


def pulled(server: Hub) -> list[int]:
    """Where each reading of the large file began; readings of its header aside."""
    return [
        int(part.removeprefix("bytes=").partition("-")[0])
        for name, part in server.ranges
        if name.endswith("model.safetensors") and part.endswith("-")
    ]


def weights(tmp_path: Path) -> bytes:
    return (tmp_path / "hf/hub/models--me--big/snapshots" / COMMIT / "model.safetensors").read_bytes()


def test_a_download_tells_real_bytes_and_ends_in_the_cache(server: Hub, tmp_path: Path) -> None:
    big(server, bytes_per_second=1_000_000).files["modeling.py"] = b"boom"
    before = look(server, tmp_path, "me/big")
    assert not before["cached"] and before["disk_bytes"] > before["download_bytes"] > SIZE
    download = Download.start("me/big")
    seen = [until(download, lambda s: s.done_bytes > 100_000)]
    seen.append(until(download, lambda s: s.done_bytes > seen[0].done_bytes and s.bytes_per_second > 0))
    assert seen[1].total_bytes == before["disk_bytes"]
    assert seen[1].eta_seconds is not None and seen[1].eta_seconds > 0
    assert Download.under_way() == (download,)
    last = ended(download)
    assert (last.state, last.done_bytes) == ("done", before["disk_bytes"])
    assert Download.under_way() == ()
    assert weights(tmp_path) == safetensors(BIG)
    assert hub.cached_snapshot("me/big", "model") is not None, "main is known without network"
    after = look(server, tmp_path, "me/big")
    assert after["cached"] and after["download_bytes"] == 0 and after["parameters"] == before["parameters"]
    assert after["revision"] == COMMIT
    assert not [path for _method, path, _ in server.requests if path.endswith(".py")], "no code is fetched"


def test_a_killed_download_goes_on_where_it_was(server: Hub, tmp_path: Path) -> None:
    repository = big(server, bytes_per_second=1_500_000)
    download = Download.start("me/big")
    state = until(download, lambda s: s.done_bytes > 1_000_000)
    os.kill(download.pid, signal.SIGKILL)
    assert refused(download, "download-ended").fix
    repository.bytes_per_second = 0
    again = Download.start("me/big")
    assert again.pid != download.pid
    assert ended(again).state == "done"
    starts = pulled(server)
    assert starts[0] == 0 and starts[-1] >= state.done_bytes - 10_000 > 0, starts
    assert weights(tmp_path) == safetensors(BIG)


def test_a_connection_cut_twice_is_taken_up_again(server: Hub, tmp_path: Path) -> None:
    big(server, cut_after=[1_000_000, 500_000])
    assert ended(Download.start("me/big")).state == "done"
    assert pulled(server) == [0, 1_000_000, 1_500_000]
    assert weights(tmp_path) == safetensors(BIG)


def test_a_damaged_part_is_not_believed(server: Hub, tmp_path: Path) -> None:
    big(server)
    blobs = tmp_path / "hf/hub/models--me--big/blobs"
    blobs.mkdir(parents=True)
    import hashlib

    name = hashlib.sha256(safetensors(BIG)).hexdigest()
    (blobs / f"{name}.finetui.incomplete").write_bytes(b"x" * 1000)
    refused(Download.start("me/big"), "hub-damaged")
    assert ended(Download.start("me/big")).state == "done", "and is gone the next time"
    assert weights(tmp_path) == safetensors(BIG)


def test_cancel_keeps_what_is_there(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big(server, bytes_per_second=1_000_000)
    download = Download.start("me/big")
    until(download, lambda s: s.done_bytes > 300_000)
    download.cancel()
    assert ended(download).state == "cancelled"
    (partial,) = (tmp_path / "hf/hub/models--me--big/blobs").glob("*.finetui.incomplete")
    assert partial.stat().st_size > 200_000
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FinetuiError) as caught:
        model.inspect("me/big")
    assert caught.value.code == "hub-offline", "half a model is none"


def test_one_download_for_all(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big(server, bytes_per_second=2_000_000)
    first = Download.start("me/big")
    until(first, lambda s: s.done_bytes > 100_000)
    assert Download.start("me/big") == first, "another wizard follows"
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "other"))
    second = Download.start("me/big")  # knows nothing of the first, as a training run
    until(second, lambda s: s.done_bytes > 200_000)
    assert (ended(first).state, ended(second).state) == ("done", "done")
    assert pulled(server) == [0], "it was waited for, and not fetched twice"


def test_a_download_ends_with_the_wizard_that_started_it(server: Hub, tmp_path: Path) -> None:
    big(server, bytes_per_second=100_000)
    script = "from finetui.core.model_download import Download; print(Download.start('me/big').pid)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    pid = int(done.stdout)
    waiting.until(lambda: waiting.has_ended(pid), "for its end")


def test_too_little_space_is_said_with_both_figures(server: Hub) -> None:
    repository = big(server)
    siblings = [{"rfilename": n, "size": len(c)} for n, c in repository.files.items()]
    siblings[1]["size"] = 1 << 60
    repository.info["siblings"] = siblings
    card = refused(Download.start("me/big"), "no-space")
    assert "TiB" in card.why and card.why.count("iB") == 2


def test_what_a_hub_in_trouble_says_is_shown(server: Hub, tmp_path: Path) -> None:
    server.add("models", "me/busy", {}, status=429, retry_after="90")
    server.add("models", "me/down", {}, status=503)
    server.add("models", "me/gated", remote(), gated=True)
    server.add("models", "me/forbidden", {}, status=403)
    server.add("models", "me/evil", remote() | {"../../x.json": b"{}"})
    server.add("models", "me/evil2", remote() | {"/etc/x.json": b"{}"})
    server.add("models", "me/evil3", remote() | {"a\x1b[31m.json": b"{}"})
    assert "1 min 30 s" in refused(Download.start("me/busy"), "hub-busy").fix
    refused(Download.start("me/down"), "hub-failed")
    refused(Download.start("me/gated"), "hub-gated")
    refused(Download.start("me/forbidden"), "hub-gated")
    refused(Download.start("me/none"), "hub-not-found")
    for name in ("me/evil", "me/evil2", "me/evil3"):
        card = refused(Download.start(name), "model-hostile")
        assert "\x1b" not in str(card)
        assert look(server, tmp_path, name)["code"] == "model-hostile"
    with pytest.raises(FinetuiError):
        Download.start("../../etc")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_token_goes_to_the_hub_and_nowhere_else(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running() as elsewhere:
        files = remote(model__safetensors=safetensors(BIG))
        elsewhere.add("models", "me/big", files)
        big(server, redirect=elsewhere.url.replace("127.0.0.1", host))
        look(server, tmp_path, "me/big", TOKEN)
        assert ended(Download.start("me/big")).state == "done"
        assert elsewhere.requests, "the weights came from there"
        assert {token for _method, _path, token in elsewhere.requests} == {None}
        assert {token for _method, _path, token in server.requests} - {None} == {f"Bearer {TOKEN}"}
    assert weights(tmp_path) == safetensors(BIG)
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert TOKEN.encode() not in file.read_bytes(), file


def test_links_that_lead_out_of_the_cache_are_refused(server: Hub, tmp_path: Path) -> None:
    server.add("models", "me/big", remote())
    assert ended(Download.start("me/big")).state == "done"
    assert model.inspect("me/big").parameters == PARAMETERS
    secret = tmp_path / "secret.json"
    secret.write_text('{"chat_template": "x"}')
    pointer = tmp_path / "hf/hub/models--me--big/snapshots" / COMMIT / "tokenizer_config.json"
    pointer.unlink()
    pointer.symlink_to(secret)
    with pytest.raises(FinetuiError) as caught:
        model.inspect("me/big")
    assert caught.value.code == "model-hostile"


def training_run(tiny_model: Path, tiny_rows: Path, server: Hub, **more: Any) -> Any:
    files = {p.name: p.read_bytes() for p in tiny_model.iterdir()}
    server.add("models", "me/tiny", files, **more)
    return harness.make_run(harness.recipe(Path("me/tiny"), tiny_rows, max_steps=1, warmup_steps=0))


def test_a_training_run_waits_for_a_download_that_is_under_way(
    server: Hub, tiny_model: Path, tiny_rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNSLOTH_OFFLINE")
    run = training_run(tiny_model, tiny_rows, server, bytes_per_second=2_500)
    download = Download.start("me/tiny")
    until(download, lambda s: s.done_bytes > 16_000)
    worker = harness.start("train", run)
    harness.until(lambda: [p for p in harness.events(run, Progress) if p.stage == "download"], worker)
    assert download.poll().live, "both are at it"
    server.repositories[0].bytes_per_second = 0
    assert harness.finish(worker, run) == 0 and harness.ended(run).reason == "completed"
    assert ended(download).state == "done"
    assert len(pulled(server)) == 1, "fetched once"


def test_a_run_can_be_stopped_while_it_downloads(
    server: Hub, tiny_model: Path, tiny_rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNSLOTH_OFFLINE")
    run = training_run(tiny_model, tiny_rows, server, bytes_per_second=5_000)
    worker = harness.start("train", run)
    harness.until(
        lambda: any(p.stage == "download" and p.done > 20_000 for p in harness.events(run, Progress)), worker
    )
    (run.control / "stop").touch()
    assert harness.finish(worker, run) == 0 and harness.ended(run).reason == "stopped"
