"""Uploads by the real huggingface_hub: what arrives, what is refused, and how a cut one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from finetui.core import leaving, upload
from finetui.core.errors import FinetuiError
from finetui.core.transfer import TransferState
from finetui.core.upload import Upload

from ..hub_server import Hub, reach, running
from ..outgoing import SECRET_ROW, finished_run

PATIENCE = 120.0
TOKEN = "hf_canaryCanaryCanary"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        more = {"HF_TOKEN": TOKEN, "FINETUI_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        reach(monkeypatch, found, tmp_path / "hf", **more)
        yield found


def until(one: Upload, condition: Callable[[TransferState], object]) -> TransferState:
    end = time.monotonic() + PATIENCE
    while not condition(state := one.poll()):
        assert time.monotonic() < end and state.live, (state, state.error and str(state.error))
        time.sleep(0.02)
    return state


def ended(one: Upload) -> TransferState:
    end = time.monotonic() + PATIENCE
    while (state := one.poll()).live:
        assert time.monotonic() < end, state
        time.sleep(0.02)
    return state


def refused(one: Upload, code: str) -> FinetuiError:
    state = ended(one)
    assert state.state == "failed" and state.error is not None, state
    assert state.error.code == code, str(state.error)
    return state.error


def test_everything_arrives_privately_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    run = finished_run()
    plan = upload.plan(run, ("adapter", "merged", "gguf_q8_0"), "me/all")
    assert plan.private and not plan.exists and not hub.repositories, "a plan changes nothing"
    assert "private" in "\n".join(plan.lines()) and "apache-2.0" in "\n".join(plan.lines())
    one = Upload.start(plan)
    assert Upload.start(plan) == one, "another wizard follows"
    state = ended(one)
    assert state.state == "done" and state.done_bytes == state.total_bytes == plan.bytes, str(state.error)
    (repository,) = hub.repositories
    assert repository.private and repository.id == "me/all"
    sent = {name: content for name, content in repository.files.items() if name != ".gitattributes"}
    exports = run.exports
    assert sent["model.safetensors"] == (exports / "merged/model.safetensors").read_bytes()
    assert (
        sent["adapter/adapter_model.safetensors"]
        == (exports / "adapter/adapter_model.safetensors").read_bytes()
    )
    assert sent["demo-Q8_0.gguf"] == (exports / "gguf_q8_0/demo-Q8_0.gguf").read_bytes()
    assert sent["system"] == b"Answer in JSON." and b"{{ range .Messages }}" in sent["template"]
    assert sent["params"] == b'{\n  "stop": [\n    "<|im_end|>"\n  ]\n}'
    assert b"/home/somebody" not in sent["adapter/adapter_config.json"]
    assert b"license: apache-2.0" in sent["README.md"] and b"**same**" in sent["README.md"]
    assert not [name for name in sent if "proof" in name]
    assert not [name for name, content in sent.items() if SECRET_ROW.encode() in content]
    assert len(hub.uploads.commits) == 1, "the repository changes once"
    assert {token for _m, _p, token in hub.requests if token} == {f"Bearer {TOKEN}"}
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert TOKEN.encode() not in file.read_bytes(), file


def test_the_token_is_in_no_argument(hub: Hub) -> None:
    hub.uploads.bytes_per_second = 50_000
    one = Upload.start(upload.plan(finished_run(("gguf_q8_0",), 1_000_000), (), "me/demo"))
    until(one, lambda s: s.done_bytes > 0)
    assert TOKEN not in " ".join(psutil.Process(one.pid).cmdline())
    one.cancel()
    assert ended(one).state == "cancelled"


def test_a_killed_upload_sends_nothing_twice(hub: Hub) -> None:
    run = finished_run(("merged", "gguf_q8_0"), 1_500_000)
    hub.uploads.bytes_per_second = 1_500_000
    plan = upload.plan(run, ("merged", "gguf_q8_0"), "me/demo")
    one = Upload.start(plan)
    state = until(one, lambda s: s.done_bytes > 1_800_000)
    os.kill(one.pid, signal.SIGKILL)
    assert "not sent twice" in refused(one, "upload-ended").fix
    assert state.total_bytes == plan.bytes and not hub.uploads.commits
    hub.uploads.bytes_per_second = 0
    again = upload.plan(run, ("merged", "gguf_q8_0"), "me/demo")
    assert again.exists and not again.others, "the half-filled repository is known as ours"
    assert ended(Upload.start(again)).state == "done"
    first = next(i for i in plan.items if i.name == "model.safetensors")
    whole = [oid for oid, size in hub.uploads.received if size == first.bytes]
    assert whole.count(leaving.digest(first.source)) == 1
    before = len(hub.uploads.received)
    assert ended(Upload.start(upload.plan(run, ("merged", "gguf_q8_0"), "me/demo"))).state == "done"
    assert len(hub.uploads.received) == before and len(hub.uploads.commits) == 1, "nothing was left to send"


def test_a_connection_cut_in_mid_file_is_taken_up_again(hub: Hub) -> None:
    run = finished_run(("gguf_q8_0",), 1_000_000)
    hub.uploads.cut_after = [300_000]
    assert ended(Upload.start(upload.plan(run, (), "me/demo"))).state == "done"
    assert len(hub.uploads.received) == 2
    (repository,) = hub.repositories
    assert repository.files["demo-Q8_0.gguf"] == (run.exports / "gguf_q8_0/demo-Q8_0.gguf").read_bytes()


def test_hf_xet_sends_it_and_skips_what_is_there(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_XET")
    hub.uploads.xet = tmp_path / "store"
    run = finished_run(("gguf_q8_0",), 3_000_000)
    one = Upload.start(upload.plan(run, (), "me/demo"))
    state = ended(one)
    assert state.state == "done", str(state.error)
    assert state.done_bytes == state.total_bytes > 3_000_000
    assert not hub.uploads.received and ("me/demo", "demo-Q8_0.gguf") in hub.uploads.pointers
    stored = sum(p.stat().st_size for p in (tmp_path / "store").rglob("*") if p.is_file())
    assert stored > 2_900_000
    assert ended(Upload.start(upload.plan(run, (), "me/other"))).state == "done"
    again = sum(p.stat().st_size for p in (tmp_path / "store").rglob("*") if p.is_file())
    assert again - stored < 300_000, "the same bytes were not sent again"


_RECORDED = """
import json, sys
from finetui.core.worker import upload
class Sent:
    total = 0
    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)
        if name == "done":
            print(value)
