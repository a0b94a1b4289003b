"""Every row of a dataset, one after the other: the one path that the worker, the wizard and the inspector read by."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .conversation import Conversation
from .dataset_formats import Detection
from .dataset_inputs import Input, RowOpener, evaluation_inputs, given_input, training_inputs
from .dataset_join import Joiner
from .dataset_marks import Row, learned, parts
from .dataset_rows import RowReader
from .dataset_sample import COPY, UNCHOSEN, UNUSABLE, Plan, copies_of
from .dataset_source import Located
from .dataset_split import content_key, held_out_keys, question_key
from .errors import FinetuiError
from .recipe import DatasetSection
from .text import one_line

__all__ = ["Dropped", "DroppedRow", "Ledger", "RowOpener", "Walk"]

DUPLICATE = "a copy of an earlier row"
PAST_LIMIT = "past the row limit"
LEFT_BY_WEIGHT = "left out by its source's weight"


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row that was left out: its line or row number (from 1), and the reason in words."""

    number: int
    reason: str
    source: int = 0
    """The index of its source among those mixed."""
    file: int = 0
    """The index of its file in the walk's `files`."""
    chosen: bool = False
    """True where the row limit or a weight leaves it out, and nothing is wrong with the row."""


@dataclass(frozen=True)
class Dropped:
    """Rows that were left out for one reason. `first` holds the first ten line (or row) numbers, from 1."""

    reason: str
    count: int
    first: tuple[int, ...]


class Ledger:
    """Counts what was dropped, and why."""

    def __init__(self) -> None:
        self._numbers: dict[str, list[int]] = {}
        self._counts: dict[str, int] = {}

    def add(self, reason: str, number: int) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + 1
        numbers = self._numbers.setdefault(reason, [])
        if len(numbers) < 10:
            numbers.append(number)

    def entries(self) -> tuple[Dropped, ...]:
        """Most frequent reason first."""
        order = sorted(self._counts, key=lambda reason: -self._counts[reason])
        return tuple(Dropped(r, self._counts[r], tuple(self._numbers[r])) for r in order)


