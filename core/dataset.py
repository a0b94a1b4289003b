"""The dataset step: rows read, their format detected, and each row as a conversation. No torch, no datasets.

Files are read by `dataset_files`, rows understood by `dataset_formats`; this module counts, splits and looks.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from .dataset_files import ENDINGS, FileKind, Located, Reading, Source, located_rows, look_at, read_rows
from .dataset_formats import Detection, Format, Turn, conversation, detect
from .errors import FinetuiError
from .recipe import DEMO, DatasetSection
from .text import one_line

__all__ = [
    "Conversation",
    "DatasetFacts",
    "Detection",
    "Dropped",
    "FileKind",
    "Format",
    "LoadedDataset",
    "Turn",
    "conversation",
    "detect",
    "examine",
    "from_rows",
    "held_out_rows",
    "inspect",
    "load",
    "read_rows",
    "source_kind",
    "split",
]

Conversation = tuple[Turn, ...]

LOOK_SECONDS = 0.7
"""How long `inspect` reads a large file before it estimates the number of rows."""

PEEK_SECONDS = 120.0
"""How long a look at a hub dataset may take, the import of `datasets` and its first download included."""

_FIRST_ROWS = 20
_DETECT_ROWS = 50
_DETECT_BYTES = 8 * 1024 * 1024
_SHOWN_CHARACTERS = 20_000
_IN_PROCESS_BYTES = 8 * 1024 * 1024
_HUB_ID = re.compile(r"^[\w][\w.-]*(/[\w][\w.-]*)?$", re.ASCII)


@dataclass(frozen=True)
class Dropped:
    """Rows that were left out for one reason. `first` holds the first few line (or row) numbers, from 1."""

    reason: str
    count: int
    first: tuple[int, ...]


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before training. `first` holds its first rows as they will be trained on."""

    source: str
    kind: Literal["demo", "file", "hub"]
    title: str
    """Short name for the rail, such as `tickets.jsonl`."""
    file_kind: str
    """JSONL, JSON, CSV, TSV, Parquet, or hub."""
    detection: Detection
    rows: int | None
    """Rows that can be used, before the row limit and before any are held out; None where not known."""
    evaluation_rows: int | None
    """Rows held out under the section that was asked about; None where not known yet."""
    first: tuple[Conversation, ...]
    """The first 20 usable rows; each turn's text is cut at 20,000 characters."""
    bytes: int | None = None
    mean_characters: float | None = None
    """Characters of a row's turns, over the rows looked at; for estimates of length."""
    longest_characters: int | None = None
    """The longest of the rows looked at."""
    train_rows: int | None = None
    """Rows that will be trained on under the section that was asked about; None where not known yet."""
    rows_exact: bool = True
    """False where the file is large and the counts are estimates from its beginning."""
    dropped: tuple[Dropped, ...] = ()
    """Rows among those looked at that cannot be used, most frequent reason first."""

    @property
    def dropped_rows(self) -> int:
        return sum(d.count for d in self.dropped)


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


def source_kind(source: str) -> Literal["demo", "file", "hub"]:
    """What `source` names. An existing path, or what looks like one, is a file. Raises FinetuiError (dataset-missing)."""
    if source == DEMO:
        return "demo"
    try:
        exists = _path(source).exists()
    except (OSError, ValueError, RuntimeError):
        exists = False
    looks_like_file = source.startswith(("/", ".", "~")) or source.lower().endswith(ENDINGS)
    if exists or looks_like_file:
        return "file"
    if _HUB_ID.match(source):
        return "hub"
    raise FinetuiError(
        f"{one_line(source, 100)} is neither a file nor a hub dataset.",
        "There is no such file, and a hub dataset is written owner/name.",
        "Check the spelling, or give the whole path.",
        code="dataset-missing",
    )


def _path(source: str) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError:  # ~somebody who does not exist
        return Path(source)


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


