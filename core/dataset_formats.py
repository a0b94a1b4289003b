"""How rows are read as conversations: the four formats, found by columns and contents.

A row is any mapping, from any file: every value is suspect. Whatever a row holds, `detect` raises nothing but
FinetuiError and `conversation` nothing but ValueError.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .conversation import Conversation, Role, Turn
from .errors import FinetuiError
from .recipe import DatasetSection
from .text import one_line

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "text", "preference"]

MAX_ROW_CHARACTERS = 10 * 1024 * 1024
"""A longer row is no example of a conversation; it is dropped, and counted."""

_LIST_COLUMNS = ("messages", "conversations", "conversation", "chat", "dialogue", "dialog", "turns")
_INSTRUCTION = ("instruction", "instructions")
_CONTEXT = ("input", "context")
_OUTPUT = ("output", "response", "answer", "completion", "target")
_SYSTEM = ("system", "system_prompt", "system_message")
_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "output"),
    ("prompt", "answer"),
    ("prompt", "target"),
    ("question", "answer"),
    ("question", "response"),
    ("question", "solution"),
    ("query", "response"),
    ("query", "answer"),
    ("problem", "solution"),
    ("problem", "answer"),
    ("input", "output"),
    ("input", "response"),
    ("input", "completion"),
    ("input", "answer"),
    ("input", "target"),
    ("inputs", "targets"),
    ("source", "target"),
    ("user", "assistant"),
    ("human", "assistant"),
    ("request", "response"),
    ("message", "response"),
    ("text", "completion"),
    ("text", "response"),
    ("text", "output"),
    ("text", "answer"),
)
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "customer": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "tool_response": "tool",
}
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")

LOOKED_FOR = (
    "messages (a list of role and content), conversations (a list of from and value), "
    "instruction + output, or prompt + completion (also question + answer, input + output)"
)


@dataclass(frozen=True)
class Detection:
    """The format that the first rows speak for, and the reason in words."""

    format: Format
    reason: str
    columns: tuple[str, ...] = ()
    """The columns of the first rows, in order; safe to display."""
    confidence: float = 1.0
    """How sure it is, 0 to 1: below 0.7 a person should look at the mapping."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Role (user, assistant, messages, …) to the column that holds it."""


def detect(rows: Sequence[Mapping[str, Any]]) -> Detection:
    """The format that most of `rows` (the first 50) speak for.

    Raises FinetuiError (dataset-format) that names the columns found and what is looked for; dataset-empty for none.
    """
    sample = rows[:50]
    if not sample:
        raise FinetuiError(
            "The dataset has no rows.",
            "It was read to its end, and holds not a single example.",
            "Choose one that holds examples.",
            code="dataset-empty",
        )
    columns = _column_names(sample)
    votes: dict[Format, list[str]] = {}
    for row in sample:
        guess = _guess(_lower(row))
        if guess is not None:
            votes.setdefault(guess[0], []).append(guess[1])
    if not votes:
        raise _unknown(columns)
    format = max(votes, key=lambda name: len(votes[name]))
    return Detection(format, votes[format][0], columns)


def conversation(row: Mapping[str, Any], format: Format, section: DatasetSection) -> Conversation:
    """`row` as turns, with the section's system prompt and learned marks.

    NUL characters are left out and lone surrogates become U+FFFD, as no tokenizer takes them. Raises ValueError with
    a short reason (`no assistant turn`, `empty answer`, …) where the row cannot be used; such rows are dropped and
    counted under that reason.
    """
    by_name = _lower(row)
    if format in ("messages", "sharegpt"):
        said = _listed(by_name)
    elif format == "alpaca":
        said = _alpaca(by_name)
    else:
        said = _pair(by_name)
    if not said:
        raise ValueError("no messages")
    if said[0][0] != "system":
        own = _text(_cell(by_name, _SYSTEM), "system prompt")
        system = own if own.strip() else (section.system_prompt or "")
        if system.strip():
            said.insert(0, ("system", system))
    said = [turn for turn in said if turn[0] != "system" or turn[1].strip()]
    _check(said)
    everything = section.train_on == "everything"
    return Conversation(tuple(Turn(r, _writable(text), everything or r == "assistant") for r, text in said))


def _check(said: list[tuple[Role, str]]) -> None:
    if sum(len(text) for _, text in said) > MAX_ROW_CHARACTERS:
        raise ValueError("longer than 10 MB")
    if not any(role == "assistant" for role, _ in said):
        raise ValueError("no assistant turn")
    first = next(role for role, _ in said if role != "system")
    if first == "assistant":
        raise ValueError("starts with an answer, no question before it")
    for role, text in said:
        if not text.strip(" \0\n\t").strip():
            if role == "assistant":
                raise ValueError("empty answer")
            if role == "user":
                raise ValueError("empty question")


