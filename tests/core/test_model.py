"""Models by folder and by hub id: what is read from them, and what is refused with which card."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetui.core import hub, model
from finetui.core.errors import FinetuiError

from ..hub_server import COMMIT, Hub, running

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
WEIGHTS = {"model.embed_tokens.weight": [300, 64], "model.layers.0.self_attn.q_proj.weight": [64, 64]}
PARAMETERS = 300 * 64 + 64 * 64


def safetensors(shapes: dict[str, list[int]], dtype: str = "BF16", width: int = 2) -> bytes:
    """A safetensors file with zeros: 8 bytes of length, a JSON header, the data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = width
        for n in shape:
            size *= n
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * end


def folder(path: Path, **changes: Any) -> Path:
    """A whole small model; `changes` are files by name (with `__` for `.`), None leaves one out."""
    files: dict[str, Any] = {
        "config.json": CONFIG,
        "model.safetensors": safetensors(WEIGHTS),
        "tokenizer.json": {},
        "tokenizer_config.json": {"chat_template": "{{ messages }}"},
    }
    files.update({name.replace("__", "."): content for name, content in changes.items()})
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if content is not None:
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            (path / name).write_bytes(raw)
    return path


def refused(source: str | Path) -> FinetuiError:
    with pytest.raises(FinetuiError) as caught:
        model.inspect(str(source))
    assert caught.value.what and caught.value.fix, "a card has a what and a fix"
    return caught.value


def test_the_demo_is_known_without_being_prepared() -> None:
    facts = model.inspect("demo")
    assert (facts.title, facts.parameters, facts.tied_embeddings) == (
        "SmolLM2-135M-Instruct",
        134_515_008,
        True,
    )
    layer = 576 * 576 * 2 + 576 * 192 * 2 + 3 * 576 * 1536 + 2 * 576
    assert facts.parameters == 49_152 * 576 + 30 * layer + 576, "the figures agree with each other"
    model.check_template(facts)


def test_a_folder_is_read_from_its_headers(tmp_path: Path) -> None:
    facts = model.inspect(str(folder(tmp_path / "tiny")))
    assert (facts.kind, facts.title, facts.architecture) == ("folder", "tiny", "LlamaForCausalLM")
    assert facts.parameters == PARAMETERS
    assert (facts.hidden_size, facts.intermediate_size, facts.layers) == (64, 128, 2)
    assert (facts.heads, facts.kv_heads, facts.head_size) == (4, 2, 16)
    assert (facts.vocabulary, facts.context_length, facts.dtype) == (300, 2048, "bfloat16")
    assert facts.chat_template is True and facts.cached
    assert facts.weights_bytes == (tmp_path / "tiny" / "model.safetensors").stat().st_size


def test_shards_are_added_up_and_an_own_output_layer_counts(tmp_path: Path) -> None:
    untied = {**CONFIG}
    del untied["tie_word_embeddings"]
    place = folder(tmp_path / "m", config__json=untied, model__safetensors=None)
    (place / "model-00001-of-00002.safetensors").write_bytes(safetensors(WEIGHTS))
    (place / "model-00002-of-00002.safetensors").write_bytes(safetensors({"lm_head.weight": [300, 64]}))
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    facts = model.inspect(str(place))
    assert facts.parameters == PARAMETERS + 300 * 64
    assert facts.tied_embeddings is False

    (place / "config.json").write_text(json.dumps(CONFIG))
    assert model.inspect(str(place)).parameters == PARAMETERS, "a tied output layer is not counted twice"

    (place / "model-00002-of-00002.safetensors").unlink()
    card = refused(place)
    assert card.code == "model-broken" and "model-00002-of-00002" in card.why
    (place / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../x.safetensors"}}')
    assert "outside" in refused(place).what
    (place / "model.safetensors.index.json").unlink()
    assert refused(place).code == "model-broken"


def test_a_4bit_checkpoint_counts_two_weights_a_byte(tmp_path: Path) -> None:
    packed = "model.layers.0.mlp.up_proj.weight"
    config = {**CONFIG, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    shapes = {packed: [2048, 1], f"{packed}.absmax": [64], f"{packed}.quant_state.bitsandbytes__nf4": [80]}
    place = folder(tmp_path / "m", config__json=config, model__safetensors=safetensors(shapes, "U8", 1))
    facts = model.inspect(str(place))
    assert facts.is_4bit and facts.parameters == 4096


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({"tokenizer_config__json": {}}, False),
        ({"tokenizer_config__json": None}, False),
        ({"tokenizer_config__json": {"chat_template": [{"name": "default", "template": "x"}]}}, True),
        ({"tokenizer_config__json": {}, "chat_template__jinja": b"{{ messages }}"}, True),
    ],
)
def test_chat_templates(tmp_path: Path, files: dict[str, Any], template: bool) -> None:
    facts = model.inspect(str(folder(tmp_path / "m", **files)))
    assert facts.chat_template is template
    if not template:
        with pytest.raises(FinetuiError) as caught:
            model.check_template(facts)
        assert caught.value.code == "model-no-chat-template"


