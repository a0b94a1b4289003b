"""The sources that a dataset section names, each opened, and its rows read by the format that its first ones speak for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import hub
from .dataset_files import is_named_like_rows, located_rows, sources_of
from .dataset_folder import no_split
from .dataset_formats import Detection, detect
from .dataset_rows import RowReader
from .dataset_source import Located, Reading, Source, evaluation_path, file_path, local_path
from .errors import FinetuiError
from .recipe import DEMO, DatasetSection
from .text import one_line

RowOpener = Callable[[str, str | None, str], Iterable[Mapping[str, Any]]]
"""(source, configuration, split) to the rows of a hub dataset, readable more than once."""

_DETECT_ROWS = 50
_DETECT_BYTES = 8 * 1024 * 1024
_GIVE_UP_ROWS = 100_000
"""Rows without a single readable one, after which the format is taken to be messages (and every row is dropped)."""


@dataclass
class FileRead:
    """One file on its way: its rows, the format that was found, and what reads them."""

    rows: Iterator[Located]
    detection: Detection | None
    reader: RowReader
    note: str = ""
    error: FinetuiError | None = None
    """Why its format is not known, where it is one of several files; its rows then all come with a problem."""


class Input:
    """One of the mixed sources: the files of a local one, or the rows of a hub dataset."""

    def __init__(
        self,
        index: int,
        split: str,
        weight: float = 1.0,
        *,
        sources: list[Source] | None = None,
        note: str = "",
        name: str = "",
        rows: Callable[[], Iterable[Mapping[str, Any]]] | None = None,
    ) -> None:
        self.index = index
        self.weight = weight
        self.note = note
        """What was taken of a folder, in words; "" for a single file."""
        self._split = split
        self._sources = sources or []
        self._rows = rows
        self._reading = Reading()
        self._before = 0
        self.names: tuple[Path | str, ...] = tuple(s.path for s in self._sources) if rows is None else (name,)
        self.bytes = sum(source.bytes for source in self._sources)

    @property
    def sources(self) -> tuple[Source, ...] | None:
        """Its files; None for a hub dataset."""
        return tuple(self._sources) if self._rows is None else None

    @property
    def done_bytes(self) -> int:
        return self._before + int(self._reading.share * self._reading.total_bytes)

    @property
    def stated_rows(self) -> int | None:
        """The exact number of rows, where the reading of a single file has told it."""
        return self._reading.rows if len(self._sources) == 1 else None

    def read(self, section: DatasetSection) -> Iterator[FileRead]:
        """The files, one after the other. Raises UnknownFormat where the format of a single one is not known."""
        if self._rows is not None:
            located = (Located(number, row) for number, row in enumerate(self._rows(), 1))
            yield self._detected(located, section, Reading())
            return
        self._before = 0
        for source in self._sources:
            self._reading = Reading()
            rows = located_rows(source, self._split, self._reading)
            file = self._detected(rows, section, self._reading)
            file.note = source.note
            yield file
            self._before += source.bytes
            self._reading = Reading()

    def _detected(self, rows: Iterator[Located], section: DatasetSection, reading: Reading) -> FileRead:
        held: list[Located] = []
        readable = 0
        for located in rows:
            held.append(located)
            readable += not located.problem
            enough = len(held) >= _DETECT_ROWS or reading.share * reading.total_bytes > _DETECT_BYTES
            if (enough and readable) or len(held) >= _GIVE_UP_ROWS:
                break
        everything = itertools.chain(held, rows)
        try:
            if held and not readable:
                found = Detection(
                    "messages" if section.format == "auto" else section.format, "no row can be read"
                )
            else:
                found = detect([located.row for located in held if not located.problem], section)
        except FinetuiError as error:
            if len(self._sources) < 2:
                raise
            columns = error.why.split(". ")[0].removeprefix("Its columns are: ") if held else ""
            reason = one_line(f"in a file whose format is not known ({columns})", 100)
            dropped = (Located(row.number, row.row, row.problem or reason) for row in everything)
            return FileRead(dropped, None, RowReader(Detection("messages", ""), section), "", error)
        return FileRead(everything, found, RowReader(found, section))


def given_input(section: DatasetSection, rows: Iterable[Mapping[str, Any]]) -> Input:
    """Rows that are at hand already. They must be readable more than once."""
    return Input(0, section.split, name=section.source, rows=lambda: rows)


def training_inputs(
    section: DatasetSection, opener: RowOpener | None, first: Input | None = None
) -> list[Input]:
    """The section's own source (or `first`) and those mixed with it. Raises FinetuiError as `dataset.inspect` does."""
    inputs = [first or _opened(section.source, 0, 1.0, section.config, section.split, opener)]
    for source, weight in (section.mix or {}).items():
        try:
            inputs.append(_opened(source, len(inputs), weight, None, section.split, opener))
        except FinetuiError as error:
            raise FinetuiError(f"Mixed with: {error.what}", error.why, error.fix, code=error.code) from error
    return inputs