class _Reader:
    """Conversations from located rows: the format is settled on the first rows, the rest follows it."""

    def __init__(
        self, rows: Iterator[Located], section: DatasetSection, reading: Reading | None = None
    ) -> None:
        self._rows = rows
        self._section = section
        self._reading = reading
        self.ledger = _Ledger()
        self.seen = 0
        self.usable = 0
        self.detection: Detection | None = None

    def __iter__(self) -> Iterator[Conversation]:
        held: list[Located] = []
        for located in self._rows:
            held.append(located)
            if len(held) >= _DETECT_ROWS or self._read_bytes() > _DETECT_BYTES:
                break
        readable = [located.row for located in held if not located.problem]
        if not held:
            detect([])
        found = detect(readable) if self._section.format == "auto" and readable else None
        self.detection = found or Detection(
            "messages" if self._section.format == "auto" else self._section.format, "as the recipe says"
        )
        for located in itertools.chain(held, self._rows):
            self.seen += 1
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
    path = _local_path(section.source)
    return _loaded(located_rows(look_at(path), section.split), section, seed, path.name, None, progress)


def _loaded(
    located: Iterator[Located],
    section: DatasetSection,
    seed: int,
    title: str,
    evaluation: Iterator[Located] | None,
    progress: Callable[[int], None] | None,
) -> LoadedDataset:
    reader = _Reader(located, section)
    conversations = _collect(reader, section.row_limit, progress)
    detection = reader.require_usable(title)
    if evaluation is None and section.evaluation_source:
        path = _evaluation_path(section.evaluation_source)
        evaluation = located_rows(look_at(path), section.split)
    if evaluation is not None:
        held_reader = _Reader(evaluation, section)
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
    reader: _Reader, limit: int | None, progress: Callable[[int], None] | None
) -> list[Conversation]:
    conversations: list[Conversation] = []
    for turns in reader:
        conversations.append(turns)
        if progress is not None and len(conversations) % 256 == 0:
            progress(reader.seen)
        if limit is not None and len(conversations) >= limit:
            break
    return conversations


def _local_path(source: str) -> Path:
    if source == DEMO:
        from . import demo

        return demo.train_path()
    return _path(source)


def _evaluation_path(source: str) -> Path:
    if source == DEMO:
        from . import demo

        return demo.heldout_path()
    return _path(source)


def inspect(
    section: DatasetSection,
    cancelled: Callable[[], bool] | None = None,
    timeout_seconds: float = PEEK_SECONDS,
) -> DatasetFacts:
    """Looks at the dataset that `section` names. Blocking: call it from a thread.

    Takes about a second for a local file of any size. A Parquet file, a large JSON object and a hub dataset are looked
    at in a process of their own (`core.worker.peek`), which is ended when `cancelled` says so or the time is up.

    Raises FinetuiError with codes dataset-missing, dataset-empty, dataset-format, dataset-broken, dataset-split,
    dataset-slow, cancelled, hub-offline, hub-not-found, hub-gated, hub-failed.
    """
    kind = source_kind(section.source)
    if kind == "hub" or _is_heavy(_local_path(section.source)):
        return _peek(section, cancelled, timeout_seconds)
    if section.evaluation_source and _is_heavy(_evaluation_path(section.evaluation_source)):
        return _peek(section, cancelled, timeout_seconds)
    return examine(section)


def _is_heavy(path: Path) -> bool:
    """Whether looking at the file would cost the wizard's process much memory."""
    try:
        source = look_at(path)
    except FinetuiError:
        return False  # `examine` raises it where it belongs
    return source.kind == "Parquet" or (source.kind == "JSON" and source.bytes > _IN_PROCESS_BYTES)


def examine(section: DatasetSection) -> DatasetFacts:
    """As `inspect`, for a local source, in this process."""
    kind = source_kind(section.source)
    path = _local_path(section.source)
    source = look_at(path)
    title = "demo: customer messages" if kind == "demo" else one_line(path.name, 80)
    facts = _examined(_rows_in_time(source, section), section, source)
    facts = replace(facts, source=section.source, kind="demo" if kind == "demo" else "file", title=title)
    return with_held_out(facts, section)