def test_the_instruct_version_is_suggested() -> None:
    def fix(source: str, kind: Any) -> str:
        with pytest.raises(FinetuiError) as caught:
            model.check_template(model.ModelFacts(source, kind, source.split("/")[-1], chat_template=False))
        return caught.value.fix

    assert "unsloth/Llama-3.2-1B-Instruct" in fix("meta-llama/Llama-3.2-1B", "hub")
    assert "unsloth/gemma-3-1b-it" in fix("google/gemma-3-1b-pt", "hub")
    assert "me/Thing-Instruct" in fix("me/Thing", "hub")
    assert "unsloth/" in fix("/models/thing", "folder")


@pytest.mark.parametrize(
    ("files", "code", "word"),
    [
        ({"config__json": None, "model__safetensors": None}, "model-not-a-model", "config.json"),
        ({"config__json": None, "x__gguf": b"GGUF"}, "model-gguf", "GGUF"),
        ({"model__safetensors": None, "x__Q4_1__gguf": b"GGUF"}, "model-gguf", "GGUF"),
        (
            {"config__json": None, "adapter_config__json": {"base_model_name_or_path": "Qwen/Qwen3-0.6B"}},
            "model-adapter",
            "Qwen/Qwen3-0.6B",
        ),
        ({"model__safetensors": None, "pytorch_model__bin": b"\x80"}, "model-pickle", "pytorch_model.bin"),
        ({"model__safetensors": None}, "model-no-weights", "no weights"),
        ({"model__safetensors": None, "tf_model__h5": b"x"}, "model-no-weights", "tf_model.h5"),
        ({"model__safetensors": safetensors(WEIGHTS)[:-100]}, "model-broken", "cut off"),
        ({"model__safetensors": b""}, "model-broken", "empty"),
        ({"model__safetensors": b"\xff" * 100}, "model-broken", "not a safetensors"),
        ({"model__safetensors": struct.pack("<Q", 4) + b"{]}}"}, "model-broken", "header"),
        ({"model__safetensors": struct.pack("<Q", 2) + b"[]"}, "model-broken", "header"),
        ({"model__safetensors": struct.pack("<Q", 2) + b"{}"}, "model-broken", "no weights"),
        (
            {"model__safetensors": b"version https://git-lfs.github.com/spec/v1\n"},
            "model-broken",
            "git lfs pull",
        ),
        ({"config__json": b"{not json"}, "model-broken", "config.json"),
        ({"config__json": b"[1]"}, "model-broken", "config.json"),
        ({"config__json": b"[" * 200_000}, "model-broken", "config.json"),
        ({"config__json": {}}, "model-not-a-model", "model_type"),
        ({"tokenizer__json": None}, "model-no-tokenizer", "tokenizer"),
        (
            {"config__json": {**CONFIG, "model_type": "evil", "auto_map": {"AutoModel": "x.Y"}}},
            "model-remote-code",
            "remote code",
        ),
        (
            {
                "config__json": {
                    "architectures": ["WhisperForConditionalGeneration"],
                    "is_encoder_decoder": True,
                }
            },
            "model-not-text",
            "sound",
        ),
        (
            {"config__json": {"architectures": ["CLIPModel"], "model_type": "clip"}},
            "model-not-text",
            "images",
        ),
        ({"config__json": {"architectures": ["BertForMaskedLM"]}}, "model-not-text", "CausalLM"),
        (
            {"config__json": {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}},
            "model-not-text",
            "encoder",
        ),
        (
            {"config__json": {**CONFIG, "quantization_config": {"quant_method": "gptq"}}},
            "model-quantized",
            "GPTQ",
        ),
    ],
)
def test_what_cannot_be_tuned_gets_a_card(
    tmp_path: Path, files: dict[str, Any], code: str, word: str
) -> None:
    card = refused(folder(tmp_path / "m", **files))
    assert card.code == code
    assert word in str(card)


