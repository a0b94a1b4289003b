"""A whole dataset in memory, split: what the worker tokenizes. Rows come by the same walk that everything else reads by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .conversation import Conversation
from .dataset_formats import Detection
from .dataset_source import local_path
from .dataset_walk import Dropped, DroppedRow, RowOpener, Walk
from .recipe import DatasetSection


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset in memory, split: what the worker tokenizes."""

    train: tuple[Conversation, ...]
    evaluation: tuple[Conversation, ...]
    dropped: tuple[Dropped, ...]
    """The training sources' rows that could not be used, most frequent reason first."""
    detection: Detection
    evaluation_dropped: tuple[Dropped, ...] = ()
    """The same for held-out rows of their own."""
    left_out: tuple[Dropped, ...] = ()
    """Rows that the row limit or a weight left out."""
    rows_read: int = 0

    @property
    def dropped_rows(self) -> int:
        return sum(d.count for d in self.dropped) + sum(d.count for d in self.evaluation_dropped)


def from_rows(
    rows: Iterable[Mapping[str, Any]],
    section: DatasetSection,
    seed: int,
    evaluation_rows: Iterable[Mapping[str, Any]] | None = None,
    progress: Callable[[int], None] | None = None,
    opener: RowOpener | None = None,
) -> LoadedDataset:
    """`rows` (readable more than once) as conversations, split. The row limit cuts first, then the share is held out.

    `evaluation_rows` are used whole in place of a share; without them held-out rows that the section names are read.
    `progress` is called with the number of rows read, every 256 rows. Raises FinetuiError as `inspect` does.
    """
    walk = Walk(section, seed, opener, given=rows, given_evaluation=evaluation_rows)
    return _loaded(walk, section.source, progress)


def load(
    section: DatasetSection,
    seed: int,
    progress: Callable[[int], None] | None = None,
    opener: RowOpener | None = None,
) -> LoadedDataset:
    """The dataset that `section` names, whole and split, as `from_rows` does it. `opener` gives the rows of hub datasets."""
    walk = Walk(section, seed, opener)
    return _loaded(walk, local_path(section.source).name, progress)


def _loaded(walk: Walk, title: str, progress: Callable[[int], None] | None) -> LoadedDataset:
    def first_pass() -> bool:
        if progress is not None and not walk.rows_read:
            progress(0)  # nothing is yielded yet, but whoever waits may want to end it
        return False

    walk.cancelled = first_pass
    conversations: list[Conversation] = []
    told = 0
    for item in walk:
        if not isinstance(item, DroppedRow):
            conversations.append(item)
        if progress is not None and walk.rows_read - told >= 256:
            told = walk.rows_read
            progress(told)
    detection = walk.require_usable(title)
    walk.require_usable_evaluation()
    sides = walk.sides()
    return LoadedDataset(
        tuple(c for c, side in zip(conversations, sides, strict=True) if not side),
        tuple(c for c, side in zip(conversations, sides, strict=True) if side),
        walk.ledger.entries(),
        detection,
        walk.evaluation_ledger.entries(),
        walk.left_out.entries(),
        walk.rows_read,
    )
