"""Hub datasets, looked at by the real `datasets` in a process of its own, against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetui.core import dataset
from finetui.core.dataset_hub import configs_and_splits
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection

from ..hub_server import Hub, running


def rows(count: int) -> bytes:
    return b"".join(
        json.dumps({"prompt": f"q{i}", "completion": f"a{i}"}).encode() + b"\n" for i in range(count)
    )


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        for name in (
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "HF_HUB_CACHE",
            "HF_DATASETS_OFFLINE",
            "TRANSFORMERS_OFFLINE",
        ):
            monkeypatch.delenv(name, raising=False)
        yield hub


def refused(**section: Any) -> FinetuiError:
    with pytest.raises(FinetuiError) as caught:
        dataset.inspect(DatasetSection(**section))
    assert caught.value.what and caught.value.fix, "a card has a what and a fix"
    return caught.value


def test_a_hub_dataset_is_looked_at_without_being_downloaded(server: Hub, tmp_path: Path) -> None:
    server.add("datasets", "me/set", {"data/train.jsonl": rows(300), "data/test.jsonl": rows(7)})
    facts = dataset.inspect(DatasetSection(source="me/set"))
    assert (facts.kind, facts.title, facts.detection.format) == ("hub", "set", "prompt_completion")
    assert (facts.rows, facts.evaluation_rows, facts.train_rows) == (300, 30, 270)
    assert [turn.text for turn in facts.first[0]] == ["q0", "a0"] and len(facts.first) == 20
    assert dataset.inspect(DatasetSection(source="me/set", split="test")).rows == 7
    card = refused(source="me/set", split="validation")
    assert card.code == "dataset-split" and "train, test" in card.why


def test_configurations_are_listed(server: Hub) -> None:
    names = "configs:\n- config_name: en\n  data_files: en.jsonl\n- config_name: de\n  data_files: de.jsonl\n"
    files = {"README.md": f"---\n{names}---\n".encode(), "en.jsonl": rows(5), "de.jsonl": rows(6)}
    server.add("datasets", "me/several", files)
    card = refused(source="me/several")
    assert card.code == "dataset-split" and "en, de" in card.why
    assert dataset.inspect(DatasetSection(source="me/several", config="de")).rows == 6
    assert configs_and_splits("me/several") == {"en": ("train",), "de": ("train",)}


def test_splits_are_listed_or_a_card_says_why_not(server: Hub) -> None:
    server.add("datasets", "me/set", {"data/train.jsonl": rows(3), "data/test.jsonl": rows(2)})
    assert configs_and_splits("me/set") == {"default": ("train", "test")}
    for source, code in (("me/none", "hub-not-found"), ("no id", "dataset-missing")):
        with pytest.raises(FinetuiError) as caught:
            configs_and_splits(source)
        assert caught.value.code == code


def test_a_split_of_the_hub_is_held_out_and_others_are_mixed_in(server: Hub, tmp_path: Path) -> None:
    server.add("datasets", "me/set", {"data/train.jsonl": rows(30), "data/test.jsonl": rows(7)})
    mixed = tmp_path / "more.jsonl"
    mixed.write_bytes(b'{"question": "x", "answer": "y"}\n')
    section = DatasetSection(source="me/set", evaluation_split="test", mix={str(mixed): 2.0})
    facts = dataset.inspect(section)
    assert (facts.rows, facts.train_rows, facts.evaluation_rows) == (31, 32, 7)
    other_way = DatasetSection(source=str(mixed), mix={"me/set": 1.0}, evaluation_share=0.0)
    assert dataset.inspect(other_way).rows == 31


def test_what_cannot_be_had_gets_a_card(server: Hub) -> None:
    server.add("datasets", "me/gated", {"train.jsonl": rows(3)}, gated=True)
    server.add("datasets", "me/script", {"script.py": b"print('never run')"})
    server.add("datasets", "me/odd", {"train.jsonl": b'{"colour": "red"}\n{"colour": "blue"}\n'})
    assert refused(source="me/none").code == "hub-not-found"
    assert refused(source="me/gated").code == "hub-gated"
    assert refused(source="me/script").code == "dataset-remote-code"
    card = refused(source="me/odd")
    assert card.code == "dataset-format" and "colour" in card.why


def test_no_network(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    card = refused(source="me/set")
    assert card.code == "hub-offline" and "127.0.0.1:9" in card.why
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    card = refused(source="me/set")
    assert card.code == "hub-offline" and "HF_HUB_OFFLINE" in card.why


def test_a_look_that_takes_too_long_is_ended(server: Hub) -> None:
    with pytest.raises(FinetuiError) as caught:
        dataset.inspect(DatasetSection(source="me/set"), timeout_seconds=0)
    assert caught.value.code == "dataset-slow"


@pytest.mark.parametrize("request_text", ["", "{", '{"surprise": 1}', '{"source": "/nowhere.jsonl"}'])
def test_any_request_gets_an_answer(request_text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "finetui.core.worker.peek"],
        input=request_text,
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ),
        check=True,
    )
    assert set(json.loads(done.stdout)["error"]) == {"what", "why", "fix", "code"}
