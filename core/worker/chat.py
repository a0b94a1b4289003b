"""Conversations through the tokenizer's own chat template, and which of their tokens are learned.

No markers are known beforehand. A conversation is rendered once whole and tokenized with character offsets; a learned
turn's characters are found by rendering the conversation up to it. Where a template does not render prefixes alike
(it drops earlier reasoning, say), the turn is found by rendering once more with its text replaced. The trainer and the
inspector both come through here, so that what is shown is what is trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from ..conversation import Conversation, Turn, Turns
from ..dataset_ledger import Span
from ..errors import FinetuiError
from . import spans
from .spans import Unrenderable

__all__ = ["IGNORED", "Chat", "Encoded", "Seen", "Unrenderable"]

IGNORED = -100
"""The label that the loss does not count."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row for the trainer: its tokens, and the stretches of them that are learned."""

    ids: list[int]
    """All tokens, before the cut."""
    learned: tuple[tuple[int, int], ...]
    """(from, to) in `ids`, ascending; `to` is not included."""
    max_length: int
    end: int
    """Where in `ids` the end-of-text (or end-of-turn) token of the last turn stands; −1 without one."""
    second_bos: bool
    """A doubled beginning-of-text token was made single."""
    plain: bool = False
    """Plain writing: no chat template."""

    @property
    def full_length(self) -> int:
        """Tokens before the cut."""
        return len(self.ids)

    @property
    def length(self) -> int:
        """Tokens after the cut."""
        return min(len(self.ids), self.max_length)

    @property
    def input_ids(self) -> list[int]:
        return self.ids[: self.max_length]

    @property
    def labels(self) -> list[int]:
        """The token ids where learned, else −100; as long as `input_ids`."""
        labels = [IGNORED] * self.length
        for first, last in self.learned:
            labels[first:last] = self.ids[first : min(last, self.max_length)]
        return labels

    @property
    def cut(self) -> bool:
        return len(self.ids) > self.max_length

    @property
    def trained(self) -> int:
        """Tokens that the loss counts. Nothing predicts the first token, so it never counts."""
        return sum(max(0, min(last, self.max_length) - max(first, 1)) for first, last in self.learned)

    @property
    def end_present(self) -> bool:
        return 0 <= self.end < self.max_length

    @property
    def end_trained(self) -> bool:
        return self.end_present and any(first <= self.end < last for first, last in self.learned)


