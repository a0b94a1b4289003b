"""What an inspection of a dataset found: the ledger, its findings, and a row as the model sees it. Pure data.

The inspector (`dataset_inspect`) fills these from the very code that makes the trainer's batches. Texts in them come from
the dataset and are shown through `core.text`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["stop", "warning", "note"]
ActionKey = Literal["drop", "raise-length", "map", "deduplicate", "clean-copy", "change-model", "look"]
FIRST_LINES = 10
"""So many line numbers are kept for each reason, finding and kind of secret."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a row's rendered text whose tokens all have the same fate."""

    text: str
    trained: bool
    """The loss counts these tokens."""
    special: bool
    """A special token of the tokenizer, as the tokenizer writes it (not text that merely looks like one)."""
    cut: bool
    """Past the sequence length: the model never sees it."""


@dataclass(frozen=True, slots=True)
class SeenRow:
    """One row as the trainer gets it. Of a dropped row there are the raw form, the reason, and spans where it renders."""

    index: int
    """Its place among the rows read, from 0; `Inspector.row` takes the same."""
    number: int
    """The line of a text file or the row of a table, from 1."""
    raw: str
    """The row as it stands in the file, as indented JSON; not yet safe for a terminal."""
    spans: tuple[Span, ...]
    tokens: int
    """After the cut."""
    trained_tokens: int
    full_tokens: int
    """Before the cut."""
    dropped: str
    """Why it is left out; empty for a row that is kept."""
    evaluation: bool
    """It is held out for evaluation."""
    source: str = ""
    """The file (or hub id) that it comes from, where there are several."""
    rejected: str = ""
    """The rejected answer of a preference pair; kept, not learned."""


@dataclass(frozen=True, slots=True)
class Action:
    """What can be done about a finding, with the recipe fields that it changes."""

    key: ActionKey
    label: str
    change: tuple[tuple[str, str | int | float | bool | None], ...] = ()
    """(field path, value) pairs such as ("model.max_length", 1024)."""
    codes: tuple[str, ...] = ()
    """For clean-copy: the finding codes whose rows are left out (`Inspector.write_clean`)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the inspection noticed. `stop`: training must not start; `warning`: may, by choice; `note`: to know."""

    code: str
    severity: Severity
    count: int
    """Rows concerned."""
    sentence: str
    why: str
    lines: tuple[int, ...] = ()
    """The first ten, from 1."""
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class DroppedRows:
    """Rows left out for one reason; `lines` are the first ten, from 1."""

    reason: str
    count: int
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of full row lengths in tokens: `counts[i]` rows with edges[i] ≤ length < edges[i + 1]; the last one closed."""

    edges: tuple[int, ...] = (0, 1)
    counts: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of the full length of the rows that render, in tokens."""

    least: int = 0
    p5: int = 0
    p50: int = 0
    p95: int = 0
    p99: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True)
class Secrets:
    """Rows that hold one kind of secret or personal data. Never the text itself."""

    kind: str
    """In words, such as `e-mail address`."""
    severity: Severity
    count: int
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The whole account. `read == kept + dropped_rows` at all times; `kept == train_rows + evaluation_rows`."""

    read: int = 0
    """Rows looked at: conversations and rows left out. Split talks count as one row each, joined rows as one."""
    kept: int = 0
    dropped: tuple[DroppedRows, ...] = ()
    train_rows: int = 0
    evaluation_rows: int = 0
    tokens: int = 0
    """Of the training rows, after the cut: one epoch."""
    trained_tokens: int = 0
    """Of the training rows: those that the loss counts."""
    quantiles: Quantiles = Quantiles()
    histogram: Histogram = Histogram()
    max_length: int = 0
    cut_rows: int = 0
    """Kept rows that lose their end, or with `long_rows: drop` those dropped for it."""
    cut_tokens: int = 0
    answers_lost: int = 0
    """Rows dropped because the cut leaves no token of an answer."""
    ends_present: int = 0
    """Kept rows that end with an end-of-text token."""
    ends_trained: int = 0
    """Kept rows in which that token is learned."""
    double_bos: int = 0
    system_folded: int = 0
    duplicates: int = 0
    """Rows that say exactly what an earlier one says, dropped or not."""
    leaked_rows: int = 0
    """Held-out rows whose question also stands in training."""
    secrets: tuple[Secrets, ...] = ()
    findings: tuple[Finding, ...] = ()
    """The worst first."""
    complete: bool = False
    seconds: float = 0.0
    format: str = ""
    format_reason: str = ""
    format_confidence: float = 0.0
    """0 to 1."""
    mapping: tuple[tuple[str, str], ...] = ()
    """(role, column) pairs that were used."""
    source_rows: int = 0
    """Rows of the files, before talks are split and rows are joined."""
    preference_rows: int = 0
    """Rows with a rejected answer."""
    cached: bool = False
    """Taken from an earlier inspection of the same file, settings and tokenizer."""

    @property
    def dropped_rows(self) -> int:
        return sum(d.count for d in self.dropped)

    @property
    def trained_share(self) -> float:
        return self.trained_tokens / self.tokens if self.tokens else 0.0

    @property
    def worst(self) -> Severity | None:
        return self.findings[0].severity if self.findings else None

    @property
    def stops(self) -> tuple[Finding, ...]:
        """The findings that keep training from starting; empty where it may start."""
        return tuple(f for f in self.findings if f.severity == "stop")
