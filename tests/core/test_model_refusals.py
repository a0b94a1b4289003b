"""Tokenizers that do not fit, architectures that are not known, code of the repository's own, damaged repositories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetui.core import model
from finetui.core.errors import FinetuiError
from finetui.core.model_tokenizer import check_tokenizer, read_tokens

from ..hub_server import COMMIT, running
from .model_files import CONFIG, WEIGHTS, ask, folder, refused, remote, safetensors, snapshot

EVIL = {**CONFIG, "model_type": "evil", "auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}


def tokenizer(size: int, **added: int) -> dict[str, Any]:
    return {
        "truncation": {"max_length": 99_999},
        "added_tokens": [{"id": number, "content": name, "special": True} for name, number in added.items()],
        "model": {"type": "BPE", "vocab": {f"t{n}": n for n in range(size)}, "merges": [["a", "b"]]},
        "post_processor": {"special_tokens": {"x": {"ids": [123_456]}}},
    }


def test_the_details_pane_is_told_everything(tmp_path: Path) -> None:
    place = folder(
        tmp_path / "Thing-Instruct",
        tokenizer__json=tokenizer(298, end=298, turn=299),
        tokenizer_config__json={"chat_template": "{{ a }}\x1b[31m", "eos_token": {"content": "end"}},
        generation_config__json={"eos_token_id": [298, 299]},
    )
    facts = model.inspect(str(place))
    assert (facts.embedding_rows, facts.tokenizer_size) == (300, 300)
    assert facts.eos_tokens == ("end", "turn")
    assert facts.template_text == "{{ a }}" and facts.base is False
    assert facts.download_bytes == 0 and facts.remote_code_files == () and not facts.gated
    assert facts.disk_bytes == sum(p.stat().st_size for p in place.iterdir())
    assert model.inspect(str(folder(tmp_path / "Thing-Base"))).base is True
    assert model.inspect(str(folder(tmp_path / "Thing", tokenizer_config__json={}))).base is True
    several = {"chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]}
    assert model.inspect(str(folder(tmp_path / "n", tokenizer_config__json=several))).template_text == "D"
    jinja = folder(tmp_path / "j", tokenizer_config__json={}, chat_template__jinja=b"J")
    assert model.inspect(str(jinja)).template_text == "J"


def test_a_tokenizer_larger_than_the_embedding(tmp_path: Path) -> None:
    card = refused(folder(tmp_path / "a", tokenizer__json=tokenizer(300, extra=300)))
    assert card.code == "model-tokenizer" and "301" in card.why and "300" in card.why and "extra" in card.why
    assert refused(folder(tmp_path / "b", tokenizer__json=tokenizer(400))).code == "model-tokenizer"
    seeing = folder(tmp_path / "c", tokenizer__json=tokenizer(300, **{"<image_soft_token>": 300}))
    assert model.inspect(str(seeing)).tokenizer_size == 301, "as Gemma 3 1B"


def test_long_tokenizers_are_read_in_pieces(tmp_path: Path) -> None:
    names = [f'odd": {n * 7} "merges": [ \\' for n in range(60_000)]
    value = {
        "added_tokens": [],
        "model": {"vocab": {n: i for i, n in enumerate(names)}, "merges": ["a b"] * 9},
    }
    for text in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value, separators=(",", ":"))):
        file = tmp_path / "tokenizer.json"
        file.write_text(text)
        tokens = read_tokens(file, "x")
        assert tokens is not None and tokens.size == 60_000


@given(st.binary(max_size=300))
def test_no_tokenizer_file_breaks_it(content: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(b'{"added_tokens": [' + content)
        file.flush()
        tokens = read_tokens(Path(file.name), "x")
        try:
            check_tokenizer(tokens, 10, "x")
        except FinetuiError as card:
            assert card.code == "model-tokenizer"


def test_an_architecture_that_nobody_knows(tmp_path: Path) -> None:
    card = refused(folder(tmp_path / "a", config__json={**CONFIG, "model_type": "from_the_future"}))
    assert card.code == "model-unknown" and "from_the_future" in card.why
    nameless = {k: v for k, v in CONFIG.items() if k != "model_type"}
    assert refused(folder(tmp_path / "b", config__json=nameless)).code == "model-unknown"


def test_code_of_a_folder_runs_only_as_it_was_when_agreed_to(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", config__json=EVIL, modeling_evil__py=b"boom", helper__py=b"more")
    with pytest.raises(model.RemoteCodeFound) as caught:
        model.inspect(str(place))
    found = caught.value
    assert found.files == ("helper.py", "modeling_evil.py") and found.repo == str(place)
    assert len(found.revision) == 40 and found.revision in found.fix
    facts = model.inspect(str(place), remote_code=found.revision)
    assert facts.remote_code_files == found.files
    (place / "helper.py").write_bytes(b"changed")
    with pytest.raises(model.RemoteCodeFound) as caught:
        model.inspect(str(place), remote_code=found.revision)
    assert caught.value.revision != found.revision


@pytest.mark.parametrize(
    "config",
    [
        {**CONFIG, "model_type": "evil", "text_config": {"auto_map": {"AutoConfig": "x.Y"}}},
        {**CONFIG, "model_type": "evil", "auto_map": {"AutoModel": ["x.Y", None]}},
        {"model_type": "evil", "auto_map": {"AutoModelForCausalLM": "x.Y"}},
    ],
)
def test_nested_and_odd_forms_are_seen_too(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(model.RemoteCodeFound) as caught:
        model.inspect(str(folder(tmp_path / "m", config__json=config, x__py=b"boom")))
    assert caught.value.files == ("x.py",)


def test_code_of_another_repository_is_refused_whatever_was_agreed_to(tmp_path: Path) -> None:
    config = {
        **CONFIG,
        "model_type": "evil",
        "auto_map": {"AutoModelForCausalLM": "you/other--modeling.Evil"},
    }
    card = refused(folder(tmp_path / "m", config__json=config))
    assert card.code == "model-remote-code" and not isinstance(card, model.RemoteCodeFound)
    with pytest.raises(FinetuiError):
        model.inspect(str(tmp_path / "m"), remote_code="0" * 40)


def test_code_of_the_hub_needs_consent_to_exactly_this_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    snapshot(tmp_path, "me/evil", config__json=EVIL, modeling_evil__py=b"boom")
    with pytest.raises(model.RemoteCodeFound) as caught:
        model.inspect("me/evil")
    assert (caught.value.repo, caught.value.revision) == ("me/evil", COMMIT)
    assert model.inspect("me/evil", remote_code=COMMIT).remote_code_files == ("modeling_evil.py",)
    with pytest.raises(FinetuiError):
        model.inspect("me/evil", "main", "f" * 40)


def test_damaged_and_strange_repositories(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    parts = {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00002.safetensors": safetensors(WEIGHTS),
    }
    untied = json.dumps({k: v for k, v in CONFIG.items() if k != "tie_word_embeddings"}).encode()
    head = safetensors({"lm_head.weight": [300, 64]})
    with running() as server:
        whole = remote(model__safetensors=None, config__json=untied)
        server.add("models", "me/parts", whole | parts | {"model-00002-of-00002.safetensors": head})
        server.add("models", "me/missing", remote(model__safetensors=None) | parts)
        server.add(
            "models",
            "me/noindex",
            remote(model__safetensors=None) | {"model-00001-of-00002.safetensors": b""},
        )
        server.add("models", "me/long", remote(model__safetensors=b"\xff" * 100))
        server.add("models", "me/short", remote(model__safetensors=safetensors(WEIGHTS)[:-50]))
        server.add("models", "me/header", remote(model__safetensors=b"\x04" + b"\0" * 7 + b"{]}}"))
        server.add(
            "models",
            "me/lora",
            {"adapter_config.json": b'{"base_model_name_or_path": "me/\\u001b[31mparts"}'},
        )
        server.add(
            "models", "me/code", remote(config__json=json.dumps(EVIL).encode()) | {"modeling_evil.py": b"x"}
        )
        server.add(
            "models",
            "me/dated",
            remote(generation_config__json=b'{"eos_token_id": 2}', chat_template__jinja=b"J"),
            gated=False,
            info={"lastModified": "2026-01-02T03:04:05.000Z", "gated": "auto"},
        )
        server.add("models", "unsloth/dated-bnb-4bit", remote())
        answers = ask(server, tmp_path, *[r.id for r in server.repositories])
    parted = answers["me/parts"]
    assert parted["parameters"] == 300 * 64 * 2 + 64 * 64 and parted["tied_embeddings"] is False
    codes = {name: answer.get("code") for name, answer in answers.items()}
    for name in ("missing", "noindex", "long", "short", "header"):
        assert codes[f"me/{name}"] == "model-broken", (name, answers[f"me/{name}"])
    assert "model-00002-of-00002" in answers["me/missing"]["text"]
    assert codes["me/lora"] == "model-adapter" and "me/parts" in answers["me/lora"]["text"]
    assert codes["me/code"] == "model-remote-code" and COMMIT in answers["me/code"]["text"]
    dated = answers["me/dated"]
    assert (dated["updated"], dated["gated"], dated["template_text"]) == ("2026-01-02", True, "J")
    assert dated["four_bit_variant"] == "unsloth/dated-bnb-4bit" and parted["four_bit_variant"] is None
    assert (dated["embedding_rows"], dated["base"]) == (300, False)