def with_held_out(facts: DatasetFacts, section: DatasetSection) -> DatasetFacts:
    """`facts` with the counts of training and held-out rows under `section`; reads a held-out file that it names."""
    rows = facts.rows
    if rows is not None and section.row_limit is not None:
        rows = min(rows, section.row_limit)
    if section.evaluation_source:
        path = _evaluation_path(section.evaluation_source)
        try:
            held = _examined(_rows_in_time(look_at(path), section), section, look_at(path))
        except FinetuiError as error:
            raise FinetuiError(
                f"The held-out file: {error.what}", error.why, error.fix, code=error.code
            ) from error
        return replace(facts, evaluation_rows=held.rows, train_rows=rows)
    if rows is None:
        return facts
    held_out = held_out_rows(rows, section)
    return replace(facts, evaluation_rows=held_out, train_rows=rows - held_out)


@dataclass
class _Look:
    """A reader over a file, the file's reading, and when to stop."""

    reader: _Reader
    reading: Reading
    until: float


def _rows_in_time(source: Source, section: DatasetSection) -> _Look:
    reading = Reading()
    reader = _Reader(located_rows(source, section.split, reading), section, reading)
    return _Look(reader, reading, time.monotonic() + LOOK_SECONDS)


def _examined(look: _Look, section: DatasetSection, source: Source) -> DatasetFacts:
    reader = look.reader
    first: list[Conversation] = []
    characters = longest = 0
    finished = True
    for turns in reader:
        if len(first) < _FIRST_ROWS:
            first.append(shown(turns))
        length = sum(len(turn.text) for turn in turns)
        characters += length
        longest = max(longest, length)
        if reader.seen % 16 == 0 and time.monotonic() > look.until:
            finished = False
            break
    detection = reader.require_usable(source.path.name)
    rows = reader.usable
    if not finished:
        total = look.reading.rows or reader.seen / max(look.reading.share, 1e-9)
        rows = max(rows, round(total * reader.usable / reader.seen))
    return DatasetFacts(
        source=section.source,
        kind="file",
        title=one_line(source.path.name, 80),
        file_kind=source.kind,
        detection=detection,
        rows=rows,
        evaluation_rows=None,
        first=tuple(first),
        bytes=source.bytes,
        mean_characters=characters / reader.usable,
        longest_characters=longest,
        rows_exact=finished,
        dropped=reader.ledger.entries(),
    )


def shown(turns: Conversation) -> Conversation:
    """`turns` with each text cut at 20,000 characters, so that a look costs little memory."""
    if all(len(turn.text) <= _SHOWN_CHARACTERS for turn in turns):
        return turns
    return tuple(
        replace(t, text=t.text[: _SHOWN_CHARACTERS - 1] + "…") if len(t.text) > _SHOWN_CHARACTERS else t
        for t in turns
    )


def _peek(
    section: DatasetSection, cancelled: Callable[[], bool] | None, timeout_seconds: float
) -> DatasetFacts:
    from .runs.launch import worker_environment

    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "finetui.core.worker.peek"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=worker_environment(),
        start_new_session=True,
    )
    until = time.monotonic() + timeout_seconds
    request: bytes | None = section.model_dump_json().encode()
    try:
        while True:
            try:
                answer, errors = process.communicate(request, timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                request = None
                if cancelled is not None and cancelled():
                    raise FinetuiError("The look at the dataset was cancelled.", code="cancelled") from None
                if time.monotonic() > until:
                    raise FinetuiError(
                        f"The look at {one_line(section.source, 100)} took too long.",
                        f"Nothing came within {timeout_seconds:.0f} seconds.",
                        "Try again, or download the dataset and name the file.",
                        code="dataset-slow",
                    ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return _answered(section, answer, errors, process.returncode)


def _answered(section: DatasetSection, answer: bytes, errors: bytes, code: int) -> DatasetFacts:
    try:
        reply = json.loads(answer)
        if "error" in reply:
            card = reply["error"]
            raise FinetuiError(card["what"], card["why"], card["fix"], code=card["code"])
        return TypeAdapter(DatasetFacts).validate_python(reply["facts"])
    except (ValueError, KeyError, TypeError) as error:
        last = errors.decode("utf-8", "replace").strip().splitlines()[-1:]
        why = one_line(last[0], 200) if last else "It gave no answer."
        if code == -signal.SIGKILL:
            why = "The system ended the process that read it, most likely for want of memory."
        raise FinetuiError(
            f"{one_line(section.source, 100)} could not be read.",
            why,
            "See `finetui doctor`.",
            code="dataset-broken",
        ) from error
