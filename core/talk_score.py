"""Answers scored against what was expected: the same text, JSON with the same keys, contained, and how long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FinetuiError
from .recipe import DatasetSection
from .talk import HeldOut
from .text import one_line


@dataclass(frozen=True)
class Marks:
    """One answer. None where it cannot be judged: nothing was expected, or what was expected is no JSON."""

    exact: bool | None
    contains: bool | None
    """What was expected stands somewhere in the answer, upper and lower case alike."""
    json_valid: bool | None
    json_keys: bool | None
    characters: int


@dataclass(frozen=True)
class Summary:
    """How many of `count` answers; None where none could be judged."""

    count: int
    exact: int | None
    contains: int | None
    json_valid: int | None
    json_keys: int | None
    mean_characters: float


def read(file: Path) -> tuple[HeldOut, ...]:
    """The prompts of a dataset file in any format that can be trained on; a row's last answer is what is expected.

    A JSONL of `{"prompt": …}` alone has nothing to expect. Raises FinetuiError (prompts-missing, dataset-…).
    """
    from . import dataset_load

    bare = _bare(file)
    if bare:
        return bare
    loaded = dataset_load.load(
        DatasetSection(source=str(file.expanduser().absolute()), evaluation_share=0.0), seed=0
    )
    found: list[HeldOut] = []
    for talk in loaded.train:
        last = max((i for i, turn in enumerate(talk) if turn.role == "assistant"), default=0)
        if last:
            found.append(HeldOut(tuple((turn.role, turn.text) for turn in talk[:last]), talk[last].text))
    if not found:
        raise FinetuiError(
            f"{one_line(file.name, 100)} has no prompts.",
            "No row has a question.",
            'Write one a line: {"prompt": "…", "completion": "…"}',
            code="prompts-missing",
        )
    return tuple(found)


def _bare(file: Path) -> tuple[HeldOut, ...]:
    """The prompts of a JSONL whose rows are questions without answers."""
    found: list[HeldOut] = []
    try:
        with file.expanduser().open(encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    row: Any = json.loads(line)
                    if set(row) - {"prompt", "system"} or not isinstance(row["prompt"], str):
                        return ()
                    system = ((("system", str(row["system"])),)) if row.get("system") else ()
                    found.append(HeldOut((*system, ("user", row["prompt"]))))
    except (OSError, ValueError, TypeError, KeyError):
        return ()
    return tuple(found)


def mark(answer: str, expected: str) -> Marks:
    """Judges one answer. White space at the ends and its amount do not count."""
    wanted = _json(expected)
    given = _json(answer)
    structured = isinstance(wanted, (dict, list))
    valid = isinstance(given, (dict, list))
    keys = isinstance(wanted, dict) and isinstance(given, dict) and set(wanted) == set(given)
    ours, theirs = " ".join(answer.split()), " ".join(expected.split())
    return Marks(
        ours == theirs if theirs else None,
        theirs.casefold() in ours.casefold() if theirs else None,
        valid if structured or not theirs else None,
        keys if isinstance(wanted, dict) else None,
        len(answer),
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def summary(marks: Sequence[Marks]) -> Summary:
    """The sums."""

    def total(values: list[bool | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    return Summary(
        len(marks),
        total([m.exact for m in marks]),
        total([m.contains for m in marks]),
        total([m.json_valid for m in marks]),
        total([m.json_keys for m in marks]),
        sum(m.characters for m in marks) / max(1, len(marks)),
    )
