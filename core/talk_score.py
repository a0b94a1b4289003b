"""Answers scored against what was expected: the same text, JSON with the same keys, contained, and how long."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .conversation import Turns
from .errors import FinetuiError
from .recipe import DatasetSection
from .runs import event_log, events
from .runs.store import RunFolder
from .talk import HeldOut, Target, held_out
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


@dataclass(frozen=True)
class Prompts:
    """What is asked. `left_out` says which rows are not, and why, a line each."""

    asked: tuple[HeldOut, ...]
    left_out: tuple[str, ...] = ()


def read(file: Path) -> Prompts:
    """The prompts of a dataset file in any format that can be trained on; a row's last answer is what is expected.

    A JSONL of `{"prompt": …}` alone has nothing to expect. Raises FinetuiError (prompts-missing, dataset-…).
    """
    from . import dataset_load

    bare = _bare(file)
    if bare:
        return Prompts(bare)
    loaded = dataset_load.load(
        DatasetSection(source=str(file.expanduser().absolute()), evaluation_share=0.0), seed=0
    )
    found = _asked(loaded.train)
    if not found:
        raise FinetuiError(
            f"{one_line(file.name, 100)} has no prompts.",
            "No row has a question.",
            'Write one a line: {"prompt": "…", "completion": "…"}',
            code="prompts-missing",
        )
    left_out = [_words(d.count, d.reason, d.first) for d in loaded.dropped]
    if without := [talk.number for talk in loaded.train if not _asked([talk])]:
        left_out.append(_words(len(without), "no question before an answer", without[:10]))
    return Prompts(found, tuple(left_out))


def own(target: Target) -> Prompts:
    """The held-out rows of the target's run, as its recipe reads them; where they cannot be read as they were, those that the
    run kept. Blocking. Raises FinetuiError (prompts-missing)."""
    from . import dataset_load, recipe_file

    fix = 'Name a file of prompts: one a line, {"prompt": "…", "completion": "…"}'
    if target.run is None:
        raise FinetuiError("There are no prompts.", "This lies in no run.", fix, code="prompts-missing")
    run = RunFolder(target.run)
    told = [r.event for r in event_log.read_all(run.events) if isinstance(r.event, events.DatasetReady)]
    kept, rows = held_out(target), ()
    try:
        recipe = recipe_file.load(run.recipe)
        rows = _asked(dataset_load.load(recipe.dataset, recipe.training.seed).evaluation)
    except FinetuiError:
        pass  # the file is gone, or the rows are the hub's
    if (told and not told[-1].evaluation_rows) or not (kept or rows):
        raise FinetuiError("There are no prompts.", "The run held no rows out.", fix, code="prompts-missing")
    if rows and {one.messages for one in kept} <= {one.messages for one in rows}:
        return Prompts(rows)
    return Prompts(kept, (f"all but the {len(kept)} that the run kept: its rows are not here as they were",))


def _asked(conversations: Iterable[Turns]) -> tuple[HeldOut, ...]:
    """Each conversation up to its last answer, which is what is expected; without those that have none."""
    found: list[HeldOut] = []
    for talk in conversations:
        last = max((i for i, turn in enumerate(talk) if turn.role == "assistant"), default=0)
        if last:
            found.append(HeldOut(tuple((turn.role, turn.text) for turn in talk[:last]), talk[last].text))
    return tuple(found)


def _words(count: int, reason: str, numbers: Sequence[int]) -> str:
    if count == 1:
        return f"row {numbers[0]}: {reason}"
    more = ", …" if count > len(numbers) else ""
    return f"{count:,} rows ({', '.join(map(str, numbers))}{more}): {reason}"


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


def words(answer: str, expected: str) -> str:
    """What `mark` finds, in a line: `Not exact, valid JSON, 31 characters (expected: 30)`."""
    marks = mark(answer, expected)
    found = "Exact" if marks.exact else "Not exact, but contained" if marks.contains else "Not exact"
    if marks.json_valid is not None:
        keys = "" if marks.json_keys is None else ", same keys" if marks.json_keys else ", other keys"
        found += f", valid JSON{keys}" if marks.json_valid else ", no valid JSON"
    return f"{found}, {marks.characters:,} characters (expected: {len(expected):,})"


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
