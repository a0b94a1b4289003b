"""The dataset step: what a dataset is, looked at before any of it is trained on. No torch, no datasets.

`dataset_walk.Walk` is the one path that rows come by; `dataset_files` and its neighbours read the files,
`dataset_formats` and `dataset_rows` understand the rows, `dataset_load` holds them for the worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from .conversation import Conversation, Role, Turn
from .dataset_files import read_rows, sources_of
from .dataset_formats import SURE, Detection, Format, UnknownFormat, detect
from .dataset_inputs import source_kind
from .dataset_load import LoadedDataset, from_rows, load
from .dataset_peek import ask, no_answer
from .dataset_rows import conversation
from .dataset_source import FileKind, evaluation_path, local_path
from .dataset_split import held_out_rows
from .dataset_walk import Dropped, DroppedRow, RowOpener, Walk
from .errors import FinetuiError
from .recipe import DEMO, DatasetSection
from .text import counted, one_line

__all__ = [
    "SURE",
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
    "UnknownFormat",
    "Walk",
    "conversation",
    "detect",
    "examine",
    "format_of",
    "from_rows",
    "held_out_rows",
    "inspect",
    "load",
    "look",
    "read_rows",
    "source_kind",
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
    """JSONL, JSON, CSV, TSV, Parquet, Arrow, text, or hub; of a folder of several kinds all, such as JSONL + CSV."""
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

    rows_read: int = 0
    """Rows that were looked at: those that can be used and those dropped."""

    @property
    def dropped_rows(self) -> int:
        return sum(d.count for d in self.dropped)

    @property
    def left_out(self) -> str:
        """How many rows are left out, and why most of them; empty where none is."""
        if not self.dropped:
            return ""
        worst, rows = self.dropped[0], self.dropped_rows
        part = "" if self.rows_exact else f" of the first {self.rows_read:,}"
        most = f"; {worst.count:,} of them" if len(self.dropped) > 1 else ""
        noun = "row" if worst.count == 1 else "rows"
        where = ", ".join(f"{line:,}" for line in worst.first[:3]) + (" and more" if worst.count > 3 else "")
        return f"{counted(rows, 'row')}{part} {'is' if rows == 1 else 'are'} left out{most}: {worst.reason} ({noun} {where})"


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
    kinds = [source_kind(source) for source in (section.source, *(section.mix or {}))]
    if "hub" in kinds or any(_is_heavy(path, section.split) for path in _paths(section)):
        return _peek(section, cancelled, timeout_seconds)
    return examine(section)


def format_of(section: DatasetSection) -> str:
    """The format of the rows: as `section` states it, else as the first rows speak for it. Raises as `inspect` does."""
    if section.format != "auto":
        return section.format
    return inspect(section).detection.format


def _paths(section: DatasetSection) -> list[Path]:
    paths = [local_path(source) for source in (section.source, *(section.mix or {}))]
    return [*paths, evaluation_path(section.evaluation_source)] if section.evaluation_source else paths


def _is_heavy(path: Path, split: str) -> bool:
    """Whether looking at the file would cost the wizard's process much memory or time."""
    try:
        sources = sources_of(path, split)[0]
    except FinetuiError:
        return False  # `examine` raises it where it belongs
    heavy = ("Parquet", "Arrow")
    return len(sources) > 200 or any(
        source.kind in heavy
        or (source.kind == "JSON" and (source.packing or source.bytes > _IN_PROCESS_BYTES))
        for source in sources
    )


def examine(
    section: DatasetSection, opener: RowOpener | None = None, stated_rows: int | None = None
) -> DatasetFacts:
    """As `inspect`, in this process. `opener` gives the rows of hub datasets; `stated_rows` is their number where the
    hub tells it."""
    facts = look(section, opener, stated_rows)
    if section.evaluation_source or section.evaluation_split:
        evaluation = _evaluation_section(section)
        try:
            held = look(evaluation, opener)
        except FinetuiError as error:
            what = (
                error.what
                if error.what.startswith("The held-out file")
                else f"The held-out file: {error.what}"
            )
            raise FinetuiError(what, error.why, error.fix, code=error.code) from error
        return replace(facts, evaluation_rows=held.rows)
    return facts


def _evaluation_section(section: DatasetSection) -> DatasetSection:
    """The held-out rows of their own, as a dataset to look at."""
    Walk(section, 0, lambda *_: ())  # what is wrong with how they are named is said here
    changes: dict[str, object] = {
        "evaluation_source": None,
        "evaluation_split": None,
        "evaluation_share": 0.0,
    }
    changes |= {"mix": None, "row_limit": None}
    if section.evaluation_source == DEMO:
        changes["source"] = str(evaluation_path(DEMO))
    elif section.evaluation_source:
        changes["source"] = section.evaluation_source
    else:
        changes["split"] = section.evaluation_split
    return section.model_copy(update=changes)


