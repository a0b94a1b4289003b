"""Models by hub id, cached or not: what is asked of the hub, and what is refused with which card."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetui.core import hub, model

from ..hub_server import COMMIT, running
from .model_files import PARAMETERS, WEIGHTS, ask, refused, remote, safetensors, snapshot


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Qwen/Qwen3-0.6B", True),
        ("gpt2", True),
        ("a/b/c", False),
        ("../x", False),
        ("a b", False),
        ("", False),
    ],
)
def test_hub_ids(text: str, answer: bool) -> None:
    assert hub.is_id(text) is answer


def test_a_cached_model_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    snapshot(tmp_path, "me/tiny", README__md=b"---\nlicense: mit\n---\n")
    facts = model.inspect("me/tiny")
    assert (facts.kind, facts.cached, facts.revision, facts.license) == ("hub", True, COMMIT, "mit")
    assert facts.parameters == PARAMETERS
    assert model.inspect("me/tiny", COMMIT).cached
    assert refused("me/other").code == "hub-offline"


def test_a_half_cached_model_is_not_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    snapshot(tmp_path, "me/half", model__safetensors=None)
    snapshot(tmp_path, "me/lora", config__json=None, adapter_config__json={})
    assert refused("me/half").code == "hub-offline"
    assert refused("me/lora").code == "model-adapter"


def test_models_on_the_hub(tmp_path: Path) -> None:
    with running() as server:
        counted = {
            "safetensors": {"parameters": {"BF16": PARAMETERS}, "total": PARAMETERS},
            "cardData": {"license": "mit"},
        }
        server.add("models", "me/tiny", remote(), info=counted)
        server.add(
            "models", "me/base", remote(tokenizer_config__json=b"{}"), info={"tags": ["license:apache-2.0"]}
        )
        server.add("models", "me/jinja", remote(tokenizer_config__json=None, chat_template__jinja=b"x"))
        server.add("models", "me/gated", remote(), gated=True)
        server.add("models", "me/private", remote(), private=True)
        server.add(
            "models", "me/lora", {"adapter_config.json": b"{}"}, info={"cardData": {"base_model": "me/tiny"}}
        )
        server.add("models", "me/packed-GGUF", {"x.gguf": b"GGUF"})
        server.add("models", "me/pickle", remote(model__safetensors=None, pytorch_model__bin=b"x"))
        server.add(
            "models",
            "me/code",
            remote(config__json=b'{"model_type": "evil", "auto_map": {"AutoModel": "x.Y"}}'),
        )
        server.add("models", "me/busy", {}, status=429)
        server.add("models", "me/down", {}, status=503)
        names = [r.id for r in server.repositories]
        answers = ask(server, tmp_path, *names, "me/none", "me/tiny@v9")
        assert not any(authorization for _, _, authorization in server.requests), (
            "no token was set, none is sent"
        )
        asked = [
            (name, part) for name, part in server.ranges if name.endswith((".safetensors", ".bin", ".gguf"))
        ]
        assert asked and all(part.startswith("bytes=0-") for _name, part in asked), "headers, and no weights"

    tiny = answers["me/tiny"]
    assert (tiny["parameters"], tiny["license"], tiny["revision"]) == (PARAMETERS, "mit", COMMIT)
    assert (tiny["cached"], tiny["chat_template"], tiny["dtype"]) == (False, True, "bfloat16")
    assert tiny["weights_bytes"] == len(safetensors(WEIGHTS))
    assert (answers["me/base"]["chat_template"], answers["me/base"]["license"]) == (False, "apache-2.0")
    assert answers["me/jinja"]["chat_template"] is True
    codes = {name: answer["code"] for name, answer in answers.items() if "code" in answer}
    assert codes == {
        "me/gated": "hub-gated",
        "me/private": "hub-not-found",
        "me/none": "hub-not-found",
        "me/tiny@v9": "hub-revision",
        "me/lora": "model-adapter",
        "me/packed-GGUF": "model-gguf",
        "me/pickle": "model-pickle",
        "me/code": "model-remote-code",
        "me/busy": "hub-busy",
        "me/down": "hub-failed",
    }
    assert "me/tiny" in answers["me/lora"]["text"]
    assert "HF_TOKEN" in answers["me/gated"]["text"]


def test_the_token_opens_private_models_and_is_never_shown(tmp_path: Path) -> None:
    token = "hf_canarycanarycanary"
    with running() as server:
        server.add("models", "me/private", remote(), private=True)
        server.add("models", "me/gated", remote(), gated=True)
        answers = ask(server, tmp_path, "me/private", "me/gated", token=token)
        assert {authorization for _, _, authorization in server.requests} - {None} == {f"Bearer {token}"}
    assert answers["me/private"]["architecture"] == "LlamaForCausalLM"
    assert answers["me/gated"]["code"] == "hub-gated"
    assert token not in json.dumps(answers)
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and token.encode() in f.read_bytes()]


def test_no_hub_at_the_address(tmp_path: Path) -> None:
    answers = ask("http://127.0.0.1:9", tmp_path, "me/tiny")
    assert answers["me/tiny"]["code"] == "hub-offline"


def test_importing_the_step_loads_no_hub_library() -> None:
    script = (
        "import sys; import finetui.core.model, finetui.core.dataset, finetui.core.doctor; "
        "finetui.core.model.inspect('demo'); "
        "print([m for m in ('huggingface_hub', 'httpx', 'pyarrow', 'torch', 'datasets', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"