upload.send(json.load(open(sys.argv[1])), Sent())
"""


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
def test_bytes_are_told_while_a_file_is_on_its_way(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xet: bool
) -> None:
    if xet:
        monkeypatch.delenv("HF_HUB_DISABLE_XET")
        hub.uploads.xet = tmp_path / "store"
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    run = finished_run(
        ("gguf_q8_0",), 260_000_000 if xet else 4_000_000
    )  # hf_xet tells of it 5 times a second
    hub.uploads.refuse = {"create": 403}
    plan = upload.plan(run, (), "me/demo")
    one = Upload.start(plan)
    refused(one, "hub-no-rights")
    hub.uploads.refuse = {}
    argv = [sys.executable, "-c", _RECORDED, str(one.folder / upload.PLAN)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=240)
    assert not ran.stderr, "no bar is drawn"
    done = [int(line) for line in ran.stdout.split()]
    assert done == sorted(done) and done[-1] == plan.bytes
    assert [part for part in done if 0.1 * plan.bytes < part < 0.9 * plan.bytes], "not all at once"


def test_what_arrived_damaged_is_said(hub: Hub) -> None:
    hub.uploads.spoil = True
    refused(Upload.start(upload.plan(finished_run(("gguf_q8_0",)), (), "me/demo")), "upload-differs")


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        ("create", 403, "hub-no-rights"),
        ("create", 429, "hub-busy"),
        ("preupload", 403, "hub-no-rights"),
        ("put", 413, "hub-refused"),
        ("commit", 403, "hub-no-rights"),
        ("commit", 500, "hub-failed"),
    ],
)
def test_refusals_in_mid_upload(hub: Hub, step: str, status: int, code: str) -> None:
    hub.uploads.refuse = {step: status}
    hub.uploads.message = "Storage limit [reached]"
    hub.uploads.retry_after = "90" if status == 429 else ""
    run = finished_run(("gguf_q8_0",))
    card = refused(Upload.start(upload.plan(run, (), "me/demo")), code)
    if status == 429:
        assert "1 min 30 s" in card.fix
    else:
        assert "Storage limit [reached]" in card.why
    if code == "hub-failed":
        hub.uploads.refuse = {}
        state = ended(Upload.start(upload.plan(run, (), "me/demo")))
        assert state.state == "done", f"and then it goes on: {state.error}"