def evaluation_inputs(section: DatasetSection, opener: RowOpener | None) -> list[Input]:
    """Held-out rows of their own, where the section names some. Raises FinetuiError as `dataset.inspect` does."""
    if section.evaluation_source and section.evaluation_split:
        raise FinetuiError(
            "Both a held-out file and a held-out split are named.",
            "Rows can be held out in one way only.",
            "Leave one of the two empty.",
            code="dataset-split",
        )
    if section.evaluation_source:
        source = section.evaluation_source
        try:
            if source_kind(source) == "hub":
                return [_opened(source, 0, 1.0, None, section.split, opener)]
            sources, note = sources_of(evaluation_path(source), section.split)
        except FinetuiError as error:
            raise FinetuiError(
                f"The held-out file: {error.what}", error.why, error.fix, code=error.code
            ) from error
        return [Input(0, section.split, sources=sources, note=note)]
    if section.evaluation_split:
        return [_held_out_split(section, section.evaluation_split, opener)]
    return []


def _held_out_split(section: DatasetSection, split: str, opener: RowOpener | None) -> Input:
    if split == section.split:
        raise FinetuiError(
            f"The held-out split is the split that is trained on: {one_line(split, 40)}.",
            "Testing on rows that were trained on tells nothing.",
            "Name another split, or hold out a share.",
            code="dataset-split",
        )
    entry = _opened(section.source, 0, 1.0, section.config, split, opener)
    path = local_path(section.source)
    if source_kind(section.source) != "hub" and not path.is_dir():
        source = sources_of(path)[0][0]
        if source.kind != "JSON" or not source.head.lstrip().startswith("{"):
            raise no_split(path, split, [])
    return entry


def _opened(
    source: str, index: int, weight: float, config: str | None, split: str, opener: RowOpener | None
) -> Input:
    if source_kind(source) != "hub":
        sources, note = sources_of(local_path(source), split)
        return Input(index, split, weight, sources=sources, note=note)
    if opener is None:
        raise FinetuiError(
            f"{one_line(source, 100)} is a hub dataset, and this process reads local files only.",
            "Its rows are fetched by the worker.",
            "Name a local file here.",
            code="dataset-missing",
        )
    fetch = opener
    return Input(index, split, weight, name=source, rows=lambda: fetch(source, config, split))


def source_kind(source: str) -> Literal["demo", "file", "hub"]:
    """What `source` names: "demo", "file" or "hub". An existing path, or what looks like one, is a file.

    Raises FinetuiError (dataset-missing).
    """
    if source == DEMO:
        return "demo"
    try:
        exists = file_path(source).exists()
    except (OSError, ValueError, RuntimeError):
        exists = False
    if exists or source.startswith(("/", ".", "~")) or is_named_like_rows(source):
        return "file"
    if hub.is_id(source):
        return "hub"
    raise FinetuiError(
        f"{one_line(source, 100)} is neither a file nor a hub dataset.",
        "There is no such file, and a hub dataset is written owner/name.",
        "Check the spelling, or give the whole path.",
        code="dataset-missing",
    )
