"""The dataset step: rows read, their format detected, and each row as a conversation. No torch, no datasets.

Files are read by `dataset_files`, rows understood by `dataset_formats`, counted and split by `dataset_load`; this module
looks at a dataset before any of it is trained on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from . import hub
from .conversation import Conversation, Role, Turn
from .dataset_files import ENDINGS, located_rows, look_at, read_rows
from .dataset_formats import Detection, Format, conversation, detect
from .dataset_load import (
    ConversationReader,
    Dropped,
    LoadedDataset,
    from_rows,
    held_out_rows,
    load,
    split,
)
from .dataset_source import FileKind, Reading, Source, evaluation_path, file_path, local_path
from .dataset_walk import DroppedRow, RowOpener, Walk
from .errors import FinetuiError
from .recipe import DEMO, DatasetSection
from .text import one_line

__all__ = [
    "Conversation",
    "DatasetFacts",
    "Detection",
    "Dropped",
    "DroppedRow",
    "FileKind",
    "Format",
    "LoadedDataset",
    "Role",
    "RowOpener",
    "Turn",
    "Walk",
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

LOOK_SECONDS = 0.7
"""How long `inspect` reads a large file before it estimates the number of rows."""

PEEK_SECONDS = 120.0
"""How long a look at a hub dataset may take, the import of `datasets` and its first download included."""

_FIRST_ROWS = 20
_SHOWN_CHARACTERS = 20_000
_IN_PROCESS_BYTES = 8 * 1024 * 1024


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


def source_kind(source: str) -> Literal["demo", "file", "hub"]:
    """What `source` names. An existing path, or what looks like one, is a file. Raises FinetuiError (dataset-missing)."""
    if source == DEMO:
        return "demo"
    try:
        exists = file_path(source).exists()
    except (OSError, ValueError, RuntimeError):
        exists = False
    looks_like_file = source.startswith(("/", ".", "~")) or source.lower().endswith(ENDINGS)
    if exists or looks_like_file:
        return "file"
    if hub.is_id(source):
        return "hub"
    raise FinetuiError(
        f"{one_line(source, 100)} is neither a file nor a hub dataset.",
        "There is no such file, and a hub dataset is written owner/name.",
        "Check the spelling, or give the whole path.",
        code="dataset-missing",
    )


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
    if kind == "hub" or _is_heavy(local_path(section.source)):
        return _peek(section, cancelled, timeout_seconds)
    if section.evaluation_source and _is_heavy(evaluation_path(section.evaluation_source)):
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
    path = local_path(section.source)
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
        path = evaluation_path(section.evaluation_source)
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

    reader: ConversationReader
    reading: Reading
    until: float


def _rows_in_time(source: Source, section: DatasetSection) -> _Look:
    reading = Reading()
    until = time.monotonic() + LOOK_SECONDS
    rows = located_rows(source, section.split, reading)
    reader = ConversationReader(rows, section, reading, lambda: time.monotonic() > until)
    return _Look(reader, reading, until)


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
    return replace(
        turns,
        turns=tuple(
            replace(t, text=t.text[: _SHOWN_CHARACTERS - 1] + "…") if len(t.text) > _SHOWN_CHARACTERS else t
            for t in turns
        ),
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
