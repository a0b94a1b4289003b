"""The demo's score, with the tiny model in the demo model's place: both sides are asked alike and judged alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetui.core import demo
from finetui.core.recipe import DEMO
from finetui.core.runs.events import Scored

from . import harness


@pytest.mark.usefixtures("unsloth")
def test_the_demo_is_scored(tiny_model: Path) -> None:
    from finetui.core.worker import score
    from finetui.core.worker.chat import Chat
    from finetui.core.worker.samples import answers, prompts

    from .in_process import Trainer

    made_of = harness.recipe(
        tiny_model,
        Path(DEMO),
        evaluation_source=DEMO,
        system_prompt=demo.SYSTEM_PROMPT,
        row_limit=16,
        max_length=600,
        max_steps=8,
        learning_rate=5e-2,
    )
    built = Trainer(made_of)
    held_out = built.prepared.evaluation_conversations
    assert score.wanted(made_of, held_out) and len(held_out) == 40
    model, tokenizer = built.loaded.model, built.loaded.tokenizer
    asked = prompts(Chat(tokenizer, 600), held_out, 2)
    assert all(demo.SYSTEM_PROMPT in tokenizer.decode(prompt.ids) for prompt in asked)
    untrained = answers(model, tokenizer, asked, built.control.ending, 16)
    built.trainer.train()
    assert answers(model, tokenizer, asked, built.control.ending, 16) != untrained

    scored = score.score(model, tokenizer, made_of, held_out[:6], built.writer, built.control)
    assert isinstance(scored, Scored) and scored.rows == 6 and len(scored.examples) == 3
    assert scored.base.valid == 0 and scored.base.exact == 0
    for example, before in zip(scored.examples, untrained, strict=False):
        assert example.base.startswith(
            before.rstrip("\ufffd")[:8]
        )  # the base side is the model before training
        assert example.tuned != example.base
        assert demo.parse_answer(example.reference) is not None


@pytest.mark.usefixtures("unsloth")
def test_a_batch_answers_as_each_prompt_alone(tiny_model: Path, tiny_rows: Path) -> None:
    """Left padding must not change what is said, nor the order; and training goes on as before."""
    from finetui.core.worker.chat import Chat
    from finetui.core.worker.samples import answers, prompts

    from .in_process import Trainer

    built = Trainer(harness.recipe(tiny_model, tiny_rows, learning_rate=2e-2, max_steps=12))
    built.trainer.train()
    model, tokenizer = built.loaded.model.float(), built.loaded.tokenizer
    asked = prompts(Chat(tokenizer, 128), built.prepared.prompts, 4)
    asked.sort(key=lambda prompt: -len(prompt.ids))
    model.train()
    ending = built.control.ending
    together = answers(model, tokenizer, asked, ending, 12)
    assert model.training
    assert together == [answers(model, tokenizer, [prompt], ending, 12)[0] for prompt in asked]
