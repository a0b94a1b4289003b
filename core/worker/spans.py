"""Where in a rendered conversation the learned turns stand, by character and by token."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..conversation import Turn

MANY_TURNS = 48
"""From so many turns on, all are looked for at once before each is looked for by itself."""

MOST_TURNS = 1500
"""Looking for each by itself takes the square of the number of turns; above this it is not tried."""

_ENDING = 16


class Unrenderable(ValueError):
    """The template refuses a conversation, or hides what should be learned. The message is a short reason."""


Render = Callable[..., str]
"""(turns, answer_next=False) → text. Raises Unrenderable."""


def learned(
    turns: tuple[Turn, ...], text: str, render: Render, special: tuple[str, ...], opening: str
) -> list[tuple[int, int]]:
    """The character ranges of the learned turns in `text`, which is `render(turns)`. Raises Unrenderable.

    `special` are the tokenizer's added tokens as written; `opening` is what the template writes before an answer.
    """
    wanted = [index for index, turn in enumerate(turns) if turn.learned]
    found: list[tuple[int, int]] | None = None
    if len(turns) > MANY_TURNS:
        found = _all_at_once(turns, wanted, text, render, special, opening)
        if found is None and len(turns) > MOST_TURNS:
            raise Unrenderable("too many turns for this chat template")
    if found is None:
        found = [
            _by_prefix(turns, index, text, render) or _by_difference(turns, index, text, render, special)
            for index in wanted
        ]
    return [_to_its_end(text, start, end, special) for start, end in found]


def _to_its_end(text: str, start: int, end: int, special: tuple[str, ...]) -> tuple[int, int]:
    """The line break after the end-of-turn token is the template's, not the answer's."""
    body = text[start:end].rstrip()
    return start, (start + len(body) if body.endswith(special) else end)


def _by_prefix(turns: tuple[Turn, ...], index: int, text: str, render: Render) -> tuple[int, int] | None:
    last = index == len(turns) - 1
    try:
        before = render(turns[:index], turns[index].role == "assistant") if index else ""
        until = text if last else render(turns[: index + 1])
    except Unrenderable:
        return None
    whole = text.startswith(before) and text.startswith(until) and len(before) < len(until)
    if not whole or not _shows(text[len(before) : len(until)], turns[index]):
        return None
    return len(before), len(until)


def _by_difference(
    turns: tuple[Turn, ...], index: int, text: str, render: Render, special: tuple[str, ...]
) -> tuple[int, int]:
    turn = turns[index]
    said = turn.text.strip()
    if said:
        stand_in = ("b" if said[0] == "a" else "a") + "x" + ("b" if said[-1] == "a" else "a")
        changed = Turn(turn.role, stand_in)
    elif turn.calls:
        call = {"type": "function", "function": {"name": "zqx", "arguments": {}}}
        changed = replace(turn, calls=json.dumps([call]), reasoning="")
    else:
        raise Unrenderable("empty answer")
    other = render((*turns[:index], changed, *turns[index + 1 :]))
    start = _common(text, other)
    end = len(text) - _common(text[start:][::-1], other[start:][::-1])
    if not _shows(text[start:end], turn):
        raise Unrenderable(f"the chat template hides its {'answer' if said else 'tool call'}")
    rest = text[end:].lstrip()
    mark = next((one for one in special if rest.startswith(one)), "")
    return start, (len(text) - len(rest) + len(mark) if mark else end)


def _all_at_once(
    turns: tuple[Turn, ...],
    wanted: list[int],
    text: str,
    render: Render,
    special: tuple[str, ...],
    opening: str,
) -> list[tuple[int, int]] | None:
    """All learned turns from one more rendering, each text replaced by a stand-in of its own; None where that does not
    find every one beyond doubt."""
    names = {index: f"zqx{index}q" for index in wanted}
    if any(turns[index].calls or turns[index].reasoning or not turns[index].text.strip() for index in wanted):
        return None
    if "zqx" in text:
        return None
    try:
        other = render(
            tuple(Turn(turn.role, names[i]) if i in names else turn for i, turn in enumerate(turns))
        )
    except Unrenderable:
        return None
    found: list[tuple[int, int]] = []
    at = there = 0
    for index in wanted:
        place = other.find(names[index], there)
        if place < 0:
            return None
        between = other[there:place]
        if not text.startswith(between, at):
            return None
        at += len(between)
        said = turns[index].text if text.startswith(turns[index].text, at) else turns[index].text.strip()
        if not text.startswith(said, at):
            return None
        opened = between.rfind(opening) if opening else -1
        start = at if opened < 0 else at - (len(between) - opened - len(opening))
        at += len(said)
        there = place + len(names[index])
        rest = at
        while rest < len(text) and text[rest].isspace():
            rest += 1
        mark = next((one for one in special if text.startswith(one, rest)), "")
        if not mark:  # what else the template writes after an answer only a prefix tells
            return None
        found.append((start, rest + len(mark)))
    return found if text[at:] == other[there:] else None


def _shows(body: str, turn: Turn) -> bool:
    """Whether `body` holds how the turn ends. A template may drop what comes first (reasoning), never the answer."""
    said = turn.text.strip()
    if said or not turn.calls:
        return said[-_ENDING:] in body
    return all(name in body for name in _called(turn.calls))


def _called(calls: str) -> list[str]:
    """The names of the functions in a list of tool calls."""
    names: list[str] = []
    for call in json.loads(calls):
        function = call.get("function", call)
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            names.append(function["name"])
    return names


def _common(one: str, other: str) -> int:
    """The length of the common beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def tokens(row: Any, start: int, end: int) -> tuple[int, int] | None:
    """The tokens (from, to) of the encoding `row` that stand wholly within the characters `start` to `end`."""
    if end <= start:
        return None
    first = row.char_to_token(start)
    last = row.char_to_token(end - 1)
    if first is None or last is None:
        return _by_offsets(row.offsets, start, end)
    count = len(row)
    while first < count and (place := row.token_to_chars(first)) is not None:
        if place[0] >= start and place[1] > place[0]:
            break
        first += 1
    else:
        return _by_offsets(row.offsets, start, end)
    while last + 1 < count and (place := row.token_to_chars(last + 1)) is not None:
        if place[1] > end or place[0] >= end:
            break
        last += 1
    place = row.token_to_chars(last)
    if place is None:
        return _by_offsets(row.offsets, start, end)
    while last >= first and place is not None and place[1] > end:
        last -= 1
        place = row.token_to_chars(last) if last >= 0 else None
    return (first, last + 1) if last >= first else None


def _by_offsets(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """As `tokens`, for text of which some characters belong to no token."""
    inside = [at for at, (low, high) in enumerate(offsets) if low >= start and high <= end and high > low]
    return (inside[0], inside[-1] + 1) if inside else None


def joined(found: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """`found`, ascending, with what touches made one."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(found):
        if result and first <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], last))
        else:
            result.append((first, last))
    return tuple(result)
