"""The loss mask, token by token: in the rows, and in the batches that the trainer really takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetui.core.dataset import Turn
from finetui.core.errors import FinetuiError
from finetui.core.recipe import Recipe
from finetui.core.worker.chat import IGNORED, Chat, Encoded, Unrenderable

from . import harness, tiny

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n\n' + m['content'] | trim + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)
# Drops what was thought in earlier turns, as Qwen 3 does: a prefix does not render like the whole.
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
SWALLOWING = "{% for m in messages %}{{ '<|im_start|>' + m['role'] }}{% endfor %}"

TALK = (
    Turn("system", "Be short."),
    Turn("user", "Naïve 🙂 question?"),
    Turn("assistant", "Grüße, yes.", learned=True),
    Turn("user", "And now?"),
    Turn("assistant", "No 日本.", learned=True),
)


def chat(folder: Path, template: str, max_length: int = 500) -> Chat:
    from transformers import AutoTokenizer

    return Chat(AutoTokenizer.from_pretrained(str(tiny.make(folder, template))), max_length)


def one(of: Chat, turns: tuple[Turn, ...]) -> Encoded:
    (row,) = of.encode([turns])
    assert isinstance(row, Encoded), row
    return row


def learned(of: Chat, row: Encoded) -> list[str]:
    """The stretches of text that are learned."""
    found: list[list[int]] = []
    previous = IGNORED
    for label in row.labels:
        if label != IGNORED:
            if previous == IGNORED:
                found.append([])
            found[-1].append(label)
        previous = label
    return [of.tokenizer.decode(ids) for ids in found]


@pytest.mark.usefixtures("unsloth")
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (tiny.CHAT_TEMPLATE, ["Grüße, yes.<|im_end|>", "No 日本.<|im_end|>"]),
        (LLAMA3, ["Grüße, yes.<|im_end|>", "No 日本.<|im_end|>"]),
        (THINKING, ["Grüße, yes.<|im_end|>", "<think>\n\n</think>\n\nNo 日本.<|im_end|>"]),
        (NO_SYSTEM, ["Grüße, yes.<|im_end|>", "No 日本.<|im_end|>"]),
    ],
    ids=["chatml", "llama3", "thinking", "no-system"],
)
def test_exactly_the_answers_are_learned(tmp_path: Path, template: str, expected: list[str]) -> None:
    of = chat(tmp_path, template)
    row = one(of, TALK)
    assert learned(of, row) == expected
    assert all(label in (IGNORED, token) for label, token in zip(row.labels, row.input_ids, strict=True))
    assert of.tokenizer.decode(row.input_ids) == of.render(TALK)


@pytest.mark.usefixtures("unsloth")
def test_every_label_against_a_count_by_hand(tmp_path: Path) -> None:
    of = chat(tmp_path, tiny.CHAT_TEMPLATE)
    row = one(of, (Turn("user", "ab"), Turn("assistant", "cd", learned=True)))
    vocab = tiny.vocabulary()
    head = [
        vocab["<|im_start|>"],
        *(vocab[f"<0x{b:02X}>"] for b in b"user\nab"),
        vocab["<|im_end|>"],
        vocab["<0x0A>"],
    ]
    opening = [vocab["<|im_start|>"], *(vocab[f"<0x{b:02X}>"] for b in b"assistant\n")]
    answer = [vocab["<0x63>"], vocab["<0x64>"], vocab["<|im_end|>"]]
    assert row.input_ids == [*head, *opening, *answer, vocab["<0x0A>"]]
    assert row.labels == [IGNORED] * len(head + opening) + answer + [IGNORED]
    assert row.trained == 3


@pytest.mark.usefixtures("unsloth")
def test_a_template_without_an_end_gets_one_that_is_learned(tmp_path: Path) -> None:
    of = chat(tmp_path, NO_END)
    row = one(of, (Turn("user", "a"), Turn("assistant", "b", learned=True)))
    assert row.input_ids[-1] == row.labels[-1] == of.tokenizer.eos_token_id
    assert learned(of, row) == ["b\n<|im_end|>"]


@pytest.mark.usefixtures("unsloth")
def test_everything_is_learned_when_asked(tmp_path: Path) -> None:
    of = chat(tmp_path, tiny.CHAT_TEMPLATE)
    row = one(of, (Turn("user", "a", learned=True), Turn("assistant", "b", learned=True)))
    assert row.labels == row.input_ids


@pytest.mark.usefixtures("unsloth")
def test_rows_are_cut_and_what_the_template_hides_is_said(tmp_path: Path) -> None:
    of = chat(tmp_path, tiny.CHAT_TEMPLATE, max_length=20)
    row = one(of, TALK)
    assert (len(row.input_ids), len(row.labels), row.cut, row.trained) == (20, 20, True, 0)
    hiding = chat(tmp_path, SWALLOWING)
    assert hiding.encode([TALK]) == ["the chat template hides its answer"]


@pytest.mark.usefixtures("unsloth")
def test_a_doubled_bos_is_single(tmp_path: Path) -> None:
    of = chat(tmp_path, "{{ bos_token }}" + LLAMA3)
    row = one(of, TALK)
    bos = of.tokenizer.bos_token_id
    assert row.input_ids[0] == bos != row.input_ids[1]
    assert learned(of, row) == ["Grüße, yes.<|im_end|>", "No 日本.<|im_end|>"]


@pytest.mark.usefixtures("unsloth")
def test_a_prompt_ends_where_the_answer_begins(tmp_path: Path) -> None:
    of = chat(tmp_path, tiny.CHAT_TEMPLATE)
    row = one(of, TALK[:3])
    prompt = of.prompt_ids(TALK[:2])
    first = next(i for i, label in enumerate(row.labels) if label != IGNORED)
    assert row.input_ids[:first] == prompt
    with pytest.raises(Unrenderable):
        chat(tmp_path, NO_SYSTEM.replace("'system'", "'user'")).prompt_ids(TALK[:2])


@pytest.fixture
def captured(
    unsloth: None, tiny_model: Path, tmp_path: Path, captured_recipe: Recipe
) -> list[dict[str, Any]]:
    """The inputs of each forward pass of two real steps."""
    from .in_process import Trainer

    trainer = Trainer(captured_recipe)
    seen: list[dict[str, Any]] = []
    forward = trainer.trainer.compute_loss

    def looked_at(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        seen.append({name: value.clone() for name, value in inputs.items() if hasattr(value, "clone")})
        return forward(model, inputs, *args, **kwargs)

    trainer.trainer.compute_loss = looked_at
    trainer.trainer.train()
    return seen


@pytest.fixture
def captured_recipe(tiny_model: Path, tmp_path: Path) -> Recipe:
    rows = tmp_path / "rows.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": "q" * n}, {"role": "assistant", "content": "a" * (n + 1)}]}
        for n in range(1, 9)
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return harness.recipe(
        tiny_model, rows, max_steps=2, batch_size=3, gradient_accumulation_steps=1, evaluation_share=0.0
    )


def test_the_batch_that_the_trainer_takes(captured: list[dict[str, Any]]) -> None:
    vocab = tiny.vocabulary()
    a, end, pad = vocab["<0x61>"], vocab["<|im_end|>"], vocab["<pad>"]
    assert len(captured) == 2
    for batch in captured:
        ids, labels, mask = (batch[key].tolist() for key in ("input_ids", "labels", "attention_mask"))
        assert len(ids) == 3
        for row, wanted, attended in zip(ids, labels, mask, strict=True):
            length = sum(attended)
            assert attended == [1] * length + [0] * (len(row) - length)
            assert row[length:] == [pad] * (len(row) - length)
            kept = [token for token in wanted if token != IGNORED]
            assert kept == [a] * (len(kept) - 1) + [end]
            start = wanted.index(kept[0])
            assert wanted == [IGNORED] * start + row[start : start + len(kept)] + [IGNORED] * (
                len(row) - start - len(kept)
            )
            # as many a's as the row's q's and one more: the whole answer, and nothing but it
            assert len(kept) - 2 == row.count(vocab["<0x71>"])


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(FinetuiError) as caught:
        Chat(Slow(), 10)
    assert caught.value.code == "tokenizer-slow"
