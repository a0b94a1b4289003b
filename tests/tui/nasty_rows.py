"""Files whose form is good and whose rows are nasty, built as those of `nasty` are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tui.nasty import chat, chats, lines, write


def preference_pairs(folder: Path) -> Path:
    rows: list[Any] = [
        {"prompt": f"which {n}?", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(30)
    ]
    rows[7]["chosen"] = " "
    return write(folder / "pairs.jsonl", rows)


def wrong_order(folder: Path) -> Path:
    def talk(*roles: str) -> dict[str, Any]:
        return {"conversations": [{"from": role, "value": f"{role} says"} for role in roles]}

    rows = [
        {"conversations": [{"from": "human", "value": f"q {n}"}, {"from": "gpt", "value": f"a {n}"}]}
        for n in range(30)
    ]
    rows[1], rows[2], rows[3] = talk("gpt", "human"), talk("human"), talk("gpt")
    rows[4], rows[5], rows[6] = talk("human", "system", "gpt"), talk("alien", "gpt"), {"conversations": []}
    return write(folder / "vicuna.json", ["[" + ",\n".join(lines(rows)) + "]"])


def tools_and_reasoning(folder: Path) -> Path:
    tool = {
        "type": "function",
        "function": {"name": "clock", "description": "the time", "parameters": {"type": "object"}},
    }
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"what time is it in {n}?"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [
                        {
                            "type": "function",
                            "function": {"name": "clock", "arguments": json.dumps({"town": n})},
                        }
                    ],
                },
                {"role": "tool", "content": f"{n} o'clock"},
                {"role": "assistant", "reasoning_content": f"the clock says {n}", "content": f"It is {n}."},
            ],
            "tools": [tool],
        }
        for n in range(30)
    ]
    return write(folder / "tools.jsonl", rows)


def empty_answers(folder: Path) -> Path:
    rows = chats(30)
    for n in (4, 9, 21):
        rows[n] = chat(f"question {n}", " \n" if n == 9 else "")
    return write(folder / "some-empty.jsonl", rows)


def only_empty_answers(folder: Path) -> Path:
    return write(folder / "all-empty.csv", ["question,answer", *(f"how {n}?," for n in range(30))])


def all_beyond_the_limit(folder: Path) -> Path:
    return write(folder / "endless.jsonl", [chat(f"{n} " + "word " * 100, "yes") for n in range(30)])


def copies(folder: Path) -> Path:
    return write(folder / "copies.jsonl", [chat(f"question {n % 10}", f"answer {n % 10}") for n in range(40)])


def leaking(folder: Path) -> dict[str, Any]:
    """Held-out rows of their own, two of which ask what the copies ask."""
    rows = [chat("question 1", "other"), chat("QUESTION  2", "other"), chat("new", "other")]
    return {"evaluation_source": str(write(folder / "held.jsonl", rows))}


def mixed_by_half(folder: Path) -> dict[str, Any]:
    """A second source, of which half the rows are wanted."""
    rows = ["question,answer", *(f"and {n}?,or {n}" for n in range(20))]
    return {"mix": {str(write(folder / "other.csv", rows)): 0.5}}


def secrets(folder: Path) -> Path:
    rows = chats(30)
    rows[2] = chat("my key", "sk-" + "a1B2" * 10)
    rows[11] = chat("my token", "hf_" + "aBcDe" * 7)
    rows[12] = chat("write to", "jane.doe@bank-mail.de")
    return write(folder / "secrets.jsonl", rows)


def control_tokens(folder: Path) -> Path:
    rows = [chat(f"question {n}", f"answer {n}<|im_end|>\n<|im_start|>user\nmore") for n in range(30)]
    return write(folder / "rendered.jsonl", rows)


def prose(folder: Path) -> Path:
    path = folder / "novel.txt"
    path.write_text(
        "\n\n".join(
            f"Chapter {n}.\nIt was, as they say, a dark and stormy night; number {n}." for n in range(30)
        )
    )
    return path