class Walk:
    """Every row of a dataset section in file order, in bounded memory. Iterate once.

    Yields a `Conversation` for what is trained or evaluated on, and a `DroppedRow` for each row that is left out;
    `rows_read == rows_kept + rows_dropped` after each item. One row may give several conversations (split talks, a
    weight above 1), and several rows one (joined rows). With the same section and seed (the recipe's training.seed)
    the rows and their sides are the same in every process. A fair sample (a row limit with shuffle), and joined rows
    beside a held-out share, read everything twice; `share` counts both passes. Held-out rows of their own
    (`evaluation_source`, `evaluation_split`) come last, with `in_evaluation`.

    Memory: 16 bytes a row, and about 100 more a row where copies are dropped.

    Raises FinetuiError as `dataset.inspect` does, from the constructor (files that are not there) and on the way
    (dataset-broken: the rest of a file cannot be read; dataset-format: UnknownFormat).
    """

    def __init__(
        self,
        section: DatasetSection,
        seed: int,
        opener: RowOpener | None = None,
        cancelled: Callable[[], bool] | None = None,
        *,
        given: Iterable[Mapping[str, Any]] | None = None,
        given_evaluation: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        """`opener` gives the rows of hub datasets (in the worker: `hub_rows.rows_of`); without it they are refused.
        `cancelled` is asked every 256 rows and ends the walk with FinetuiError (cancelled). `given` rows stand in place of the
        section's own source, and `given_evaluation` in place of held-out ones; both must be readable more than once."""
        self.section = section
        self.seed = seed
        self.cancelled = cancelled
        first = None if given is None else given_input(section, given)
        self._training = training_inputs(section, opener, first)
        if given_evaluation is not None:
            self._evaluation = [given_input(section, given_evaluation)]
        else:
            self._evaluation = evaluation_inputs(section, opener)
        inputs = [*self._training, *self._evaluation]
        self.files: tuple[Path | str, ...] = tuple(name for entry in inputs for name in entry.names)
        """What is read, in order: paths, or hub ids. `Conversation.file` and `DroppedRow.file` index it."""
        self.detection: Detection | None = None
        """Of the first file that was understood; known from the first item on (in a folder: a later one)."""
        self.raw: Mapping[str, Any] = {}
        """The row as it stands in the file, of the item just yielded; empty where it could not be read. Of joined rows:
        `{"joined rows": [...]}`."""
        self.in_evaluation = False
        """Whether the item just yielded comes from a held-out file or split of its own."""
        self.rows_read = 0
        self.rows_kept = 0
        self.rows_dropped = 0
        self.ledger = Ledger()
        """Rows dropped of the training sources, for a fault of theirs or as copies."""
        self.left_out = Ledger()
        """Rows that the row limit or a weight left out."""
        self.evaluation_ledger = Ledger()
        self.evaluation_kept = 0
        self._unknown: FinetuiError | None = None
        self._own_evaluation = bool(self._evaluation)
        self._unit_keys = array("Q")
        self._keys = array("Q")
        self._evaluation_conversations = 0
        self._plan: Plan | None = None
        self._passes = 1 + self._needs_plan()
        self._done_passes = 0
        self._entry: Input | None = None
        self._before = 0
        self._pass_bytes = sum(entry.bytes for entry in self._training)
        self._evaluation_bytes = sum(entry.bytes for entry in self._evaluation)
        self._ended = False

    def _needs_plan(self) -> bool:
        section = self.section
        shared_out = section.evaluation_share > 0 and not self._own_evaluation
        return (section.row_limit is not None and section.shuffle) or (section.join_rows > 1 and shared_out)

    @property
    def total_bytes(self) -> int:
        """The bytes to read, as they stand on disk; 0 where they are not known (a hub dataset)."""
        return self._pass_bytes * self._passes + self._evaluation_bytes

    @property
    def done_bytes(self) -> int:
        if self._ended:
            return self.total_bytes
        here = self._entry.done_bytes if self._entry is not None else 0
        return min(self.total_bytes, self._pass_bytes * self._done_passes + self._before + here)

    @property
    def share(self) -> float:
        """The part that has been read, 0 to 1; 0 until the end where the size is not known."""
        if self._ended:
            return 1.0
        return self.done_bytes / self.total_bytes if self.total_bytes else 0.0

    @property
    def stated_rows(self) -> int | None:
        """The rows of the training sources, where all tell it before they are read (Parquet, a JSON object)."""
        counts = [entry.stated_rows for entry in self._training]
        return None if None in counts else sum(count for count in counts if count is not None)

    def sides(self) -> bytearray:
        """After the last item: one byte for each conversation yielded, in order; 1 where it is held out."""
        training = len(self._keys) - self._evaluation_conversations
        if self._own_evaluation:
            return bytearray(training) + bytearray(b"\1" * self._evaluation_conversations)
        held = held_out_keys(self._unit_keys, self.section, self.seed)
        return bytearray(key in held for key in self._keys)

    def keys(self) -> array[int]:
        """After the last item: `question_key` of each conversation yielded, in order (64 bits). Two of one key ask the same."""
        return self._keys

    def require_usable(self, title: str) -> Detection:
        """The detection. Raises FinetuiError (dataset-format) where no training row could be used."""
        if self.detection is not None and self.rows_kept - self.evaluation_kept:
            return self.detection
        raise self._unknown or _unusable(title, self.detection, self.ledger)

    def require_usable_evaluation(self) -> None:
        """Raises FinetuiError (dataset-format) where there are held-out rows of their own and none could be used."""
        if self._own_evaluation and not self.evaluation_kept:
            raise _unusable("the held-out rows", self.detection, self.evaluation_ledger)

    def __iter__(self) -> Iterator[Conversation | DroppedRow]:
        if self._needs_plan():
            self._plan = self._planned()
            self._done_passes, self._before, self._entry = 1, 0, None
        held: set[int] = set()
        if self._plan is not None:
            held = (
                held_out_keys(self._plan.keys, self.section, self.seed) if not self._own_evaluation else held
            )
        limit = self.section.row_limit if self._plan is None else None
        yield from self._part(self._training, self.ledger, held, limit)
        if self._evaluation:
            self.in_evaluation = True
            self._done_passes, self._before = self._passes, 0
            before = len(self._keys)
            self._plan = None
            kept = self.rows_kept
            for item in self._part(self._evaluation, self.evaluation_ledger, set(), None):
                self.evaluation_kept = self.rows_kept - kept
                self._evaluation_conversations = len(self._keys) - before
                yield item
            self.evaluation_kept = self.rows_kept - kept
        self._ended = True

    def _planned(self) -> Plan:
        """The first of two passes: what becomes of each row, without yielding any."""
        plan = Plan()
        seen: set[int] | None = set() if self.section.deduplicate else None
        for entry, _, located, reader in self._located(self._training, keep_detection=False):
            if located.problem:
                plan.add(UNUSABLE)
                continue
            try:
                row = reader.read(located.row)
                learned(row.said, self.section)
            except ValueError:
                plan.add(UNUSABLE)
                continue
            if seen is not None and _is_seen(row, seen):
                plan.add(COPY)
                continue
            plan.add(copies_of(entry, self.seed, located.number), question_key(row.said))
        if self.section.row_limit is not None and self.section.shuffle:
            plan.limit(self.section.row_limit, self.seed)
        return plan

    def _part(
        self, inputs: list[Input], ledger: Ledger, held: set[int], limit: int | None
    ) -> Iterator[Conversation | DroppedRow]:
        section, plan = self.section, self._plan
        seen: set[int] | None = set() if section.deduplicate else None
        joiner = Joiner(section) if section.join_rows > 1 else None
        units = at = 0
        for entry, file, located, reader in self._located(inputs):
            number, source = located.number, entry.index
            self.rows_read += 1
            self.raw = located.row
            at += 1
            take = plan.take[at - 1] if plan is not None and at <= len(plan.take) else None
            reason = located.problem
            chosen = False
            conversations: list[Conversation] = []
            row: Row | None = None
            key = 0
            if reason:
                pass
            elif take == UNCHOSEN:
                reason, chosen = PAST_LIMIT, True
            elif take == COPY:
                reason = DUPLICATE
            elif take == 0:
                reason, chosen = LEFT_BY_WEIGHT, True
            else:
                try:
                    row = reader.read(located.row)
                    if joiner is None:
                        conversations = parts(row, section, number, source, file)
                    else:
                        learned(row.said, section)
                except ValueError as error:
                    reason = one_line(str(error), 100)
                else:
                    if take is None and seen is not None and _is_seen(row, seen):
                        reason = DUPLICATE
                    elif take is None and entry.weight != 1:
                        take = copies_of(entry, self.seed, number)
                        if take == 0:
                            reason, chosen = LEFT_BY_WEIGHT, True
                    key = question_key(row.said)
            if reason:
                self.rows_dropped += 1
                (self.left_out if chosen else ledger).add(reason, number)
                yield DroppedRow(number, reason, source, file, chosen)
                continue
            assert row is not None
            self.rows_kept += 1
            copies = 1 if take is None else take
            if limit is not None:
                copies = min(copies, limit - units)
            units += copies
            for _ in range(copies):
                self._unit_keys.append(key)
                if joiner is not None:
                    yield from self._joined(joiner.add(row, located, source, file, key, key in held))
                    continue
                for conversation in conversations:
                    self._keys.append(key)
                    yield conversation
            if limit is not None and units >= limit:
                break
        if joiner is not None:
            yield from self._joined(joiner.rest())

    def _joined(
        self, items: Iterable[tuple[list[Conversation], int, Mapping[str, Any]]]
    ) -> Iterator[Conversation]:
        for conversations, key, raw in items:
            own, self.raw = self.raw, raw
            for conversation in conversations:
                self._keys.append(key)
                yield conversation
            self.raw = own

    def _located(
        self, inputs: list[Input], keep_detection: bool = True
    ) -> Iterator[tuple[Input, int, Located, RowReader]]:
        """Every row with its input, the index of its file and what reads it."""
        file = 0 if inputs is self._training else sum(len(entry.names) for entry in self._training)
        count = 0
        formats: set[str] = set()
        for entry in inputs:
            self._entry = entry
            for read in entry.read(self.section):
                if read.error is not None:
                    self._unknown = self._unknown or read.error
                elif keep_detection and self.detection is None and read.detection is not None:
                    note = entry.note or read.note
                    reason = read.detection.reason
                    self.detection = replace(read.detection, reason=f"{reason}; {note}" if note else reason)
                    formats.add(read.detection.format)
                elif keep_detection and self.detection is not None and read.detection is not None:
                    if read.detection.format not in formats:
                        formats.add(read.detection.format)
                        other = f"{_name_of(self.files[file])} as {read.detection.format}"
                        self.detection = replace(self.detection, reason=f"{self.detection.reason}; {other}")
                for located in read.rows:
                    count += 1
                    if self.cancelled is not None and count % 256 == 0 and self.cancelled():
                        raise FinetuiError("The reading of the dataset was cancelled.", code="cancelled")
                    yield entry, file, located, read.reader
                file += 1
            self._before += entry.bytes


def _name_of(file: Path | str) -> str:
    return one_line(file.name if isinstance(file, Path) else file, 60)


def _is_seen(row: Row, seen: set[int]) -> bool:
    key = content_key(row.said)
    if key in seen:
        return True
    seen.add(key)
    return False


def _unusable(title: str, detection: Detection | None, ledger: Ledger) -> FinetuiError:
    reasons = "; ".join(f"{d.reason} ({d.count:,}, first at {d.first[0]:,})" for d in ledger.entries()[:3])
    read_as = f"Read as {detection.format}: " if detection is not None else ""
    return FinetuiError(
        f"No row of {one_line(title, 100)} can be used.",
        f"{read_as}{reasons or 'every row is left out'}.",
        "Each row needs a question and an answer. Correct the rows, or set the format or the columns yourself.",
        code="dataset-format",
    )