def look(
    section: DatasetSection, opener: RowOpener | None = None, stated_rows: int | None = None
) -> DatasetFacts:
    """The first rows of the training sources, for at most `LOOK_SECONDS`, and what follows from them. Held-out rows of
    their own are not looked at. Raises as `inspect` does."""
    kind = source_kind(section.source)
    plain = {"row_limit": None, "evaluation_share": 0.0, "evaluation_source": None, "evaluation_split": None}
    waited = 0.0  # for the hub, which is not the reading's fault

    def fetched(source: str, config: str | None, split: str) -> Iterable[Mapping[str, Any]]:
        nonlocal waited
        asked = time.monotonic()
        try:
            assert opener is not None
            return opener(source, config, split)
        finally:
            waited += time.monotonic() - asked

    walk = Walk(section.model_copy(update=plain), 0, fetched if opener is not None else None)
    began = time.monotonic()
    first: list[Conversation] = []
    characters = longest = conversations = 0
    finished, share = True, 1.0
    for item in walk:
        if not isinstance(item, DroppedRow):
            conversations += 1
            if len(first) < _FIRST_ROWS:
                first.append(shown(item))
            length = sum(len(turn.text) + len(turn.reasoning) + len(turn.calls) for turn in item)
            characters += length
            longest = max(longest, length)
        if walk.rows_read % 16 == 0 and time.monotonic() - began - waited > LOOK_SECONDS:
            finished, share = False, walk.share  # as it stands: the file is closed after the loop
            break
    path = local_path(section.source)
    title = {"demo": "demo: customer messages", "file": one_line(path.name, 80)}.get(kind) or _hub_title(
        section
    )
    detection = walk.require_usable(title if kind == "demo" else one_line(section.source.split("/")[-1], 80))
    facts = DatasetFacts(
        source=section.source,
        kind=kind,
        title=title,
        file_kind=_file_kind(section) if kind != "hub" else "hub",
        detection=detection,
        rows=walk.rows_kept,
        evaluation_rows=None,
        first=tuple(first),
        bytes=walk.total_bytes or None,
        mean_characters=characters / conversations,
        longest_characters=longest,
        rows_exact=finished,
        dropped=walk.ledger.entries(),
        rows_read=walk.rows_read,
    )
    if finished and time.monotonic() - began - waited < LOOK_SECONDS / 2:
        return _counted(facts, section, opener)
    rows = walk.rows_kept
    if not finished:
        total = walk.stated_rows or stated_rows or (walk.rows_read / share if share else None)
        if total is None:
            return replace(facts, rows=None)
        rows = max(walk.rows_kept, round(total * walk.rows_kept / walk.rows_read))
    return estimated(facts, section, rows, conversations / walk.rows_kept)


def _hub_title(section: DatasetSection) -> str:
    return one_line(section.source.split("/")[-1], 80)


def _file_kind(section: DatasetSection) -> str:
    sources, _ = sources_of(local_path(section.source), section.split)
    kinds = dict.fromkeys(source.kind for source in sources)
    return kinds.popitem()[0] if len(kinds) == 1 else " + ".join(kinds)


def _counted(facts: DatasetFacts, section: DatasetSection, opener: RowOpener | None) -> DatasetFacts:
    """`facts` with the rows of both sides, counted: the whole is small enough to be read once more."""
    walk = Walk(
        section.model_copy(
            update={
                "evaluation_source": None,
                "evaluation_split": None,
                "evaluation_share": 0.0
                if section.evaluation_source or section.evaluation_split
                else section.evaluation_share,
            }
        ),
        0,
        opener,
    )
    for _ in walk:
        pass
    sides = walk.sides()
    held = sum(sides)
    return replace(facts, train_rows=len(sides) - held, evaluation_rows=held)


def estimated(
    facts: DatasetFacts, section: DatasetSection, rows: int, conversations_per_row: float = 1.0
) -> DatasetFacts:
    """`facts` of `rows` usable rows, with those of both sides as they are where hardly any two rows ask the same."""
    own = section.evaluation_source or section.evaluation_split
    limited = rows if section.row_limit is None else min(rows, section.row_limit)
    held = held_out_rows(limited, section)
    return replace(
        facts,
        rows=rows,
        train_rows=max(1, round((limited - held) * conversations_per_row)),
        evaluation_rows=facts.evaluation_rows if own else round(held * conversations_per_row),
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
    request = section.model_dump_json().encode()
    facts = ask(request, section.source, cancelled, timeout_seconds)["facts"]
    try:
        return TypeAdapter(DatasetFacts).validate_python(facts)
    except ValidationError as error:
        raise no_answer(section.source, one_line(str(error), 200)) from error
