"""Conversations through the tokenizer's own chat template, and which of their tokens are learned.

No markers are known beforehand. A conversation is rendered once whole and tokenized with character offsets; a learned
turn's characters are found by rendering the conversation up to it. Where a template does not render prefixes alike
(it drops earlier reasoning, say), the turn is found by rendering once more with its text replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..conversation import Turn, Turns
from ..errors import FinetuiError

IGNORED = -100
"""The label that the loss does not count."""


@dataclass(frozen=True)
class Encoded:
    """One row for the trainer. `labels` are the token ids where learned, else −100; both have the same length."""

    input_ids: list[int]
    labels: list[int]
    full_length: int
    """Tokens before the cut."""

    @property
    def cut(self) -> bool:
        return self.full_length > len(self.input_ids)

    @property
    def trained(self) -> int:
        """Tokens that the loss counts. Nothing predicts the first token, so it never counts."""
        return sum(label != IGNORED for label in self.labels[1:])


class Unrenderable(ValueError):
    """The template refuses a conversation, or hides what should be learned. The message is a short reason."""


class Chat:
    """The tokenizer with its template."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        if not getattr(tokenizer, "is_fast", False):
            raise FinetuiError(
                "This model's tokenizer is of the old, slow kind.",
                "It cannot tell which characters a token stands for, so answers cannot be marked exactly.",
                "Choose a model that has a tokenizer.json.",
                code="tokenizer-slow",
            )
        self._special = tuple(sorted(map(str, tokenizer.get_added_vocab()), key=len, reverse=True))
        self._eos = str(tokenizer.eos_token or "")
        self.folds_system = not self._takes_system()

    def _takes_system(self) -> bool:
        from jinja2 import TemplateError

        probe = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
        try:
            self.tokenizer.apply_chat_template(probe, tokenize=False)
        except TemplateError:
            return False
        return True

    def render(self, turns: Turns, answer_next: bool = False) -> str:
        """`turns` as the model reads them; `answer_next` adds the opening of the assistant's turn.

        A template that has no system turn gets the system prompt at the head of the first user turn.
        Raises Unrenderable.
        """
        from jinja2 import TemplateError

        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        if (
            self.folds_system
            and len(messages) > 1
            and messages[0]["role"] == "system"
            and messages[1]["role"] == "user"
        ):
            messages[1]["content"] = f"{messages[0]['content']}\n\n{messages[1]['content']}"
            del messages[0]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=answer_next
                )
            )
        except (TemplateError, TypeError, KeyError, IndexError) as error:
            raise Unrenderable("the chat template refuses its roles") from error

    def prompt_ids(self, turns: Turns) -> list[int]:
        """The tokens of `turns`, ready for the assistant's answer."""
        ids: list[int] = self.tokenizer(self.render(turns, answer_next=True), add_special_tokens=False)[
            "input_ids"
        ]
        return self._without_second_bos(ids)

    def spans(self, turns: Turns, text: str) -> list[tuple[int, int]]:
        """The character ranges of `text` (the turns, rendered) that are learned. Raises Unrenderable."""
        if all(turn.learned for turn in turns):
            return [(0, len(text))]
        return [self._span(turns, index, text) for index, turn in enumerate(turns) if turn.learned]

    def _span(self, turns: Turns, index: int, text: str) -> tuple[int, int]:
        found = self._span_by_prefix(turns, index, text) or self._span_by_difference(turns, index, text)
        start, end = found
        body = text[start:end].rstrip()
        # The line break after the end-of-turn token is the template's, not the answer's.
        return start, (start + len(body) if body.endswith(self._special) else end)

    def _span_by_prefix(self, turns: Turns, index: int, text: str) -> tuple[int, int] | None:
        last = index == len(turns) - 1
        try:
            before = self.render(turns[:index], answer_next=turns[index].role == "assistant")
            until = text if last else self.render(turns[: index + 1])
        except Unrenderable:
            return None
        whole = text.startswith(before) and text.startswith(until) and len(before) < len(until)
        if not whole or not _shows(text[len(before) : len(until)], turns[index]):
            return None
        return len(before), len(until)

    def _span_by_difference(self, turns: Turns, index: int, text: str) -> tuple[int, int]:
        said = turns[index].text.strip()
        if not said:
            raise Unrenderable("empty answer")
        stand_in = ("b" if said[0] == "a" else "a") + "x" + ("b" if said[-1] == "a" else "a")
        changed = [*turns[:index], Turn(turns[index].role, stand_in), *turns[index + 1 :]]
        other = self.render(changed)
        start = _common(text, other)
        tail = _common(text[start:][::-1], other[start:][::-1])
        end = len(text) - tail
        if not _shows(text[start:end], turns[index]):
            raise Unrenderable("the chat template hides its answer")
        rest = text[end:].lstrip()
        mark = next((special for special in self._special if rest.startswith(special)), "")
        return start, (len(text) - len(rest) + len(mark) if mark else end)

    def encode(self, conversations: Sequence[Turns]) -> list[Encoded | str]:
        """Each conversation as tokens and labels, cut at `max_length`; or the reason why it cannot be used."""
        rendered: list[tuple[str, list[tuple[int, int]]] | str] = []
        for turns in conversations:
            try:
                text = self.render(turns)
                rendered.append((text, self.spans(turns, text)))
            except Unrenderable as error:
                rendered.append(str(error))
        texts = [item[0] for item in rendered if not isinstance(item, str)]
        if not texts:
            return [str(item) for item in rendered]
        batch = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        rows = iter(zip(batch["input_ids"], batch["offset_mapping"], strict=True))
        result: list[Encoded | str] = []
        for turns, item in zip(conversations, rendered, strict=True):
            if isinstance(item, str):
                result.append(item)
            else:
                result.append(self._encoded(turns, item[1], *next(rows)))
        return result

    def _encoded(
        self,
        turns: Turns,
        spans: list[tuple[int, int]],
        ids: list[int],
        offsets: list[tuple[int, int]],
    ) -> Encoded:
        labels = [IGNORED] * len(ids)
        for start, end in spans:
            for at in range(len(ids)):
                first, last = offsets[at]
                if first >= start and last <= end and last > first:
                    labels[at] = ids[at]
        # A template without an end-of-turn token would never teach the model to stop.
        closed = any(special in self._special for special in self._ending(ids))
        if turns and turns[-1].learned and not closed and self.tokenizer.eos_token_id is not None:
            ids = [*ids, self.tokenizer.eos_token_id]
            labels = [*labels, self.tokenizer.eos_token_id]
        kept = self._without_second_bos(ids)
        labels = labels[len(ids) - len(kept) :]
        return Encoded(kept[: self.max_length], labels[: self.max_length], len(kept))

    def _ending(self, ids: list[int]) -> list[str]:
        return [str(t) for t in self.tokenizer.convert_ids_to_tokens(ids[-3:])]

    def _without_second_bos(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        if bos is not None and bos != self.tokenizer.eos_token_id and ids[:2] == [bos, bos]:
            return ids[1:]
        return ids


def _shows(body: str, turn: Turn) -> bool:
    """Whether `body` holds how the turn ends. A template may drop what comes first (reasoning), never the answer."""
    return turn.text.strip()[-16:] in body


def _common(one: str, other: str) -> int:
    """The length of the common beginning."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
