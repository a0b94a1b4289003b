"""What the model answers: greedy, in batches, with the model back in training afterwards."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import text
from ..conversation import Turn, Turns
from ..recipe import Recipe
from ..runs.events import Sample
from .chat import Chat, Unrenderable
from .control import Control, Stopped
from .events import EventWriter

NEW_TOKENS = 96
SHOWN_CHARACTERS = 4_000

LOOK_SECONDS = 0.3
"""So often a model that writes looks whether it is to end."""


@dataclass(frozen=True)
class Prompt:
    """A conversation up to the answer, as tokens and as text, and the answer that the dataset gives."""

    ids: list[int]
    question: str
    reference: str


BEGINNING_CHARACTERS = 240
"""Of a text at most so much is given, and at most half of it: the model goes on."""

_LEAST_CHARACTERS = 16


def prompts(chat: Chat, conversations: Sequence[Turns], count: int) -> list[Prompt]:
    """The first `count` conversations that end with an answer, as prompts; of plain writing the beginnings of texts."""
    found: list[Prompt] = []
    for turns in conversations:
        if len(found) >= count:
            break
        if turns[0].role == "text":
            parts = beginning(turns)
            if parts is not None:
                found.append(Prompt(chat.prompt_ids([Turn("text", parts[0])]), *parts))
            continue
        last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=0)
        if last == 0:
            continue
        with contextlib.suppress(Unrenderable):
            question = next(
                (t.text for t in reversed(turns[:last]) if t.role == "user"), turns[last - 1].text
            )
            found.append(Prompt(chat.prompt_ids(turns[:last]), question, turns[last].text))
    return found


def own_prompts(chat: Chat, recipe: Recipe, system: str) -> list[Prompt]:
    """The recipe's own questions, each behind the trained `system` prompt where there is one; a model without a chat template
    goes on with them as they stand. No answer belongs to them."""
    found: list[Prompt] = []
    for question in recipe.training.sample_prompts:
        turns = [*([Turn("system", system)] if system else []), Turn("user", question)]
        try:
            ids = chat.prompt_ids(turns)
        except Unrenderable:
            ids = chat.prompt_ids([Turn("text", question)])
        found.append(Prompt(ids, question, ""))
    return found


def beginning(turns: Turns) -> tuple[str, str] | None:
    """A text cut in two, between words where it has some: what is given, and how it goes on. None for a few letters."""
    whole = "".join(turn.text for turn in turns)
    most = min(len(whole) // 2, BEGINNING_CHARACTERS)
    if len(whole) < _LEAST_CHARACTERS:
        return None
    at = next(
        (at for at in range(most, most // 2, -1) if whole[at].isspace() and not whole[at - 1].isspace()), most
    )
    return whole[:at], whole[at:]


@contextlib.contextmanager
def answering(model: Any) -> Iterator[None]:
    """The model set to generate, and set back to train as it was (its checkpointing included)."""
    import unsloth

    switch: Any = unsloth.FastLanguageModel
    training = model.training
    switch.for_inference(model)
    try:
        yield
    finally:
        switch.for_training(model)
        model.train(training)


def unless(ending: Callable[[], bool]) -> Any:
    """Stopping criteria that end a generation once `ending` says so."""
    import torch
    from transformers import StoppingCriteriaList

    looked = time.monotonic()

    def over(input_ids: Any, scores: Any, **_rest: Any) -> Any:
        nonlocal looked
        ended = False
        if time.monotonic() - looked > LOOK_SECONDS:
            looked, ended = time.monotonic(), ending()
        return torch.full((input_ids.shape[0],), ended, device=input_ids.device, dtype=torch.bool)

    return StoppingCriteriaList([over])


def answers(
    model: Any,
    tokenizer: Any,
    asked: Sequence[Prompt],
    ending: Callable[[], bool],
    new_tokens: int = NEW_TOKENS,
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda _done: None,
) -> list[str]:
    """The greedy answers to `asked`, in order, each of at most `new_tokens` tokens, without special tokens.

    Raises Stopped as soon as `ending` says that nobody waits for them any more.
    """
    import torch

    context = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 20)
    room = max(1, context - new_tokens)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ends = end_tokens(model, tokenizer)
    result: dict[int, str] = {}
    # Prompts of like length share a batch: less padding, and so less work.
    order = sorted(range(len(asked)), key=lambda index: len(asked[index].ids))
    with answering(model), torch.no_grad():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows = [asked[index].ids[-room:] for index in chosen]
            width = max(map(len, rows))
            ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=model.device)
            mask = torch.tensor(
                [[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device
            )
            written = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=new_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
                eos_token_id=ends,
                pad_token_id=pad,
                use_cache=True,
                stopping_criteria=unless(ending),
            )
            if ending():
                raise Stopped
            for index, row in zip(chosen, written[:, width:].tolist(), strict=True):
                until = next((at for at, token in enumerate(row) if token in ends), len(row))
                result[index] = tokenizer.decode(row[:until], skip_special_tokens=True)
            progress(min(start + batch_size, len(order)))
    return [result[index] for index in range(len(asked))]


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens at which an answer ends: the model's own and the tokenizer's, ascending."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    found = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    return sorted(int(token) for token in found if token is not None)


class Sampler:
    """The run's fixed prompts, answered anew at each evaluation."""

    def __init__(
        self, model: Any, tokenizer: Any, asked: Sequence[Prompt], writer: EventWriter, control: Control
    ) -> None:
        self._model, self._tokenizer, self._asked = model, tokenizer, asked
        self._writer, self._control = writer, control

    def write(self, step: int) -> bool:
        """Answers the prompts now and reports them as samples of `step`. False where an end was asked for meanwhile: none
        is reported then, and the request still stands."""
        if not self._asked:
            return True
        self._writer.progress("sample", 0, len(self._asked), "prompts")
        try:
            written = answers(self._model, self._tokenizer, self._asked, self._control.ending)
        except Stopped:
            return False
        for index, (prompt, answer) in enumerate(zip(self._asked, written, strict=True)):
            self._writer.emit(
                Sample(
                    step,
                    index,
                    text.clean(prompt.question, SHOWN_CHARACTERS),
                    text.clean(answer, SHOWN_CHARACTERS),
                    text.clean(prompt.reference, SHOWN_CHARACTERS),
                )
            )
        self._writer.progress("sample", len(self._asked), len(self._asked), "prompts")
        return True