@dataclass(frozen=True, slots=True)
class Seen:
    """One row in pieces of text, token by token merged where their fate is the same."""

    encoded: Encoded
    spans: tuple[Span, ...]
    special: int
    """Special tokens after the cut, whether they are shown or not."""


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
        self._added: dict[int, str] = {int(i): str(name) for name, i in tokenizer.get_added_vocab().items()}
        self._special = tuple(sorted(self._added.values(), key=len, reverse=True))
        self._marks = frozenset(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
        self._eos = tokenizer.eos_token_id
        bos = tokenizer.bos_token_id
        self._bos = bos if bos is not None and bos != self._eos else None
        self._closing = frozenset(self._added) - {self._bos, tokenizer.unk_token_id}
        self.begins_texts = self._bos is not None and tokenizer("a")["input_ids"][:1] == [self._bos]
        """Whether the tokenizer puts the beginning-of-text token before a text by itself. A GGUF of the model says the same."""
        self._arguments_as_text = False
        self.folds_system = False
        self._opening = ""
        self._opens_itself = False
        """The template never opens an answer: `render` adds what it writes there."""
        if self.has_template:
            self.folds_system = not self._takes_system()
            self._opening = self._answer_opening()

    @property
    def has_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def special_texts(self) -> tuple[str, ...]:
        """The tokenizer's special tokens as written, the longest first."""
        return tuple(sorted((self._added[i] for i in self._marks if i in self._added), key=len, reverse=True))

    def _takes_system(self) -> bool:
        try:
            self._apply([Turn("system", "a"), Turn("user", "b")])
        except Unrenderable:
            return False
        return True

    def _answer_opening(self) -> str:
        """What the template writes before an answer; empty where that cannot be told.

        Some templates know nothing of `add_generation_prompt`: there it is what stands between a question and its answer.
        """
        try:
            asked = self._apply([Turn("user", "b")])
            ready = self._apply([Turn("user", "b")], answer_next=True)
            if ready != asked:
                return ready[len(asked) :] if ready.startswith(asked) else ""
            said = self._apply([Turn("user", "b"), Turn("assistant", "zqx")])
        except Unrenderable:
            return ""
        at = said.find("zqx")
        if at > len(asked) and said.startswith(asked):
            self._opens_itself = True
            return said[len(asked) : at]
        return ""

    def writes_tools(self) -> bool:
        """Whether the template writes tool definitions at all."""
        tool = {"name": "zqxtool", "description": "d", "parameters": {"type": "object", "properties": {}}}
        try:
            return "zqxtool" in self._apply(
                [Turn("user", "b")], tools=json.dumps([{"type": "function", "function": tool}])
            )
        except Unrenderable:
            return False

    def writes_reasoning(self) -> bool:
        """Whether the template writes the reasoning of an answer."""
        try:
            return "zqxthought" in self._apply(
                [Turn("user", "b"), Turn("assistant", "c", reasoning="zqxthought")]
            )
        except Unrenderable:
            return False

    def render(self, turns: Turns, answer_next: bool = False, tools: str = "") -> str:
        """`turns` as the model reads them; `answer_next` adds the opening of the assistant's turn.

        A template that has no system turn gets the system prompt at the head of the first user turn. Plain writing
        (role text) is itself. Raises Unrenderable.
        """
        if isinstance(turns, Conversation):
            turns, tools = turns.turns, tools or turns.tools
        if turns and turns[0].role == "text":
            return "".join(turn.text for turn in turns)
        if not self.has_template:
            raise Unrenderable("the model has no chat template for conversations")
        if self.folds_system and len(turns) > 1 and turns[0].role == "system" and turns[1].role == "user":
            turns = [Turn("user", f"{turns[0].text}\n\n{turns[1].text}"), *turns[2:]]
        rendered = self._apply(turns, answer_next, tools)
        return rendered + self._opening if answer_next and self._opens_itself else rendered

    def _apply(self, turns: Sequence[Turn], answer_next: bool = False, tools: str = "") -> str:
        from jinja2 import TemplateError

        plain = [_message(turn, self._arguments_as_text) for turn in turns]
        defined = json.loads(tools) if tools else None
        try:
            return self._rendered(plain, answer_next, defined)
        except (TemplateError, TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
            if not self._arguments_as_text and any(turn.calls for turn in turns):
                # Some templates glue a call's arguments in as text, others write them out as JSON themselves.
                texts = [_message(turn, True) for turn in turns]
                try:
                    return self._rendered(texts, answer_next, defined)
                except (TemplateError, TypeError, KeyError, IndexError, ValueError, AttributeError):
                    pass
            raise Unrenderable("the chat template refuses its roles") from error
        except (RecursionError, OverflowError, ArithmeticError) as error:
            raise Unrenderable("the chat template fails on it") from error

    def _rendered(self, messages: list[dict[str, Any]], answer_next: bool, tools: Any) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=answer_next
            )
        )

    def prompt_ids(self, turns: Turns, tools: str = "") -> list[int]:
        """The tokens of `turns`, ready for the assistant's answer; of plain writing, ready to be gone on with."""
        text = self.render(turns, answer_next=True, tools=tools)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if turns[0].role == "text":
            return self._with_bos(ids)
        return ids[1:] if self._begins_twice(ids) else ids

    @property
    def begins(self) -> bool:
        """Whether whoever runs the model must put the beginning-of-text token before what is asked, as training has it there.

        llama.cpp takes it off a template's own text first. A template that writes it for each message keeps it: Ollama's
        form of that template writes it too.
        """
        if not self.has_template:
            return self.begins_texts
        try:
            ids = self.prompt_ids([Turn("user", "b")])
        except Unrenderable:
            return self.begins_texts
        return self._bos is not None and ids[:1] == [self._bos] and self._bos not in ids[1:]

    def spans(self, turns: Turns, text: str) -> list[tuple[int, int]]:
        """The character ranges of `text` (the turns, rendered) that are learned. Raises Unrenderable."""
        tools = turns.tools if isinstance(turns, Conversation) else ""
        turns = tuple(turns)
        if all(turn.learned for turn in turns):
            return [(0, len(text))]

        def render(some: Sequence[Turn], answer_next: bool = False) -> str:
            return self.render(some, answer_next, tools)

        return spans.learned(turns, text, render, self._special, self._opening)

    def encode(self, conversations: Sequence[Turns]) -> list[Encoded | str]:
        """Each conversation as tokens and what of them is learned; or the reason why it cannot be used."""
        rendered, texts = self._rendered_batch(conversations)
        return self._encoded_batch(conversations, rendered, self._tokenized(texts))

    def begin(self, conversations: Sequence[Turns], pool: Executor) -> Callable[[], list[Encoded | str]]:
        """As `encode`, the tokens made in `pool` meanwhile (the tokenizer leaves Python free): call what is returned for
        the rows, which waits for them."""
        rendered, texts = self._rendered_batch(conversations)
        tokens = pool.submit(self._tokenized, texts)
        return lambda: self._encoded_batch(conversations, rendered, tokens.result())

    def _rendered_batch(
        self, conversations: Sequence[Turns]
    ) -> tuple[list[list[tuple[int, int]] | str], list[str]]:
        """What is learned of each conversation, by character, or why it cannot be used; and the texts of the usable ones."""
        rendered: list[list[tuple[int, int]] | str] = []
        texts: list[str] = []
        for turns in conversations:
            try:
                text = self.render(turns)
                rendered.append(self.spans(turns, text))
                texts.append(text)
            except Unrenderable as error:
                rendered.append(str(error))
        return rendered, texts

    def _encoded_batch(
        self, conversations: Sequence[Turns], rendered: list[list[tuple[int, int]] | str], rows: list[Any]
    ) -> list[Encoded | str]:
        each = iter(rows)
        return [
            item if isinstance(item, str) else self._encoded(turns, item, next(each))
            for turns, item in zip(conversations, rendered, strict=True)
        ]

    def see(self, turns: Turns, most_characters: int = 100_000) -> Seen:
        """One row with its text, as `encode` makes it; what lies past `most_characters` is not shown. Raises Unrenderable."""
        text = self.render(turns)
        (row,) = self._tokenized([text])
        encoded = self._encoded(turns, self.spans(turns, text), row)
        special = sum(token in self._marks for token in encoded.input_ids)
        return Seen(encoded, self._pieces(text, encoded, row, most_characters), special)

    def _tokenized(self, texts: list[str]) -> list[Any]:
        """The texts through the tokenizer itself: what `tokenizer(texts)` does, without a Python object per token."""
        backend = self.tokenizer.backend_tokenizer
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        if backend.encode_special_tokens:
            backend.encode_special_tokens = False
        return backend.encode_batch(texts, add_special_tokens=False)

    def _encoded(self, turns: Turns, learned: list[tuple[int, int]], row: Any) -> Encoded:
        ids: list[int] = row.ids
        found = [piece for start, end in learned if (piece := spans.tokens(row, start, end))]
        plain = bool(turns) and turns[0].role == "text"
        if plain:
            begun = self._with_bos(ids)
            if len(begun) > len(ids):
                ids = begun
                found = [(0, last + 1) for _, last in found]
            end = len(ids) - 1 if ids[-1:] == [self._eos] else -1
        else:
            near = range(len(ids) - 1, max(len(ids) - 4, -1), -1)
            end = next((at for at in near if ids[at] in self._closing), -1)
        # A template without an end-of-turn token would never teach the model to stop.
        if end < 0 and turns and turns[-1].learned and self._eos is not None:
            end = len(ids)
            ids = [*ids, self._eos]
            found.append((end, end + 1))
        twice = self._begins_twice(ids)
        if twice:
            ids = ids[1:]
            found = [(max(0, first - 1), last - 1) for first, last in found if last > 1]
            end -= 1
        return Encoded(ids, spans.joined(found), self.max_length, end, twice, plain)

    def _with_bos(self, ids: list[int]) -> list[int]:
        """Plain writing with the token at its beginning that this tokenizer puts there."""
        if not self.begins_texts or self._bos is None or ids[:1] == [self._bos]:
            return ids
        return [int(self._bos), *ids]

    def _begins_twice(self, ids: list[int]) -> bool:
        return self._bos is not None and ids[:2] == [self._bos, self._bos]

    def _pieces(self, text: str, encoded: Encoded, row: Any, most: int) -> tuple[Span, ...]:
        """`text` cut where the fate of its tokens changes, up to `most` characters. A character of several tokens goes
        with its first."""
        ids, count = encoded.ids, len(row)
        offsets = row.offsets if count < 100_000 else None  # all at once is quicker, and costs memory
        ahead = 1 if encoded.second_bos else -1 if count and ids[0] != row.ids[0] else 0
        at = row.token_to_chars(0)[1] if encoded.second_bos else 0
        stretches = iter((*encoded.learned, (len(ids), len(ids))))
        first, last = next(stretches)
        pieces: list[Span] = []
        for index, token in enumerate(ids):
            if at >= most:
                pieces.append(Span("…", False, False, index >= encoded.max_length))
                return _merged(pieces)
            if index >= last:
                first, last = next(stretches, (len(ids), len(ids)))
            cut = index >= encoded.max_length
            source = index + ahead
            place = None
            if 0 <= source < count:
                place = offsets[source] if offsets is not None else row.token_to_chars(source)
            if place is not None:
                shown = text[at : place[1]]
                at = max(at, place[1])
            else:
                shown = "" if 0 <= source < count else self._added.get(token, "")
            if shown:
                pieces.append(Span(shown, first <= index < last and not cut, token in self._marks, cut))
        if at < len(text):
            pieces.append(Span(text[at:], False, False, bool(pieces) and pieces[-1].cut))
        return _merged(pieces)


def _message(turn: Turn, arguments_as_text: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.reasoning:
        message["reasoning_content"] = message["thinking"] = turn.reasoning
    if turn.calls:
        message["tool_calls"] = json.loads(turn.calls)
        if arguments_as_text:
            for call in message["tool_calls"]:
                function = call.get("function", call)
                if not isinstance(function.get("arguments"), str):
                    function["arguments"] = json.dumps(function.get("arguments"), ensure_ascii=False)
    if turn.name:
        message["name"] = turn.name
    return message


def _merged(pieces: list[Span]) -> tuple[Span, ...]:
    """Neighbours of one fate as one; each special token stands alone."""
    merged: list[Span] = []
    texts: list[str] = []

    def close(like: Span) -> None:
        merged.append(Span("".join(texts), like.trained, like.special, like.cut))
        texts.clear()

    last: Span | None = None
    for piece in pieces:
        if last is not None and (
            piece.special or last.special or (piece.trained, piece.cut) != (last.trained, last.cut)
        ):
            close(last)
        texts.append(piece.text)
        last = piece
    if last is not None:
        close(last)
    return tuple(merged)
