"""A real child with the tiny model: what it answers is what Transformers' own generate gives, and it may die at any time."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetui.core import recipe_file, talk
from finetui.core.errors import FinetuiError
from finetui.core.recipe import LoraSection
from finetui.core.runs import checkpoints
from finetui.core.runs.store import RunFolder
from finetui.core.talk import Sampling, Target
from finetui.core.talking import Talker
from finetui.core.worker.answering import cpu_dtype
from tests import waiting

from . import exporting, tiny

QUESTION = (("user", "Item 3: which colour?"),)
SHORT = Sampling(max_new_tokens=24)


@pytest.fixture(scope="module")
def target(tuned: exporting.Tuned) -> Target:
    return Target("adapter", tuned.run.adapter, "tiny", base=str(tuned.base))


@pytest.fixture(scope="module")
def talker(target: Target) -> Iterator[Talker]:
    made = Talker(target)
    made.wait_ready()
    yield made
    made.close()


def bare(tuned: exporting.Tuned, side: str) -> tuple[tuple[int, ...], str]:
    """Tokens and text: what a bare script gets from generate, in the precision that the talk uses."""
    return generated(tuned.base, tuned.run.adapter if side == "tuned" else None)


def generated(folder: Path, adapter: Path | None = None) -> tuple[tuple[int, ...], str]:
    """As `bare`, of the model in `folder`."""
    from peft import PeftModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=cpu_dtype(folder))
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION[0][1]}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )["input_ids"]
    with torch.no_grad():
        written = model.eval().generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False
        )
    answer = written[0, ids.shape[1] :].tolist()
    return tuple(answer), str(tokenizer.decode(answer, skip_special_tokens=True))


def test_both_sides_of_one_loaded_model_answer_as_generate_does(
    talker: Talker, tuned: exporting.Tuned
) -> None:
    answers = {}
    for side in talker.target.sides:
        writing = talker.ask(side, QUESTION, SHORT)
        pieces = list(writing.pieces())
        reply = writing.wait()
        assert (reply.ids, reply.text) == bare(tuned, side)
        assert pieces and len("".join(pieces)) == len(reply.text)
        assert reply.tokens > 0 and reply.seconds >= reply.first_seconds > 0 and writing.prompt_tokens > 10
        answers[side] = reply.ids
    assert answers["base"] != answers["tuned"]


def test_seeds_stops_and_limits(talker: Talker) -> None:
    chance = Sampling(temperature=1.0, seed=7, max_new_tokens=16)
    first, again = (talker.ask("tuned", QUESTION, chance).wait() for _ in range(2))
    other = talker.ask("tuned", QUESTION, chance.model_copy(update={"seed": 8})).wait()
    assert first.ids == again.ids != other.ids
    assert first.reason in ("end", "length")
    whole = talker.ask("tuned", QUESTION, SHORT).wait().text
    stop = whole[3:6]
    cut = talker.ask("tuned", QUESTION, SHORT, [stop]).wait()
    assert cut.text == whole[: whole.index(stop)] and cut.reason == "end"
    with pytest.raises(FinetuiError) as caught:
        talker.ask("tuned", (("user", "x" * 4000),), SHORT).wait()
    assert caught.value.code == "talk-too-long"
    long = talker.ask("base", QUESTION, Sampling(max_new_tokens=1900))
    next(iter(long.pieces()))
    talker.stop(long)
    stopped = long.wait()
    assert stopped.reason == "stopped" and stopped.tokens < 1900


def test_a_killed_child_is_a_card(target: Target) -> None:
    talker = Talker(target)
    pid = talker.pid
    assert pid is not None
    talker.wait_ready()
    writing = talker.ask("base", QUESTION, Sampling(max_new_tokens=1900))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(FinetuiError) as caught:
        writing.wait()
    assert caught.value.code == "talk-ended"
    with pytest.raises(FinetuiError):
        talker.ask("tuned", QUESTION).wait()
    talker.close()


def test_a_gguf_answers_through_its_own_template(tuned: exporting.Tuned, tmp_path: Path) -> None:
    from finetui.core.worker import converting, llama_cpp

    file = tmp_path / "tiny.gguf"
    tool = llama_cpp.converter(lambda _said: None, lambda: None)
    converting.convert(tool, tuned.base, file, "f16", lambda _share: None, name="tiny", begins=False)
    talker = Talker(talk.find(str(file)))
    try:
        now = talker.wait_ready()
        assert not now.plain and talker.target.sides == ("tuned",)
        writing = talker.ask("tuned", QUESTION, SHORT)
        reply = writing.wait()
        assert reply.tokens == 24 and reply.reason == "length" and writing.prompt_tokens > 10
        long = talker.ask("tuned", QUESTION, Sampling(max_new_tokens=1900))
        next(iter(long.pieces()))
        talker.stop(long)
        stopped = long.wait()
        assert stopped.reason == "stopped" and stopped.tokens >= len(stopped.text) > 0
        with pytest.raises(FinetuiError) as caught:
            talker.ask("tuned", (("user", "é" * 1500),), SHORT).wait()
        assert caught.value.code == "talk-too-long"
        [tokens] = re.findall(r"It is ([\d,]+) tokens", caught.value.why)
        assert 3000 < int(tokens.replace(",", "")) < 3100, (
            "two bytes a character, a token each, and the template's"
        )
    finally:
        talker.close()


def test_a_malformed_gguf_is_a_card(tmp_path: Path) -> None:
    for name, content in (("no.gguf", b"GGUF\3\0\0\0"), ("text.gguf", b"hello" * 100)):
        file = tmp_path / name
        file.write_bytes(content)
        talker = Talker(talk.find(str(file)))
        with pytest.raises(FinetuiError) as caught:
            talker.wait_ready()
        assert caught.value.code == "gguf-broken"


def test_a_checkpoint_is_copied_only_while_its_seal_holds(tuned: exporting.Tuned, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "checkpoint-5"
    shutil.copytree(tuned.run.adapter, checkpoint)
    checkpoints.seal(checkpoint)
    (checkpoint / "late.json").write_text("{}")
    newer = run / "checkpoints" / "checkpoint-9"
    shutil.copytree(tuned.run.adapter, newer)
    checkpoints.seal(newer)
    (newer / "adapter_config.json").write_text("{}")
    recipe_file.save(tuned.recipe, run / "recipe.yaml")
    target = talk.find(str(run))
    assert target.kind == "checkpoint" and target.system_prompt == exporting.SYSTEM_PROMPT
    talker = Talker(target)
    try:
        assert talker.wait_ready().step == 5
        assert talker.ask("tuned", QUESTION, SHORT).wait().ids == bare(tuned, "tuned")[0]
    finally:
        talker.close()


@pytest.mark.parametrize("kind", ["merged", "checkpoint"])
def test_a_fully_tuned_model_answers_beside_its_base(
    kind: str, tuned: exporting.Tuned, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    model = run.model if kind == "merged" else run.checkpoints / "checkpoint-5"
    tiny.make(model, seed=1)
    checkpoints.seal(model)
    recipe_file.save(tuned.recipe.model_copy(update={"lora": LoraSection(method="full")}), run.recipe)
    target = talk.find(str(run.path))
    assert (target.kind, target.sides) == (kind, ("base", "tuned"))
    talker = Talker(target)
    try:
        assert talker.wait_ready().step == (5 if kind == "checkpoint" else None)
        expected: dict[talk.Side, Path] = {"tuned": model, "base": tuned.base}
        for side, folder in expected.items():
            assert talker.ask(side, QUESTION, SHORT).wait().ids == generated(folder)[0]
    finally:
        talker.close()


def test_the_child_ends_with_its_talker(target: Target) -> None:
    talker = Talker(target)
    pid = talker.pid
    assert pid is not None
    talker.close()
    waiting.until(lambda: waiting.has_ended(pid), "for its end")
