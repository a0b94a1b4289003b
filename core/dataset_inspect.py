"""The inspector: a process of its own that reads a dataset as the trainer will, counts everything, and shows any row.

The process (`core.worker.inspect`) holds the tokenizer and the rows; this class speaks to it in JSON lines and may kill it
at any time, so that neither a hostile file nor a hostile template reaches the wizard. No torch in either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .dataset_ledger import Ledger, SeenRow
from .errors import FinetuiError
from .recipe import Recipe

Kind = Literal["longest", "shortest", "cut", "dropped", "unlearned", "flagged"]

REQUEST_SECONDS = 20.0
"""How long a request waits for its answer."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the inspection is. `ready`: rows can be asked for (the first ones have been read)."""

    rows_read: int = 0
    share: float = 0.0
    """Of the source, 0 to 1."""
    ledger: Ledger | None = None
    """Partial about every half second, complete at the end."""
    error: FinetuiError | None = None
    """The inspection has ended with this; nothing more comes."""
    ready: bool = False
    stage: str = ""
    """In words, while it is not ready: `loading the tokenizer`."""


@dataclass(frozen=True, slots=True)
class CleanCopy:
    """What `write_clean` wrote."""

    path: Path
    written: int
    left_out: int


class Inspector:
    """One inspection of one recipe's dataset with its model's tokenizer.

    `poll` never blocks. All other calls block up to a time limit and raise FinetuiError (inspect-slow, inspect-ended, or
    the inspection's own error): call them from a thread. Closing is safe at any time and from any thread.
    """

    @classmethod
    def start(cls, recipe: Recipe, row_limit: int | None = None) -> Inspector:
        """Starts the process and returns at once. `row_limit` ends the reading after so many rows (`finetui inspect --rows`)."""
        raise NotImplementedError

    def poll(self) -> Progress:
        """The newest state, at once."""
        raise NotImplementedError

    def row(self, index: int) -> SeenRow:
        """The row at `index` among the rows read so far. Raises FinetuiError (row-missing) where there is none."""
        raise NotImplementedError

    def find(self, text: str, after_index: int = -1) -> int | None:
        """The index of the next row past `after_index` that holds `text` (upper and lower case alike), from the start again
        where none follows; None where no row does."""
        raise NotImplementedError

    def jump(self, kind: Kind, nth: int = 0) -> int | None:
        """The index of the `nth` (from 0) longest, shortest, cut, dropped or unlearned row; None past the last."""
        raise NotImplementedError

    def write_clean(self, path: Path, drop: Sequence[str] = ()) -> CleanCopy:
        """Writes the kept rows as JSONL to `path`, without those of the finding codes in `drop`. Needs a complete ledger.

        Raises FinetuiError (file-exists, file, not-complete).
        """
        raise NotImplementedError

    def pause(self, on: bool = True) -> None:
        """Holds the reading (rows can still be asked for), or goes on."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Ends the reading; what was read stays and can be looked at."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the process."""
        raise NotImplementedError
