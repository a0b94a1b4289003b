"""The demo: customer messages of a small appliance shop, each turned into one line of JSON.

Two files lie beside this one, both JSON Lines of conversations in OpenAI's `messages` form with one user and one
assistant message and no system message (the recipe adds `SYSTEM_PROMPT`):

- `messages.jsonl`, the rows to train on;
- `heldout.jsonl`, 40 rows that are never trained on; most of their products occur in no training row.

Every row was written one by one for this set; none comes from a template or from another data set. The
assistant's message is one line, written as `json.dumps(…, ensure_ascii=False)` writes it, with four string values in
the order of `KEYS`. The rules by which the rows are labelled:

`category`: what the message is about; a later wish ("… or my money back") does not change it.
    - `defect`: an item that has arrived is broken, faulty, damaged or dangerous.
    - `delivery`: the way of a parcel: late, lost, misdelivered, badly handled, to be moved to another day or
      place; or what was in it: a wrong item, a missing part, too many.
    - `billing`: money and papers: charges, payments, refunds not received, prices, discounts, invoices, receipts.
    - `return`: sending back, exchanging or having collected an item that works, or a return under way.
    - `question`: a request for information about an item or the shop, with no problem to solve.
    - `praise`: thanks or compliments, with no problem to solve.
`urgency`: the first rule that holds.
    - `low`: any praise.
    - `high`: danger to people or home (fire, smoke, sparks, shock, gas, burns, cuts, flooding, broken glass about,
      strangers let in); a deadline ("before Saturday", "by tomorrow", "today is the last day"); money taken
      twice or without an order; open anger (shouting in capitals, insults, threats, rows of exclamation marks).
    - `low`: any other question, and what says that it can wait ("no hurry", "whenever you like").
    - `normal`: everything else.
`product`: the item as the message names it, in lower case, with the words that belong to its kind ("robot vacuum")
    but no brand, size or colour; "none" where no item is named.
`summary`: four to eight plain words, no full stop.

`judge` and `score` measure answers against these labels. They are strict: an answer counts as valid only if it,
stripped of white space, is one JSON object with exactly the four keys (in any order, none twice) and strings as
values; text around the object, a code fence, or a fifth key make it invalid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

SYSTEM_PROMPT = (
    "Turn the customer's message into one line of JSON with the keys category, urgency, product, summary."
)
"""Given to the base model and to the tuned one alike, in training and in the comparison."""

KEYS = ("category", "urgency", "product", "summary")
CATEGORIES = ("defect", "delivery", "billing", "return", "question", "praise")
URGENCIES = ("low", "normal", "high")

MAX_ANSWER_CHARACTERS = 4_000
"""A longer answer is invalid unread: the longest reference has fewer than 200 characters."""


def train_path() -> Path:
    """The file with the rows to train on."""
    return Path(__file__).with_name("messages.jsonl")


def heldout_path() -> Path:
    """The file with the 40 rows that are held out."""
    return Path(__file__).with_name("heldout.jsonl")


@dataclass(frozen=True, slots=True)
class Labels:
    """The four values of a valid answer, as the model wrote them: untrusted text."""

    category: str
    urgency: str
    product: str
    summary: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer against its reference. `labels` is `None` where the answer is not valid; then nothing is right."""

    labels: Labels | None
    category_right: bool
    urgency_right: bool
    product_right: bool

    @property
    def valid(self) -> bool:
        return self.labels is not None

    @property
    def exact(self) -> bool:
        """Category, urgency and product are all right. The summary is free text and is not compared."""
        return self.category_right and self.urgency_right and self.product_right


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of rows; the shares run from 0 to 1 and are 0 where there are no rows."""

    rows: int
    valid: int
    category_right: int
    exact: int

    @property
    def valid_share(self) -> float:
        return self.valid / self.rows if self.rows else 0.0

    @property
    def category_share(self) -> float:
        return self.category_right / self.rows if self.rows else 0.0

    @property
    def exact_share(self) -> float:
        return self.exact / self.rows if self.rows else 0.0


def parse_answer(answer: str) -> Labels | None:
    """The labels in `answer`, or `None` where it is not valid (see the module's text). Never raises."""
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return None
    try:
        value: object = json.loads(answer.strip(), object_pairs_hook=_object_of_pairs, parse_constant=_refuse)
    except (ValueError, RecursionError):
        # ValueError: no JSON, a key twice, or a number with too many digits. RecursionError: nested too deeply.
        return None
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, object]", value)
    if set(fields) != set(KEYS):
        return None
    texts = [text for key in KEYS if isinstance(text := fields[key], str)]
    return Labels(*texts) if len(texts) == len(KEYS) else None


def judge(answer: str, reference: str) -> Verdict:
    """Compare one answer with one reference, both as text.

    Raises:
        ValueError: the reference itself is not a valid answer; that is a fault of the data, not of the model.
    """
    expected = parse_answer(reference)
    if expected is None:
        raise ValueError(f"not a valid reference: {reference[:200]!r}")
    labels = parse_answer(answer)
    if labels is None:
        return Verdict(None, category_right=False, urgency_right=False, product_right=False)
    return Verdict(
        labels,
        category_right=labels.category == expected.category,
        urgency_right=labels.urgency == expected.urgency,
        product_right=labels.product == expected.product,
    )


def score(answers: Sequence[str], references: Sequence[str]) -> Score:
    """Count the right ones among `answers`, which stand in the order of `references`.

    Raises:
        ValueError: the two differ in length, or a reference is not a valid answer.
    """
    verdicts = [judge(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    return Score(
        rows=len(verdicts),
        valid=sum(verdict.valid for verdict in verdicts),
        category_right=sum(verdict.category_right for verdict in verdicts),
        exact=sum(verdict.exact for verdict in verdicts),
    )


def _object_of_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
