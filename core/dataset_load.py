"""A whole dataset in memory: rows counted, converted and split, for the worker and for the wizard's counts alike."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .conversation import Conversation
from .dataset_files import located_rows, look_at
from .dataset_formats import Detection, conversation, detect
from .dataset_source import Located, Reading, evaluation_path, local_path
from .errors import FinetuiError
from .recipe import DatasetSection
from .text import one_line

_DETECT_ROWS = 50
_DETECT_BYTES = 8 * 1024 * 1024
_GIVE_UP_ROWS = 100_000
"""Rows in a file without a single readable one, after which it is refused."""


@dataclass(frozen=True)
class Dropped:
    """Rows that were left out for one reason. `first` holds the first few line (or row) numbers, from 1."""

    reason: str
    count: int
    first: tuple[int, ...]


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset in memory, split: what the worker tokenizes."""

    train: tuple[Conversation, ...]
    evaluation: tuple[Conversation, ...]
    dropped: tuple[Dropped, ...]
    """The training source's rows that could not be used, most frequent reason first."""
    detection: Detection
    evaluation_dropped: tuple[Dropped, ...] = ()
    """The same for a held-out file of its own."""

    @property
    def dropped_rows(self) -> int:
        return sum(d.count for d in self.dropped) + sum(d.count for d in self.evaluation_dropped)


def held_out_rows(rows: int, section: DatasetSection) -> int:
    """How many of `rows` usable rows are held out for evaluation: the share, rounded, and at least one where a share is
    asked for; at least one row stays to train on. None is taken where the section names a held-out file."""
    if section.evaluation_source or section.evaluation_share == 0 or rows < 2:
        return 0
    return min(rows - 1, max(1, round(rows * section.evaluation_share)))


def split(rows: int, section: DatasetSection, seed: int) -> tuple[list[int], list[int]]:
    """The indices (0 to rows − 1, ascending) that are trained on, and those held out: always the same for a seed."""
    count = held_out_rows(rows, section)
    if count == 0:
        return list(range(rows)), []
    chosen = set(random.Random(seed).sample(range(rows), count))
    return [i for i in range(rows) if i not in chosen], sorted(chosen)


class _Ledger:
    """Counts what was dropped, and why."""

    def __init__(self) -> None:
        self._numbers: dict[str, list[int]] = {}
        self._counts: dict[str, int] = {}

    def add(self, reason: str, number: int) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + 1
        numbers = self._numbers.setdefault(reason, [])
        if len(numbers) < 5:
            numbers.append(number)

    def entries(self) -> tuple[Dropped, ...]:
        order = sorted(self._counts, key=lambda reason: -self._counts[reason])
        return tuple(Dropped(r, self._counts[r], tuple(self._numbers[r])) for r in order)


class ConversationReader:
    """Conversations from located rows: the format is settled on the first rows, the rest follows it."""

    def __init__(
        self,
        rows: Iterator[Located],
        section: DatasetSection,
        reading: Reading | None = None,
        give_up: Callable[[], bool] | None = None,
    ) -> None:
        """`give_up` is asked every 256 rows for as long as none could be used; True ends the reading."""
        self._give_up = give_up
        self._rows = rows
        self._section = section
        self._reading = reading
        self.ledger = _Ledger()
        self.seen = 0
        self.usable = 0
        self.detection: Detection | None = None

    def __iter__(self) -> Iterator[Conversation]:
        held: list[Located] = []
        readable = 0
        for located in self._rows:
            held.append(located)
            readable += not located.problem
            enough = len(held) >= _DETECT_ROWS or self._read_bytes() > _DETECT_BYTES
            if (enough and readable) or len(held) >= _GIVE_UP_ROWS:
                break
        if not held:
            detect([])
        found = None
        if self._section.format == "auto" and readable:
            found = detect([located.row for located in held if not located.problem])
        self.detection = found or Detection(
            "messages" if self._section.format == "auto" else self._section.format, "as the recipe says"
        )
        for located in itertools.chain(held, self._rows):
            self.seen += 1
            if self._give_up and not self.usable and self.seen % 256 == 0 and self._give_up():
                return
            if located.problem:
                self.ledger.add(located.problem, located.number)
                continue
            try:
                turns = conversation(located.row, self.detection.format, self._section)
            except ValueError as error:
                self.ledger.add(one_line(str(error), 100), located.number)
                continue
            self.usable += 1
            yield turns

    def _read_bytes(self) -> float:
        return self._reading.share * self._reading.total_bytes if self._reading else 0

    def require_usable(self, title: str) -> Detection:
        """The detection. Raises FinetuiError (dataset-format) where no row could be used."""
        assert self.detection is not None
        if self.usable:
            return self.detection
        reasons = "; ".join(
            f"{d.reason} ({d.count:,}, first at {d.first[0]:,})" for d in self.ledger.entries()[:3]
        )
        raise FinetuiError(
            f"No row of {one_line(title, 100)} can be used.",
            f"Read as {self.detection.format}: {reasons}.",
            "Each row needs a question and an answer. Correct the rows, or set the format yourself.",
            code="dataset-format",
        )


def from_rows(
    rows: Iterable[Mapping[str, Any]],
    section: DatasetSection,
    seed: int,
    evaluation_rows: Iterable[Mapping[str, Any]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> LoadedDataset:
    """`rows` as conversations, split. The row limit cuts first, then the share is held out.

    `evaluation_rows` are used whole in place of a share; without them a held-out file that the section names is read.
    `progress` is called with the number of rows read, every 256 rows. Raises FinetuiError as `inspect` does.
    """
    located = (Located(number, row) for number, row in enumerate(rows, 1))
    evaluation = None
    if evaluation_rows is not None:
        evaluation = (Located(number, row) for number, row in enumerate(evaluation_rows, 1))
    return _loaded(located, section, seed, section.source, evaluation, progress)


def load(section: DatasetSection, seed: int, progress: Callable[[int], None] | None = None) -> LoadedDataset:
    """The local dataset (the demo or a file) that `section` names, whole and split, as `from_rows` does it."""
    path = local_path(section.source)
    return _loaded(located_rows(look_at(path), section.split), section, seed, path.name, None, progress)


def _loaded(
    located: Iterator[Located],
    section: DatasetSection,
    seed: int,
    title: str,
    evaluation: Iterator[Located] | None,
    progress: Callable[[int], None] | None,
) -> LoadedDataset:
    reader = ConversationReader(located, section)
    conversations = _collect(reader, section.row_limit, progress)
    detection = reader.require_usable(title)
    if evaluation is None and section.evaluation_source:
        path = evaluation_path(section.evaluation_source)
        evaluation = located_rows(look_at(path), section.split)
    if evaluation is not None:
        held_reader = ConversationReader(evaluation, section)
        held_out = _collect(held_reader, None, progress)
        held_reader.require_usable("the held-out rows")
        return LoadedDataset(
            tuple(conversations),
            tuple(held_out),
            reader.ledger.entries(),
            detection,
            held_reader.ledger.entries(),
        )
    train, held = split(len(conversations), section, seed)
    return LoadedDataset(
        tuple(conversations[i] for i in train),
        tuple(conversations[i] for i in held),
        reader.ledger.entries(),
        detection,
    )


def _collect(
    reader: ConversationReader, limit: int | None, progress: Callable[[int], None] | None
) -> list[Conversation]:
    conversations: list[Conversation] = []
    for turns in reader:
        conversations.append(turns)
        if progress is not None and len(conversations) % 256 == 0:
            progress(reader.seen)
        if limit is not None and len(conversations) >= limit:
            break
    return conversations
