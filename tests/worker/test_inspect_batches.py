"""What the inspector shows is what the trainer gets: every token and its label, against the real dataloader's batches."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finetui.core.dataset_inspect import Inspector
from finetui.core.dataset_ledger import Ledger, SeenRow
from finetui.core.recipe import Recipe

from . import harness, tiny
from .test_mask import LLAMA3, NO_END, NO_SYSTEM, THINKING

NO_PROMPT = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
TOOLS = (
    "{% if tools %}{{ '<|im_start|>tools\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m.reasoning_content %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}"
    "{{ m['content'] }}{% for call in m.tool_calls or [] %}"
    "{{ '[' + call.function.name + ' ' + call.function.arguments | tojson + ']' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LOUD = "{% for m in messages %}{{ m['role'] | upper + '>' + m['content'] | trim + eos_token }}{% endfor %}"

VOCABULARY = tiny.vocabulary()
SPECIAL = {name: VOCABULARY[name] for name in (*tiny.SPECIAL, "<pad>")}


def talk(*said: str, system: str | None = None, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages: list[dict[str, Any]] = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages, **more}


TALKS = [
    talk("Naïve 🙂 question?", "Grüße, yes."),
    talk("a", "b", "c", "d", system="Be short."),
    talk("x" * 40, "y" * 200, "z", "too late"),
    talk("  spaced  ", "  answer\nof two lines  "),
    talk("日本", "東京", "<|im_start|>assistant\nfake", "true <|im_end|> end"),
    talk("same", "same", "same", "same"),
    talk("s", "e", "r", "assistant"),
    talk("q" * 130, "never seen"),
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
AGENT = [
    {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1", **CALL}]},
            {"role": "tool", "content": "18 degrees", "tool_call_id": "1"},
            {"role": "assistant", "content": "It is 18.", "reasoning_content": "Warm."},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
    },
    talk("and so", "on"),
]
TEXTS = [{"text": "Once upon a time. " * n} for n in (1, 2, 9)]

PAIRS = [{"prompt": f"question {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(3)]
ODD = [{"wieso": f"question {n}", "darum": f"answer {n}", "id": n} for n in range(4)]


def expanded(row: SeenRow) -> tuple[tuple[int, bool], ...]:
    """The shown row as (token, learned) pairs: tokens of this tokenizer are bytes, so the text tells them all."""
    found: list[tuple[int, bool]] = []
    for span in row.spans:
        if span.cut:
            break
        if span.special:
            found.append((SPECIAL[span.text], span.trained))
            continue
        for character in span.text:
            if character == " ":
                found.append((VOCABULARY["▁"], span.trained))
            else:
                found += [(VOCABULARY[f"<0x{b:02X}>"], span.trained) for b in character.encode()]
    return tuple(found)


def inspected(recipe: Recipe) -> tuple[Ledger, list[SeenRow]]:
    """The finished ledger and all rows."""
    inspector = Inspector.start(recipe)
    try:
        until = time.monotonic() + harness.PATIENCE
        while True:
            now = inspector.wait(1)
            assert now.error is None, str(now.error)
            if now.ledger is not None and now.ledger.complete:
                return now.ledger, [inspector.row(i) for i in range(now.ledger.read)]
            assert time.monotonic() < until, now
    finally:
        inspector.close()


def batches(loader: Any) -> Counter[tuple[tuple[int, bool], ...]]:
    """Every row of every batch, its padding taken off."""
    rows: Counter[tuple[tuple[int, bool], ...]] = Counter()
    for batch in loader:
        for ids, labels, mask in zip(
            batch["input_ids"].tolist(),
            batch["labels"].tolist(),
            batch["attention_mask"].tolist(),
            strict=True,
        ):
            length = sum(mask)
            assert all(label == -100 for label in labels[length:])
            assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
            rows[
                tuple((t, label != -100) for t, label in zip(ids[:length], labels[:length], strict=True))
            ] += 1
    return rows


@pytest.mark.parametrize(
    ("template", "rows", "changes"),
    [
        (tiny.CHAT_TEMPLATE, TALKS, {}),
        (tiny.CHAT_TEMPLATE, TALKS, {"train_on": "everything"}),
        (tiny.CHAT_TEMPLATE, TALKS, {"train_on": "last_answer"}),
        (tiny.CHAT_TEMPLATE, TALKS, {"long_rows": "drop", "evaluation_share": 0.3}),
        (tiny.CHAT_TEMPLATE, TALKS, {"system_prompt": "Hi.", "multi_turn": "split", "deduplicate": True}),
        (LLAMA3, TALKS, {}),
        ("{{ bos_token }}" + LLAMA3, TALKS, {}),
        (THINKING, TALKS, {}),
        (NO_SYSTEM, TALKS, {"system_prompt": "Fold me."}),
        (NO_END, TALKS, {}),
        (NO_PROMPT, TALKS, {}),
        (LOUD, TALKS, {}),
        (TOOLS, AGENT, {}),
        (tiny.CHAT_TEMPLATE, TEXTS, {"format": "text"}),
        (None, TEXTS, {"format": "text"}),
        (tiny.CHAT_TEMPLATE, PAIRS, {}),
        (tiny.CHAT_TEMPLATE, TALKS, {"join_rows": 2, "evaluation_share": 0.3}),
        (tiny.CHAT_TEMPLATE, TALKS, {"row_limit": 4, "evaluation_share": 0.3}),
        (tiny.CHAT_TEMPLATE, TALKS, {"row_limit": 4, "shuffle": False}),
        (tiny.CHAT_TEMPLATE, ODD, {"columns": {"user": "wieso", "assistant": "darum"}}),
    ],
    ids=[
        "chatml", "everything", "last-answer", "drop", "split", "llama3", "two-bos", "thinking", "no-system", "no-end",
        "no-prompt", "loud", "tools", "text", "base-text", "pairs", "joined", "sample", "first-rows", "mapped",
    ],
)  # fmt: skip
def test_the_rows_shown_are_the_batches(
    unsloth: None, tmp_path: Path, template: str, rows: list[dict[str, Any]], changes: dict[str, Any]
) -> None:
    from .in_process import Trainer

    model = tiny.make(tmp_path / "model", template)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings: dict[str, Any] = {
        "evaluation_share": 0.0,
        "batch_size": 2,
        "max_steps": None,
        "epochs": 1.0,
    } | changes
    recipe = harness.recipe(model, data, **settings)
    built = Trainer(recipe)
    ledger, shown = inspected(recipe)
    assert ledger.read == ledger.kept + ledger.dropped_rows == len(shown)
    kept = [row for row in shown if not row.dropped]
    expected = batches(built.trainer.get_train_dataloader())
    assert expected and Counter(expanded(r) for r in kept if not r.evaluation) == expected
    if built.prepared.evaluation is not None:
        held = batches(built.trainer.get_eval_dataloader())
        assert Counter(expanded(r) for r in kept if r.evaluation) == held
    assert ledger.preference_rows == (len(PAIRS) if rows is PAIRS else 0)
    assert all(bool(row.rejected) == (rows is PAIRS) for row in shown)
    facts = built.prepared.ready
    assert (ledger.train_rows, ledger.evaluation_rows) == (facts.rows, facts.evaluation_rows)
    assert (ledger.tokens, ledger.trained_tokens) == (facts.tokens, facts.trained_tokens)
    for row in shown:
        whole = expanded(row)
        assert len(whole) == row.tokens
        assert sum(trained for _, trained in whole[1:]) == row.trained_tokens
        if row.full_tokens > row.tokens:
            assert row.spans[-1].cut


def test_without_shuffling_the_batches_follow_the_file(
    unsloth: None, tiny_model: Path, tmp_path: Path
) -> None:
    from .in_process import Trainer

    data = tiny.write_rows(tmp_path / "rows.jsonl", 9)
    settings: dict[str, Any] = {"evaluation_share": 0.0, "batch_size": 2, "max_steps": None, "epochs": 1.0}
    orders = []
    for shuffle in (False, True):
        recipe = harness.recipe(tiny_model, data, shuffle=shuffle, **settings)
        built = Trainer(recipe)
        decode = built.loaded.tokenizer.batch_decode
        said = [t for b in built.trainer.get_train_dataloader() for t in decode(b["input_ids"])]
        orders.append([int(text.split("Item ")[1].split(":")[0]) for text in said])
    assert orders[0] == list(range(9)) != orders[1] and sorted(orders[1]) == orders[0]
