"""The dataset step: rows read, their format detected, and each row as a conversation. No torch, no datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .recipe import DatasetSection

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion"]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation. `learned` marks what the loss counts."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    learned: bool = False


@dataclass(frozen=True)
class Detection:
    """The format that the first rows speak for, and the reason in words."""

    format: Format
    reason: str


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before training. `first` holds its first rows as they will be trained on."""

    source: str
    kind: Literal["demo", "file", "hub"]
    title: str
    """Short name for the rail, such as `tickets.jsonl`."""
    file_kind: str
    """JSONL, JSON, CSV, Parquet, or hub."""
    detection: Detection
    rows: int | None
    evaluation_rows: int | None
    """Rows held out under the section that was asked about; None where not known yet."""
    first: tuple[tuple[Turn, ...], ...]
    bytes: int | None = None
    mean_characters: float | None = None
    """Characters of a row's turns, over the rows looked at; for estimates of length."""


def read_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a local JSONL, JSON, CSV or Parquet file (by content, then by ending), one at a time."""
    raise NotImplementedError


def detect(rows: Sequence[Mapping[str, Any]]) -> Detection:
    """The format of `rows` by their columns and contents. Raises FinetuiError (dataset-format) that names the columns
    found and what is looked for."""
    raise NotImplementedError


def conversation(row: Mapping[str, Any], format: Format, section: DatasetSection) -> tuple[Turn, ...]:
    """`row` as turns, with the section's system prompt and learned marks. Raises ValueError with a short reason
    (`no assistant turn`, `empty answer`, …) where the row cannot be used; such rows are dropped and counted."""
    raise NotImplementedError


def inspect(section: DatasetSection) -> DatasetFacts:
    """Looks at the dataset that `section` names. Blocking: call it from a thread. A hub dataset is looked at in a process
    of its own (`core.worker.peek`).

    Raises FinetuiError with codes dataset-missing, dataset-empty, dataset-format, dataset-broken, hub-offline, …
    """
    raise NotImplementedError