def test_models_that_are_tuned_although_they_look_odd(tmp_path: Path) -> None:
    phi = {**CONFIG, "model_type": "phi3", "auto_map": {"AutoConfig": "x.Y"}}
    assert model.inspect(str(folder(tmp_path / "phi", config__json=phi))).model_type == "phi3"
    inner = {"hidden_size": 32, "num_hidden_layers": 3}
    seeing = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": inner,
    }
    facts = model.inspect(str(folder(tmp_path / "g", config__json={**seeing, "vision_config": {}})))
    assert facts.sees_images and (facts.hidden_size, facts.layers) == (32, 3)


def test_paths_that_are_no_model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(tmp_path / "nope").code == "model-missing"
    assert refused("~nobody-at-all/x").code == "model-missing"
    assert refused("a/b/c").code == "model-missing"
    assert refused("nope.gguf").code == "model-missing"
    assert refused("/tmp/\0").code == "model-missing"
    place = folder(tmp_path / "outer" / "inner", x__gguf=b"GGUF", y__bin=b"x")
    assert refused(place / "x.gguf").code == "model-gguf"
    assert refused(place / "y.bin").code == "model-pickle"
    assert str(place) in refused(place / "model.safetensors").fix
    assert "inner" in refused(place.parent).fix
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model.inspect("~/outer/inner").title == "inner"
    monkeypatch.chdir(tmp_path / "outer")
    assert model.inspect("inner").kind == "folder", "an existing path comes before a hub id"


def test_hostile_names_are_made_safe(tmp_path: Path) -> None:
    config = {**CONFIG, "architectures": ["\x1b]52;c;x\x07LlamaForCausalLM"]}
    place = folder(tmp_path / "a\x1b[31mb", config__json=config)
    facts = model.inspect(str(place))
    assert "\x1b" not in facts.title + facts.architecture
    assert "\x1b" not in refused(tmp_path / "x\x1b[31m").what


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


# The hub


def snapshot(home: Path, repository: str, **changes: Any) -> Path:
    """A model in the hub's cache, as huggingface_hub lays it out."""
    root = home / "hub" / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    return folder(root / "snapshots" / COMMIT, **changes)


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


ASK = """
import dataclasses, json, sys
from finetui.core import model
from finetui.core.errors import FinetuiError
answers = {}
for source in sys.argv[1:]:
    name, _, revision = source.partition("@")
    try:
        answers[source] = dataclasses.asdict(model.inspect(name, revision or None))
    except FinetuiError as error:
        answers[source] = {"code": error.code, "text": str(error)}
print(json.dumps(answers, default=str))
"""


def ask(server: Hub | str, home: Path, *sources: str, token: str | None = None) -> dict[str, dict[str, Any]]:
    """`model.inspect` in a fresh process: huggingface_hub reads its variables when it is imported."""
    url = server if isinstance(server, str) else server.url
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
        environment.pop(name, None)
    if token:
        environment["HF_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-c", ASK, *sources],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing is drawn into the wizard's terminal"
    return json.loads(done.stdout)


def remote(**changes: bytes | None) -> dict[str, bytes]:
    files: dict[str, bytes | None] = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": safetensors(WEIGHTS),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b'{"chat_template": "x"}',
    }
    files.update({name.replace("__", "."): content for name, content in changes.items()})
    return {name: content for name, content in files.items() if content is not None}


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
