"""Every row of a dataset, one after the other: the one path that the worker, the wizard and the inspector read by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .conversation import Conversation
from .dataset_files import located_rows, look_at
from .dataset_formats import Detection, conversation, detect
from .dataset_source import Located, Reading, local_path
from .recipe import DatasetSection
from .text import one_line

RowOpener = Callable[[str, str | None, str], Iterable[Mapping[str, Any]]]
"""(source, configuration, split) to the rows of a hub dataset, readable more than once."""


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
    """True where an option leaves it out (the row limit, a weight, a copy) and nothing is wrong with the row."""


class Walk:
    """Every row of a dataset section in file order, in bounded memory. Iterate once.

    Yields a `Conversation` for what is trained or evaluated on, and a `DroppedRow` for each row that is left out;
    `rows_read == rows_kept + rows_dropped` after the last. One row may give several conversations (split talks, a
    weight above 1), and several rows one (joined rows). With the same section and seed (the recipe's training.seed)
    the rows and their sides are the same in every process. Raises FinetuiError as `dataset.inspect` does.
    """

    def __init__(
        self,
        section: DatasetSection,
        seed: int,
        opener: RowOpener | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """`opener` gives the rows of hub datasets (in the worker: `hub_rows.rows_of`); without it they are refused.
        `cancelled` is asked every 256 rows and ends the walk with FinetuiError (cancelled)."""
        self.section = section
        self.seed = seed
        self.files: tuple[Path | str, ...] = (local_path(section.source),)
        """What is read, in order: paths, or hub ids. `Conversation.file` and `DroppedRow.file` index it."""
        self.detection: Detection | None = None
        """Known from the first item on."""
        self.raw: Mapping[str, Any] = {}
        """The row as it stands in the file, of the item just yielded; empty where it could not be read."""
        self.in_evaluation = False
        """Whether the item just yielded comes from a held-out file or split of its own."""
        self.rows_read = 0
        self.rows_kept = 0
        self.rows_dropped = 0
        self._reading = Reading()
        self._sides = bytearray()

    @property
    def done_bytes(self) -> int:
        return int(self._reading.share * self._reading.total_bytes)

    @property
    def total_bytes(self) -> int:
        """The bytes of all files; 0 for a hub dataset whose size is not known."""
        return self._reading.total_bytes

    @property
    def share(self) -> float:
        """The part that has been read, 0 to 1."""
        return self._reading.share

    def sides(self) -> bytearray:
        """After the last item: one byte for each conversation yielded, in order; 1 where it is held out."""
        return self._sides

    def __iter__(self) -> Iterator[Conversation | DroppedRow]:
        source = look_at(local_path(self.section.source))
        held: list[Located] = []
        rows = located_rows(source, self.section.split, self._reading)
        for located in rows:
            held.append(located)
            if len(held) == 50:
                break
        self.detection = detect([located.row for located in held if not located.problem])
        for located in (*held, *rows):
            self.rows_read += 1
            self.raw = located.row
            try:
                if located.problem:
                    raise ValueError(located.problem)
                item = conversation(located.row, self.detection.format, self.section)
            except ValueError as error:
                self.rows_dropped += 1
                yield DroppedRow(located.number, one_line(str(error), 100))
                continue
            self.rows_kept += 1
            self._sides.append(0)
            yield item
