"""The demo's rows keep their promises, and its scorer measures what it says."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from finetui.core.demo import (
    CATEGORIES,
    KEYS,
    MAX_ANSWER_CHARACTERS,
    SYSTEM_PROMPT,
    URGENCIES,
    Labels,
    Score,
    heldout_path,
    judge,
    parse_answer,
    score,
    train_path,
)


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    role: str
    content: str


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    messages: tuple[Message, Message]

    @property
    def message(self) -> str:
        return self.messages[0].content

    @property
    def answer(self) -> str:
        return self.messages[1].content

    @property
    def labels(self) -> Labels:
        labels = parse_answer(self.answer)
        assert labels is not None, self.answer
        return labels


def read(path: Path) -> list[Row]:
    return [Row.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


TRAIN = read(train_path())
HELDOUT = read(heldout_path())
REFERENCES = [row.answer for row in HELDOUT]


def normalised(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def trigrams(text: str) -> frozenset[str]:
    text = normalised(text)
    return frozenset(text[i : i + 3] for i in range(len(text) - 2))


# The rows


def test_there_are_enough_rows():
    assert len(TRAIN) >= 320
    assert len(HELDOUT) == 40


@pytest.mark.parametrize("rows", [TRAIN, HELDOUT], ids=["train", "heldout"])
def test_rows_are_well_formed(rows: list[Row]):
    for row in rows:
        assert [message.role for message in row.messages] == ["user", "assistant"]
        labels = row.labels
        assert labels.category in CATEGORIES, row
        assert labels.urgency in URGENCIES, row
        # What is trained on is exactly one form of JSON, so that the model has one form to learn.
        ordered = {key: getattr(labels, key) for key in KEYS}
        assert row.answer == json.dumps(ordered, ensure_ascii=False)

        assert labels.product == labels.product.strip().lower(), row
        assert labels.product == "none" or labels.product in row.message.lower(), row
        assert len(labels.product.split()) <= 3, row

        assert 4 <= len(labels.summary.split()) <= 8, row
        assert not labels.summary.endswith("."), row
        assert labels.summary[0].isupper() or labels.summary[0].isdigit(), row

        assert row.message == row.message.strip()
        assert "\n" not in row.message
        assert 2 <= len(row.message.split()) <= 45, row
        assert len(row.answer) < 200, row


def test_praise_is_never_urgent():
    assert {row.labels.urgency for row in TRAIN + HELDOUT if row.labels.category == "praise"} == {"low"}


def test_no_message_occurs_twice_or_nearly():
    messages = [(row.message, trigrams(row.message)) for row in TRAIN + HELDOUT]
    assert len({normalised(message) for message, _ in messages}) == len(messages)
    near = [
        (one, other) for (one, a), (other, b) in combinations(messages, 2) if len(a & b) / len(a | b) >= 0.4
    ]
    assert near == []


def test_no_opening_is_a_template():
    openings = Counter(" ".join(normalised(row.message).split()[:3]) for row in TRAIN)
    opening, count = openings.most_common(1)[0]
    assert count <= 8, opening


@pytest.mark.parametrize("rows", [TRAIN, HELDOUT], ids=["train", "heldout"])
def test_labels_are_balanced(rows: list[Row]):
    categories = Counter(row.labels.category for row in rows)
    assert set(categories) == set(CATEGORIES)
    assert max(categories.values()) <= 1.2 * min(categories.values())
    urgencies = Counter(row.labels.urgency for row in rows)
    assert set(urgencies) == set(URGENCIES)
    assert min(urgencies.values()) >= len(rows) / 6


def test_heldout_products_are_mostly_new():
    known = {row.labels.product for row in TRAIN}
    new = [row for row in HELDOUT if row.labels.product not in known]
    assert len(HELDOUT) / 2 <= len(new) < len(HELDOUT)


def test_prompt_names_the_keys():
    assert all(key in SYSTEM_PROMPT for key in KEYS)


# The scorer


def test_references_score_full_marks():
    assert score(REFERENCES, REFERENCES) == Score(rows=40, valid=40, category_right=40, exact=40)
    padded = [f"\n {reference}  \n" for reference in REFERENCES]
    assert score(padded, REFERENCES).exact_share == 1.0


def test_garbage_scores_nothing():
    messages = [row.message for row in HELDOUT]
    found = score(messages, REFERENCES)
    assert found == Score(rows=40, valid=0, category_right=0, exact=0)
    assert (found.valid_share, found.category_share, found.exact_share) == (
        0.0,
        0.0,
        0.0,
    )


def test_no_rows_score_zero():
    assert score([], []).valid_share == 0.0


GOOD = (
    '{"category": "defect", "urgency": "high", "product": "kettle", "summary": "Kettle leaks since Tuesday"}'
)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "null",
        "[]",
        f"[{GOOD}]",
        f"{GOOD}{GOOD}",
        f"{GOOD}\n{GOOD}",
        f"Sure! {GOOD}",
        f"```json\n{GOOD}\n```",
        GOOD[:-1],
        GOOD.replace('"summary"', '"Summary"'),
        GOOD.replace("}", ', "note": "x"}'),
        GOOD.replace("}", ', "category": "defect"}'),
        GOOD.replace('"kettle"', "null"),
        GOOD.replace('"kettle"', "NaN"),
        GOOD.replace('"kettle"', '["kettle"]'),
        GOOD.replace('"kettle"', "9" * 5_000),
        GOOD.replace("kettle", "k" * MAX_ANSWER_CHARACTERS),
        GOOD.replace('"kettle"', "[" * 1_500 + "]" * 1_500),
        "[" * MAX_ANSWER_CHARACTERS,
        '{"a":' * 700,
        "{" * 10_000_000,
    ],
    ids=lambda answer: f"{len(answer)}-{answer[:30]!r}".encode("ascii", "replace").decode(),
)
def test_anything_but_the_one_object_is_invalid(answer: str):
    verdict = judge(answer, GOOD)
    assert verdict.labels is None
    assert not (verdict.valid or verdict.exact or verdict.category_right)


def test_order_of_keys_is_free():
    reordered = json.dumps(dict(reversed(json.loads(GOOD).items())))
    assert judge(reordered, GOOD).exact


@pytest.mark.parametrize(
    ("key", "category", "urgency", "product"),
    [
        ("category", False, True, True),
        ("urgency", True, False, True),
        ("product", True, True, False),
        ("summary", True, True, True),
    ],
)
def test_each_value_is_judged_alone(key: str, category: bool, urgency: bool, product: bool):
    verdict = judge(json.dumps(json.loads(GOOD) | {key: "something else"}), GOOD)
    assert verdict.valid
    assert (verdict.category_right, verdict.urgency_right, verdict.product_right) == (
        category,
        urgency,
        product,
    )
    assert verdict.exact == (category and urgency and product)


def test_faulty_reference_is_refused():
    with pytest.raises(ValueError, match="not a valid reference"):
        judge(GOOD, "kettle")
    with pytest.raises(ValueError):
        score([GOOD], [])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
)


@given(st.text() | JSON_VALUES.map(json.dumps))
def test_no_answer_makes_it_raise(answer: str):
    judge(answer, GOOD)


@given(st.fixed_dictionaries({key: st.text(max_size=100) for key in KEYS}))
def test_every_object_with_four_strings_is_valid(values: dict[str, str]):
    labels = parse_answer(json.dumps(values))
    assert labels == Labels(**values)
