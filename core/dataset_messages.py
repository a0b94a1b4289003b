"""Messages out of a row's cells: roles under any usual name, content in parts, reasoning, tool calls and tool answers.

Every value is suspect: whatever a cell holds, nothing but ValueError is raised, with a short reason.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .conversation import Role
from .dataset_source import MAX_ROW_CHARACTERS
from .text import one_line

ROLES: dict[str, Role] = {
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
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
_PLAIN: dict[Any, Role] = {name: ROLES[name] for name in ("system", "user", "assistant")}
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_ASKS = ("user", "human", "question", "prompt", "input", "instruction", "query")
_ANSWERS = ("assistant", "answer", "response", "output", "bot", "gpt", "completion")
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
_TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|User|Assistant|System): ?")


class Said(NamedTuple):
    """One message as the row gives it."""

    role: Role
    text: str
    reasoning: str = ""
    calls: str = ""
    name: str = ""
    call_id: str = ""
    ignored: bool = False
    """True where the row says that this answer is not to be learned (a weight of 0)."""


def writable(text: str) -> str:
    """`text` without NUL, lone surrogates as U+FFFD: what every tokenizer and file takes."""
    if "\0" not in text:
        if text.isascii():
            return text
        try:
            text.encode()  # several times faster than a search for what cannot be encoded
            return text
        except UnicodeEncodeError:
            pass
    return _UNWRITABLE.sub(lambda match: "" if match[0] == "\0" else "\ufffd", text)


def text_of(value: Any, noun: str) -> str:
    """A cell as text: missing values (None, NaN) are empty, numbers are written out."""
    if isinstance(value, str):
        return writable(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(f"the {noun} is not text")


def parsed(value: Any) -> Any:
    """A list or object that a cell holds as JSON, or as Python writes it; any other value as it is."""
    if not isinstance(value, str) or len(value) > MAX_ROW_CHARACTERS or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value, strict=False)
    except (ValueError, RecursionError):
        pass
    if len(value) > 200_000 or "'" not in value:
        return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return value


def as_messages(value: Any) -> list[Mapping[str, Any]] | None:
    """`value` as a list of messages (objects with a role or a from), or None where it is no such list.

    Lists of `{"user": …, "assistant": …}` are put apart into their messages.
    """
    if not isinstance(value, list):
        if isinstance(value, str):
            value = parsed(value) if value.lstrip().startswith("[") else value
        if isinstance(value, Mapping) and ("role" in value or "from" in value) and _content_key(value):
            value = [value]
        if not isinstance(value, list | tuple):
            return None
    if not value:
        return None
    pairs: list[Mapping[str, Any]] = []
    for message in value:
        if not isinstance(message, dict) and not isinstance(message, Mapping):  # the second costs far more
            return None
        if "role" in message or "from" in message:
            continue
        ask = next((key for key in _ASKS if key in message), None)
        answer = next((key for key in _ANSWERS if key in message), None)
        if ask is None or answer is None:
            return None
        pairs += [
            {"role": "user", "content": message[ask]},
            {"role": "assistant", "content": message[answer]},
        ]
    if not pairs:
        return list(value)
    return pairs if len(pairs) == 2 * len(value) else None


def as_strings(value: Any) -> list[Mapping[str, Any]] | None:
    """A list of two or more texts, as question and answer in turn; None for anything else."""
    value = parsed(value)
    if not isinstance(value, list | tuple) or len(value) < 2 or not all(isinstance(v, str) for v in value):
        return None
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(value)]


def transcript(text: str) -> list[Said] | None:
    """A conversation that is written out as `Human: … Assistant: …` paragraphs; None for any other text."""
    pieces = _TRANSCRIPT.split(text)
    if len(pieces) < 3 or pieces[0].strip():
        return None
    said = zip(pieces[1::2], pieces[2::2], strict=True)
    return [Said(ROLES[name.lower()], writable(body.strip())) for name, body in said]


def _content_key(message: Mapping[str, Any]) -> str | None:
    return next((key for key in ("content", "value", "text", "parts") if key in message), None)


def said(message: Mapping[str, Any]) -> Said:
    """One message. Raises ValueError with the reason."""
    if len(message) == 2:  # by far the most messages
        name, value = message.get("role"), message.get("content")
        if isinstance(value, str) and isinstance(name, str) and name in _PLAIN:
            return Said(_PLAIN[name], writable(value))
    name = message.get("role")
    if name is None:
        name = message.get("from")
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
        if role is None:
            raise ValueError(
                f"unknown role {one_line(name, 20)}" if isinstance(name, str) else "unknown role"
            )
    key = "content" if "content" in message else _content_key(message)
    value = message[key] if key is not None else None
    if len(message) == 2 and isinstance(value, str) and name not in ("function_call", "tool_call"):
        return Said(role, writable(value))
    reasoning = ""
    if isinstance(value, list | tuple):
        value, reasoning = _parts(value)
    text = text_of(value, "content of a message")
    if role == "tool":
        return Said(role, text, "", "", _short(message.get("name")), _short(message.get("tool_call_id")))
    if role != "assistant":
        return Said(role, text, "", "", _short(message.get("name")))
    for key in _REASONING_KEYS:
        if not reasoning and isinstance(message.get(key), str):
            reasoning = writable(message[key])
    calls = _calls(message)
    if name in ("function_call", "tool_call") and not calls:
        calls = _calls_in_text(text)
        text = "" if calls else text
    weight = message.get("weight", message.get("train"))
    ignored = weight is not None and not isinstance(weight, str) and weight == 0
    return Said(role, text, reasoning, calls, "", "", ignored)


def _short(value: Any) -> str:
    return writable(value)[:200] if isinstance(value, str) else ""


def _parts(parts: Sequence[Any]) -> tuple[str, str]:
    """The text, and the reasoning, of content given in parts, as for models that also see."""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and isinstance(part.get("thinking"), str):
            thoughts.append(part["thinking"])
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise ValueError("holds images or sound, not only text")  # a row's fault, not a caller's
    return "\n".join(texts), writable("\n".join(thoughts))


def json_text(value: Any, noun: str) -> str:
    """`value` as JSON text. Raises ValueError where it cannot be written."""
    try:
        return writable(json.dumps(value, ensure_ascii=False, default=_plain))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the {noun} cannot be read") from error


def _plain(value: Any) -> Any:
    """What tables hold and JSON does not (dates, decimals), written out."""
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _calls(message: Mapping[str, Any]) -> str:
    """The tool calls of a message as JSON text, in the form that chat templates read; "" for none."""
    value = parsed(message.get("tool_calls"))
    legacy = parsed(message.get("function_call"))
    if not value and isinstance(legacy, Mapping) and legacy.get("name"):
        value = [legacy]
    if value is None or value == [] or value == "":
        return ""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError("its tool calls are not a list")
    return json_text([_call(call) for call in value], "tool call")


def _call(call: Any) -> dict[str, Any]:
    call = parsed(call)
    inner = parsed(call.get("function")) if isinstance(call, Mapping) else None
    inner = inner if isinstance(inner, Mapping) else call
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ValueError("a tool call names no function")
    arguments = parsed(inner.get("arguments", inner.get("parameters")))
    if isinstance(arguments, Mapping):
        # Tables fill in the arguments of every other row's calls with nothing.
        arguments = {key: value for key, value in arguments.items() if value is not None}
    result: dict[str, Any] = {
        "type": "function",
        "function": {"name": name, "arguments": {} if arguments in (None, "") else arguments},
    }
    if isinstance(call.get("id"), str):
        result["id"] = call["id"]
    return result


def _calls_in_text(text: str) -> str:
    value = parsed(text)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(c, Mapping) for c in value):
        return ""
    try:
        return json_text([_call(call) for call in value], "tool call")
    except ValueError:
        return ""


def tools_of(value: Any) -> str:
    """Tool definitions as JSON text, a list in the form that chat templates read; "" for none."""
    value = parsed(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        if value.strip():
            raise ValueError("its tools are not JSON")
        return ""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError("its tools are not a list")
    tools = [parsed(tool) for tool in value]
    if not all(isinstance(tool, Mapping) for tool in tools):
        raise ValueError("its tools are not a list of definitions")
    whole = [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
    return json_text(whole, "tool definition") if whole else ""
