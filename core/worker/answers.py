"""What the inspector answers about the rows that it has read: one row, where to find one, and a clean copy of them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dataset_ledger import SeenRow, Span
from ..errors import FinetuiError
from ..text import one_line
from . import columns as c
from . import spool as store
from .chat import Chat, Unrenderable

if TYPE_CHECKING:
    import numpy as np

RAW_CHARACTERS = 200_000
SHOWN_CHARACTERS = 100_000
"""A row is shown so far; its counts are of the whole."""

FLAGS: dict[str, int] = {
    "cut": c.CUT,
    "dropped": c.DROPPED,
    "rows-dropped": c.DROPPED,
    "answers-lost": c.ANSWER_LOST,
    "everything-cut": c.ANSWER_LOST | c.TOO_LONG,
    "too-long": c.TOO_LONG,
    "duplicates": c.DUPLICATE,
    "leaked": c.LEAKED,
    "secrets": c.SECRET,
    "personal-data": c.PERSONAL,
    "markers": c.MARKERS,
    "double-bos": c.DOUBLE_BOS,
    "system-folded": c.FOLDED,
    "end-unknown": c.OTHER_END,
    "tools-hidden": c.TOOLS_HIDDEN,
    "reasoning-hidden": c.REASONING_HIDDEN,
    "preference": c.REJECTED,
    "evaluation": c.EVALUATION,
    "flagged": c.SECRET | c.PERSONAL | c.MARKERS | c.DUPLICATE | c.LEAKED,
}
"""Which rows a finding's code, or a kind of jump, stands for."""


@dataclass(frozen=True)
class Rows:
    columns: c.Columns
    spool: store.Spool
    chat: Callable[[], Chat]
    files: Sequence[str]
    complete: bool

    def row(self, index: int) -> SeenRow:
        """Raises FinetuiError (row-missing)."""
        kept = self.spool.row(index) if index < len(self.columns) else None
        if kept is None:
            raise FinetuiError(
                f"There is no row {index + 1:,} to show.",
                f"{min(len(self.columns), len(self.spool)):,} rows have been read and kept so far.",
                "Choose an earlier one, or wait.",
                code="row-missing",
            )
        flags = self.columns.flags[index]
        full, trained = self.columns.full[index], self.columns.trained[index]
        spans: tuple[Span, ...] = ()
        if kept.conversation is not None and full >= 0:
            with contextlib.suppress(Unrenderable):
                spans = self.chat().see(kept.conversation, SHOWN_CHARACTERS).spans
        file = self.columns.file[index]
        rejected = kept.conversation.rejected if kept.conversation else ()
        return SeenRow(
            index=index,
            number=kept.number,
            raw=json.dumps(kept.raw, indent=2, ensure_ascii=False)[:RAW_CHARACTERS] if kept.raw else "",
            spans=spans,
            tokens=min(full, self.chat().max_length) if full >= 0 else 0,
            trained_tokens=trained,
            full_tokens=max(0, full),
            dropped=kept.reason,
            evaluation=bool(flags & c.EVALUATION),
            source=Path(str(self.files[int(file)])).name
            if len(self.files) > 1 and 0 <= file < len(self.files)
            else "",
            rejected="\n\n".join(turn.text for turn in rejected)[:RAW_CHARACTERS],
        )

    def find(self, text: str, after: int) -> int | None:
        wanted = text.casefold()
        if not wanted:
            return None
        quick = json.dumps(wanted)[1:-1] if wanted.isascii() else ""
        for start, end in ((after + 1, len(self.spool)), (0, after + 1)):
            for index, line in self.spool.lines(max(0, start)):
                if index >= end:
                    break
                if quick and quick not in line.lower():
                    continue
                if wanted in store.texts_of(line).casefold():
                    return index
        return None

    def jump(self, to: str, nth: int) -> int | None:
        import numpy as np

        if nth < 0:
            return None
        full = self.columns.numpy("full")
        found: np.ndarray[Any, Any]
        if to in ("longest", "shortest"):
            there = np.flatnonzero(full >= 0)
            key = full[there]
            found = there[np.argsort(-key if to == "longest" else key, kind="stable")]
        elif to == "unlearned":
            found = np.flatnonzero((full >= 0) & (self.columns.numpy("trained") == 0))
        elif to == "end-not-learned":
            flags = self.columns.numpy("flags")
            found = np.flatnonzero((flags & (c.DROPPED | c.CUT | c.END_TRAINED)) == 0)
        elif to in FLAGS:
            found = np.flatnonzero(self.columns.numpy("flags") & FLAGS[to])
        else:
            return None
        return int(found[nth]) if nth < len(found) else None

    def at_line(self, number: int) -> int | None:
        """The first row whose line is `number`, or the next line that is a row."""
        import numpy as np

        found = np.flatnonzero(self.columns.numpy("number") >= number)
        return int(found[0]) if len(found) else None

    def write_clean(self, path: Path, drop: Sequence[str]) -> dict[str, Any]:
        """The kept rows as they stand in their files, a JSON object a line, without those that `drop` names."""
        if not self.complete:
            raise FinetuiError(
                "The dataset has not been read to its end.",
                "A clean copy needs all rows.",
                "Wait until the ledger is complete.",
                code="not-complete",
            )
        if self.spool.full:
            raise FinetuiError(
                "This dataset is too large for a clean copy.",
                "Not all of its rows could be kept.",
                "Split it into several files.",
                code="not-complete",
            )
        without = c.DROPPED
        for code in drop:
            without |= FLAGS.get(code, 0)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        written = left_out = 0
        last = (-1, -1)
        try:
            if os.path.lexists(path):
                raise FileExistsError
            with temporary.open("xb") as file:
                for index, line in self.spool.lines():
                    if self.columns.flags[index] & c.HELD_SOURCE:
                        continue
                    if self.columns.flags[index] & without:
                        left_out += 1
                        continue
                    place = (self.columns.file[index], self.columns.number[index])
                    if place == last:  # of one row several conversations were made
                        continue
                    last = place
                    row: Mapping[str, Any] = store.raw_of(line)
                    file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
                    written += 1
                file.flush()
                os.fsync(file.fileno())
            _put(temporary, path)
        except FileExistsError as error:
            raise FinetuiError(
                f"{one_line(path.name, 100)} is there already.",
                "It was not touched.",
                "Name another file.",
                code="file-exists",
            ) from error
        except OSError as error:
            raise FinetuiError(
                f"{one_line(str(path), 200)} cannot be written.",
                f"{error.strerror or error}.",
                "Check the folder, or name another file.",
                code="file",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return {"path": str(path), "written": written, "left_out": left_out}


def _put(temporary: Path, path: Path) -> None:
    """`temporary` as `path`, never over a file that is there. Raises FileExistsError."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError from None
        temporary.rename(path)
