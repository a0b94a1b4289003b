"""What the inspector keeps of every row, in columns: some 40 bytes a row, whatever the row's size."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

DROPPED = 1
CUT = 2
END_PRESENT = 4
END_TRAINED = 8
DOUBLE_BOS = 16
FOLDED = 32
EVALUATION = 64
DUPLICATE = 128
LEAKED = 256
SECRET = 512
PERSONAL = 1024
MARKERS = 2048
TOO_LONG = 4096
"""Dropped for its length."""
ANSWER_LOST = 8192
"""Dropped because the cut leaves nothing of its answer."""
REJECTED = 16384
TOOLS_HIDDEN = 1 << 15
REASONING_HIDDEN = 1 << 16
OTHER_END = 1 << 17
"""It ends with a token that is none of the model's end tokens."""
BY_CHOICE = 1 << 18
"""Dropped by an option of the recipe, not for a fault."""
PLAIN = 1 << 19
HELD_SOURCE = 1 << 20
"""It comes from a held-out file or split of its own."""

_KINDS = {
    "number": "q",
    "full": "i",
    "trained": "i",
    "flags": "i",
    "reason": "i",
    "said": "q",
    "asked": "q",
    "file": "i",
}


class Columns:
    """One entry a row in each column, in the order of reading.

    number: its line or row, from 1. full: tokens before the cut, −1 where it does not render. trained: tokens that the loss
    counts. reason: index into `reasons`, −1 where kept. said, asked: hashes of the row and of its question, 0 for none.
    """

    def __init__(self) -> None:
        self.number, self.full, self.trained, self.flags, self.reason, self.said, self.asked, self.file = (
            array(kind) for kind in _KINDS.values()
        )
        self.reasons: list[str] = []
        self._reason_at: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.number)

    def reason_of(self, text: str) -> int:
        at = self._reason_at.get(text)
        if at is None:
            if len(self.reasons) >= 1000:  # reasons may quote the row: never one for each of a million
                text = "other reasons"
                if text in self._reason_at:
                    return self._reason_at[text]
            at = self._reason_at[text] = len(self.reasons)
            self.reasons.append(text)
        return at

    def add(
        self,
        number: int,
        file: int,
        flags: int,
        reason: int = -1,
        full: int = -1,
        trained: int = 0,
        said: int = 0,
        asked: int = 0,
    ) -> None:
        self.number.append(number)
        self.file.append(file)
        self.flags.append(flags)
        self.reason.append(reason)
        self.full.append(full)
        self.trained.append(trained)
        self.said.append(said)
        self.asked.append(asked)

    def numpy(self, name: str) -> np.ndarray[Any, Any]:
        """A copy of one column."""
        import numpy as np

        column: array[int] = getattr(self, name)
        return np.array(column, dtype=column.typecode)

    def mark(self, rows: Sequence[int] | np.ndarray[Any, Any], flag: int) -> None:
        import numpy as np

        flags = np.frombuffer(self.flags, dtype="i")
        flags[rows] |= flag

    def save(self, path: Path) -> None:
        import numpy as np

        names = [name for name in _KINDS if name not in ("said", "asked")]
        columns: dict[str, Any] = {f"of_{name}": self.numpy(name) for name in names}
        np.savez(path, **columns)

    @classmethod
    def load(cls, path: Path, reasons: Sequence[str]) -> Columns:
        """Raises OSError or ValueError where the file is not what `save` wrote."""
        import numpy as np

        made = cls()
        with np.load(path, allow_pickle=False) as stored:
            for name, kind in _KINDS.items():
                if name in ("said", "asked"):
                    continue
                column = array(kind)
                column.frombytes(stored[f"of_{name}"].astype(kind).tobytes())
                setattr(made, name, column)
        count = len(made.number)
        made.said = array("q", bytes(8 * count))
        made.asked = array("q", bytes(8 * count))
        made.reasons = list(reasons)
        return made