def _writable(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return text
    return _UNWRITABLE.sub(lambda match: "" if match[0] == "\0" else "\ufffd", text)


def _guess(by_name: Mapping[str, Any]) -> tuple[Format, str] | None:
    """The format of one row and the reason, or None."""
    name, messages = _message_list(by_name)
    if messages is not None:
        if any("role" in m for m in messages):
            return "messages", f"column {one_line(name, 40)} is a list of role and content"
        return "sharegpt", f"column {one_line(name, 40)} is a list of from and value"
    if _cell_name(by_name, _INSTRUCTION) and _cell_name(by_name, _OUTPUT):
        return "alpaca", f"columns {_cell_name(by_name, _INSTRUCTION)} and {_cell_name(by_name, _OUTPUT)}"
    for question, answer in _PAIRS:
        if question in by_name and answer in by_name:
            return "prompt_completion", f"columns {question} and {answer}"
    return None


def _unknown(columns: tuple[str, ...]) -> FinetuiError:
    lower = {c.lower() for c in columns}
    found = ", ".join(columns[:12]) + (", …" if len(columns) > 12 else "")
    why = f"Its columns are: {found or 'none'}. finetui looks for {LOOKED_FOR}."
    fix = "Rename the columns, or write the rows as JSONL with one of these."
    if {"chosen", "rejected"} <= lower:
        why = (
            f"Its columns are: {found}. These are preference pairs, and finetui trains on good answers only."
        )
        fix = "Keep the prompt and rename chosen to completion, or choose another dataset."
    elif lower == {"text"}:
        why = "It has one column, text: plain writing with no questions and answers in it."
        fix = "Write rows with prompt and completion, so that finetui knows what is to be learned."
    return FinetuiError("The format of this dataset is not known.", why, fix, code="dataset-format")


def _column_names(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for row in rows:
        for name in list(row)[:200]:
            if isinstance(name, str):
                names.setdefault(one_line(name, 40))
    return tuple(names)[:200]


def _lower(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row by lower-case column; of two that differ only in case the first counts."""
    result: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(name, str):
            result.setdefault(name.strip().lower(), value)
    return result


def _cell_name(by_name: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in by_name), None)


def _cell(by_name: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((by_name[name] for name in names if name in by_name), None)


def _text(value: Any, noun: str) -> str:
    """A cell as text: missing values (None, NaN) are empty, numbers are written out."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(f"the {noun} is not text")


def _parsed(value: Any) -> Any:
    """A list of messages that a CSV cell holds as JSON, or as Python writes it; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("[") or len(value) > MAX_ROW_CHARACTERS:
        return value
    try:
        return json.loads(value, strict=False)
    except (ValueError, RecursionError):
        pass
    if len(value) > 200_000 or not ("'role'" in value or "'from'" in value):
        return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return value


def _as_messages(value: Any) -> list[Mapping[str, Any]] | None:
    """`value` as a list of messages, or None where it is no such list."""
    value = _parsed(value)
    if not isinstance(value, list | tuple):
        return None
    messages = [m for m in value if isinstance(m, Mapping) and ("role" in m or "from" in m)]
    return messages if messages and len(messages) == len(value) else None


def _message_list(by_name: Mapping[str, Any]) -> tuple[str, list[Mapping[str, Any]] | None]:
    """The column that holds a list of messages, and the list."""
    for name in _LIST_COLUMNS:
        if name in by_name:
            messages = _as_messages(by_name[name])
            if messages is not None:
                return name, messages
    return "", None


def _said(message: Mapping[str, Any]) -> tuple[Role, str]:
    name = message.get("role", message.get("from"))
    role = _ROLES.get(name.strip().lower()) if isinstance(name, str) else None
    if role is None:
        raise ValueError(f"unknown role {one_line(name, 20)}" if isinstance(name, str) else "unknown role")
    if message.get("tool_calls") or message.get("function_call"):
        raise ValueError("calls a tool, which is not text")
    value = message.get("content", message.get("value", message.get("text")))
    if isinstance(value, list | tuple):
        value = _parts(value)
    return role, _text(value, "content of a message")


def _parts(parts: Sequence[Any]) -> str:
    """The text of content given in parts, as for models that also see."""
    texts: list[str] = []
    for part in parts:
        if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
            raise ValueError("holds images or sound, not only text")  # a row's fault, not a caller's
        texts.append(part["text"])
    return "\n".join(texts)


def _listed(by_name: Mapping[str, Any]) -> list[tuple[Role, str]]:
    _, messages = _message_list(by_name)
    if messages is None:
        name = _cell_name(by_name, _LIST_COLUMNS)
        if name is None:
            raise ValueError("no messages column")
        if not by_name[name]:
            raise ValueError("no messages")
        raise ValueError(f"{name} is not a list of messages")
    return [_said(message) for message in messages]


def _alpaca(by_name: Mapping[str, Any]) -> list[tuple[Role, str]]:
    if _cell_name(by_name, _INSTRUCTION) is None:
        raise ValueError("no instruction column")
    if _cell_name(by_name, _OUTPUT) is None:
        raise ValueError("no output column")
    parts = (_text(_cell(by_name, _INSTRUCTION), "instruction"), _text(_cell(by_name, _CONTEXT), "input"))
    question = "\n\n".join(part for part in parts if part.strip())
    return [("user", question), ("assistant", _text(_cell(by_name, _OUTPUT), "output"))]


def _pair(by_name: Mapping[str, Any]) -> list[tuple[Role, str]]:
    pair = next((p for p in _PAIRS if p[0] in by_name and p[1] in by_name), None)
    if pair is None:
        raise ValueError("no prompt and completion columns")
    said: list[tuple[Role, str]] = []
    for name, role in zip(pair, ("user", "assistant"), strict=True):
        messages = _as_messages(by_name[name])
        if messages is not None:
            said += [_said(message) for message in messages]
        else:
            said.append((role, _text(by_name[name], name)))
    return said
