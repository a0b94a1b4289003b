"""What the readers of dataset files share: the file that is read, and a row with the place where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from .errors import FinetuiError
from .recipe import DEMO
from .text import one_line

FileKind = Literal["JSONL", "JSON", "CSV", "TSV", "Parquet", "Arrow", "text"]


class Located(NamedTuple):
    """A row and where it stands: the line of a text file, or the row of a table, from 1."""

    number: int
    row: Mapping[str, Any]
    problem: str = ""
    """Why this row cannot be read; `row` is then empty."""


@dataclass(frozen=True)
class Source:
    """A local file that was looked at: what it is, and how its text is coded."""

    path: Path
    kind: FileKind
    encoding: str
    bytes: int
    packing: Literal["", "gzip", "zstd"] = ""
    head: str = ""
    """The beginning of its text, up to 64 KiB."""
    note: str = ""
    """What was guessed on the way to its text, in words; "" for nothing."""


@dataclass
class Reading:
    """How far a file has been read, for progress and estimates. Bytes."""

    done_bytes: int = 0
    total_bytes: int = 0
    rows: int | None = None
    """The exact number of rows where it is known before they are read (Parquet, a JSON object)."""
    raw: BinaryIO | None = None
    """The open file, whose position tells how far the reading is."""

    @property
    def share(self) -> float:
        """The part of the file that has been read, 0 to 1."""
        if self.raw is not None and not self.raw.closed:
            self.done_bytes = self.raw.tell()
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 1.0


MAX_ROW_CHARACTERS = 10 * 1024 * 1024
"""A longer row is no example of a conversation; it is dropped, and counted."""


def unreadable(path: Path, error: OSError) -> FinetuiError:
    """The card for a file that the system does not let us read."""
    reason = error.strerror or type(error).__name__
    return FinetuiError(
        f"{one_line(str(path), 200)} cannot be read.",
        f"The system says: {reason}.",
        "Check its permissions."
        if isinstance(error, PermissionError)
        else "Check its name, and the disk that it is on.",
        code="dataset-missing",
    )


def broken(path: Path, why: str, fix: str) -> FinetuiError:
    """The card for a file that cannot be read on from here (dataset-broken)."""
    return FinetuiError(
        f"{one_line(path.name, 100)} cannot be read as a dataset.", why, fix, code="dataset-broken"
    )


def local_path(source: str) -> Path:
    if source == DEMO:
        from . import demo

        return demo.train_path()
    return file_path(source)


def evaluation_path(source: str) -> Path:
    if source == DEMO:
        from . import demo

        return demo.heldout_path()
    return file_path(source)


def file_path(source: str) -> Path:
    """`source` as a path, its `~` expanded."""
    try:
        return Path(source).expanduser()
    except RuntimeError:  # ~somebody who does not exist
        return Path(source)
