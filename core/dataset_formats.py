"""Which format the rows of a dataset are in: found by columns and contents, with a confidence and a reason in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from . import dataset_names as names
from .dataset_messages import as_messages, as_strings
from .errors import FinetuiError
from .recipe import DatasetSection
from .text import clean, one_line

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "text", "preference"]

SURE = 0.7
"""Below this confidence a person should look at the mapping before training."""

LOOKED_FOR = (
    "messages (a list of role and content), conversations (a list of from and value), "
    "instruction + output, prompt + completion (also question + answer, input + output), "
    "text, or chosen + rejected"
)


@dataclass(frozen=True)
class Detection:
    """The format that the first rows speak for, and the reason in words."""

    format: Format
    reason: str
    columns: tuple[str, ...] = ()
    """The columns of the first rows, in order; safe to display."""
    confidence: float = 1.0
    """How sure it is, 0 to 1: below `SURE` a person should look at the mapping."""
    mapping: Mapping[str, str] = field(default_factory=dict[str, str])
    """Role (user, assistant, system, context, messages, text, chosen, rejected, tools, reasoning) to its column."""


class UnknownFormat(FinetuiError):
    """Rows that could not be understood, with what a mapping form shows: the columns and what stands in them."""

    def __init__(
        self, what: str, why: str, fix: str, columns: tuple[str, ...], examples: tuple[str, ...]
    ) -> None:
        super().__init__(what, why, fix, code="dataset-format")
        self.columns = columns
        self.examples = examples
        """For each column the first value that is not empty, safe to display, at most 200 characters."""


@dataclass(frozen=True, slots=True)
class _Guess:
    format: Format
    reason: str
    confidence: float
    mapping: dict[str, str]


def detect(rows: Sequence[Mapping[str, Any]], section: DatasetSection | None = None) -> Detection:
    """The format that most of `rows` (the first 50) speak for, or that `section` sets by its format or columns.

    Raises UnknownFormat (dataset-format) that names the columns found and what is looked for; FinetuiError
    (dataset-empty) for no rows.
    """
    sample = rows[:50]
    if not sample:
        raise FinetuiError(
            "The dataset has no rows.",
            "It was read to its end, and holds not a single example.",
            "Choose one that holds examples.",
            code="dataset-empty",
        )
    columns = column_names(sample)
    if section is not None and section.columns is not None:
        return _mapped(section, columns, sample)
    votes: dict[Format, list[_Guess]] = {}
    for row in sample:
        guess = _guess(_lower(row))
        if guess is not None:
            votes.setdefault(guess.format, []).append(guess)
    if section is not None and section.format != "auto":
        agreeing = votes.get(section.format, [])
        return Detection(
            section.format, "as the recipe says", columns, 1.0, agreeing[0].mapping if agreeing else {}
        )
    if not votes:
        raise _unknown(columns, sample)
    found = max(votes, key=lambda name: len(votes[name]))
    best = votes[found]
    confidence = sum(guess.confidence for guess in best) / len(sample)
    reason = best[0].reason
    if len(best) < len(sample):
        reason += f", in {len(best)} of the first {len(sample)} rows"
    return Detection(found, reason, columns, round(confidence, 2), best[0].mapping)


def _mapped(
    section: DatasetSection, columns: tuple[str, ...], rows: Sequence[Mapping[str, Any]]
) -> Detection:
    """The format that the columns in the recipe make. Raises UnknownFormat where they make none, or are not there."""
    mapping = cast("dict[str, str]", dict(section.columns or {}))
    shown = ", ".join(f"{role} = {one_line(column, 40)}" for role, column in mapping.items())
    there = {names.normal(name) for row in rows for name in row if isinstance(name, str)}
    absent = [
        c
        for c in mapping.values()
        if names.normal(c) not in there and names.normal(c.split(".")[0]) not in there
    ]
    if absent:
        raise UnknownFormat(
            f"There is no column {one_line(absent[0], 60)}.",
            f"Its columns are: {_listed(columns)}.",
            "Correct the columns: write role = column.",
            columns,
            examples(rows),
        )
    found: Format
    if section.format != "auto":
        found = section.format
    elif "messages" in mapping:
        found = "messages"
    elif "chosen" in mapping or "rejected" in mapping:
        found = "preference"
    elif "text" in mapping and "assistant" not in mapping:
        found = "text"
    elif "user" in mapping or "assistant" in mapping:
        found = "prompt_completion"
    else:
        guess = next((g for g in (_guess(_lower(row)) for row in rows) if g is not None), None)
        if guess is None:
            raise _unknown(columns, rows)
        return Detection(
            guess.format, f"{guess.reason}; {shown}", columns, guess.confidence, guess.mapping | mapping
        )
    return Detection(found, f"as the recipe maps the columns: {shown}", columns, 1.0, mapping)


def _guess(by_name: Mapping[str, tuple[str, Any]]) -> _Guess | None:
    """The format of one row, from its columns in lower case to their own names and values; or None."""

    def mapped(**roles: str | None) -> dict[str, str]:
        return {role: one_line(by_name[name][0], 200) for role, name in roles.items() if name is not None}

    system = names.named(by_name, names.SYSTEM)
    tools = names.named(by_name, names.TOOLS)
    tools = tools if tools is not None and by_name[tools][1] else None
    kept = "; tools kept" if tools else ""
    chosen, rejected = names.named(by_name, names.CHOSEN), names.named(by_name, names.REJECTED)
    if chosen and rejected:
        prompt = names.named(by_name, names.PREFERENCE_PROMPT)
        reason = f"columns {chosen} and {rejected}: preference pairs, of which the chosen answer is learned"
        roles = mapped(chosen=chosen, rejected=rejected, user=prompt, system=system)
        return _Guess("preference", reason, 1.0, roles)
    for name in names.LISTS:
        if name not in by_name:
            continue
        own, value = by_name[name]
        messages = as_messages(value)
        shown = one_line(own, 40)
        roles = mapped(messages=name, system=system, tools=tools)
        if messages is not None:
            if any("role" in m for m in messages):
                if any(isinstance(m, Mapping) and ("role" in m) for m in _raw_list(value)):
                    return _Guess(
                        "messages", f"column {shown} is a list of role and content{kept}", 1.0, roles
                    )
                return _Guess("messages", f"column {shown} is a list of questions with answers", 0.9, roles)
            return _Guess("sharegpt", f"column {shown} is a list of from and value{kept}", 1.0, roles)
        if as_strings(value) is not None:
            reason = f"column {shown} is a list of texts, taken as question and answer in turn"
            return _Guess("messages", reason, 0.6, roles)
    instruction, output = names.named(by_name, names.INSTRUCTION), names.named(by_name, names.OUTPUT)
    if instruction and output:
        context = names.named(by_name, names.CONTEXT)
        roles = mapped(user=instruction, context=context, assistant=output, system=system, tools=tools)
        return _Guess("alpaca", f"columns {instruction} and {output}{kept}", 1.0, roles)
    pair = names.ask_and_answer(tuple(by_name))
    if pair is not None and (pair[2] == 1.0 or all(_is_text(by_name[name][1]) for name in pair[:2])):
        ask, answer, confidence = pair
        thought = names.named(by_name, names.REASONING)
        roles = mapped(user=ask, assistant=answer, system=system, reasoning=thought, tools=tools)
        kept += "; reasoning kept" if thought else ""
        doubt = "" if confidence >= SURE else ", by words in their names"
        reason = f"columns {one_line(ask, 40)} and {one_line(answer, 40)}{doubt}{kept}"
        return _Guess("prompt_completion", reason, confidence, roles)
    return _guess_text(by_name, mapped)


def _guess_text(by_name: Mapping[str, tuple[str, Any]], mapped: Any) -> _Guess | None:
    texts = [name for name, (_, value) in by_name.items() if _is_text(value)]
    text = names.named(texts, names.TEXT)
    if text is not None:
        alone = len(texts) == 1
        reason = f"column {text} is plain writing, learned whole" + (
            "" if alone else "; the other columns are left aside"
        )
        return _Guess("text", reason, 0.95 if alone else 0.6, mapped(text=text))
    made_up = [name for name in by_name if name.startswith("column ")]
    if len(made_up) == len(by_name) == len(texts):
        if len(texts) == 2:
            reason = "two columns without names: the first taken as the question, the second as the answer"
            return _Guess("prompt_completion", reason, 0.5, mapped(user=texts[0], assistant=texts[1]))
        if len(texts) == 1:
            return _Guess(
                "text", "one column without a name, taken as plain writing", 0.5, mapped(text=texts[0])
            )
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not value.strip().replace(".", "").replace("-", "").isdigit()


def _raw_list(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return [{"role": ""}]  # written as text, or a single message


def _unknown(columns: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> UnknownFormat:
    why = f"Its columns are: {_listed(columns)}. finetui looks for {LOOKED_FOR}."
    fix = "Say which column is what (Columns), or rename them."
    return UnknownFormat("The format of this dataset is not known.", why, fix, columns, examples(rows))


def _listed(columns: tuple[str, ...]) -> str:
    return ", ".join(columns[:12]) + (", …" if len(columns) > 12 else "") if columns else "none"


def column_names(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The columns of `rows`, in order, safe to display; at most 200."""
    found: dict[str, None] = {}
    for row in rows:
        for name in list(row)[:200]:
            if isinstance(name, str):
                found.setdefault(one_line(name, 40))
    return tuple(found)[:200]


def examples(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """For each of `column_names`, what stands in it: the first value that is not empty, safe to display."""
    found: dict[str, str] = {}
    for row in rows:
        for name, value in list(row.items())[:200]:
            if isinstance(name, str) and not found.get(one_line(name, 40)):
                text = value if isinstance(value, str) else "" if value is None else _shown(value)
                found[one_line(name, 40)] = one_line(clean(text, 400), 200)
    return tuple(found.values())[:200]


def _shown(value: Any) -> str:
    try:
        return str(value)[:400]
    except (ValueError, RecursionError):  # an integer of too many digits, or nested too deeply
        return "…"


def _lower(row: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """The row by lower-case column, with its own name; of two that differ only in case the first counts."""
    result: dict[str, tuple[str, Any]] = {}
    for name, value in row.items():
        if isinstance(name, str):
            result.setdefault(names.normal(name), (name, value))
    return result
