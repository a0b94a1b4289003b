"""The demo's score: every held-out row answered by the base and by the tuned model, under one system prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import demo, text
from ..conversation import Turns
from ..recipe import DEMO, Recipe
from ..runs.events import Scored, ScoreExample, ScoreSide
from .chat import Chat
from .control import Control
from .events import EventWriter
from .samples import Prompt, answers, prompts

NEW_TOKENS = 64
BATCH_SIZE = 20
EXAMPLES = 3


def wanted(recipe: Recipe, held_out: Sequence[Turns]) -> bool:
    """Only the demo's own rows have labels to judge by."""
    return recipe.dataset.source == DEMO and bool(held_out)


def score(
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    held_out: Sequence[Turns],
    writer: EventWriter,
    control: Control,
) -> Scored:
    """Answers and judges. The base's answers come from the same model with its adapter switched off. Raises Stopped."""
    asked = prompts(Chat(tokenizer, recipe.model.max_length), held_out, len(held_out))
    total = 2 * len(asked)

    def progress(before: int) -> Callable[[int], None]:
        def tell(done: int) -> None:
            writer.progress("score", before + done, total, "answers")

        return tell

    writer.progress("score", 0, total, "answers")
    tuned = answers(model, tokenizer, asked, control.ending, NEW_TOKENS, BATCH_SIZE, progress(0))
    with model.disable_adapter():
        base = answers(model, tokenizer, asked, control.ending, NEW_TOKENS, BATCH_SIZE, progress(len(asked)))
    return Scored(len(asked), _side(base, asked), _side(tuned, asked), _examples(asked, base, tuned))


def _side(given: Sequence[str], asked: Sequence[Prompt]) -> ScoreSide:
    counted = demo.score(given, [prompt.reference for prompt in asked])
    return ScoreSide(counted.valid, counted.category_right, counted.exact)


def _examples(asked: Sequence[Prompt], base: Sequence[str], tuned: Sequence[str]) -> tuple[ScoreExample, ...]:
    return tuple(
        ScoreExample(
            text.clean(prompt.question, 1000),
            text.clean(prompt.reference, 1000),
            text.clean(base[index], 1000),
            text.clean(tuned[index], 1000),
        )
        for index, prompt in enumerate(asked[:EXAMPLES])
    )
