"""Models in folders: what is read from them, and what is refused with which card."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from finetui.core import model
from finetui.core.errors import FinetuiError

from .model_files import CONFIG, PARAMETERS, WEIGHTS, folder, refused, safetensors


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
