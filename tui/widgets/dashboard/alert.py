"""The one line under the panes: what most needs a word now."""

from __future__ import annotations

import time

from textual.content import Content

from ....core.runs.control import PAUSING
from ....core.runs.events import Warned
from ....core.runs.state import RunStatus
from ....core.text import duration_words, one_line
from ...theme import glyphs
from ..text import literal
from .lines import Run, wrapped
from .result import Use

QUIET_SECONDS = 60.0
"""A live run that says nothing for this long is worth a word."""


def alert(
    status: RunStatus | None, *, trouble: str, said: str, warning: Warned | None, way: Use | None, width: int
) -> list[Content]:
    """One line, or none: files that cannot be read (`trouble`), what the last action did (`said`), a silent worker, the
    command that `y` copies (`way`, for where no pane shows it), the newest warning. Why events cannot be written is told in full."""
    marks = glyphs()
    quiet = time.time() - status.last_ts if status and status.live and status.last_ts is not None else 0.0
    runs: list[Run] = []
    if trouble:
        words = f"The run's files cannot be read: {literal(trouble, 200)}"
        runs = [(f"{marks.warn} {words}", "$text-warning")]
    elif status is not None and status.unwritten:
        lines = wrapped(f"{marks.warn} {one_line(status.unwritten, 400)}", width, 4)
        return [Content.styled(line, "$text-warning") for line in lines]
    elif status is not None and status.paused and said in ("", *PAUSING):
        runs = [(f"{marks.pause} Paused. p goes on; everything is kept in memory.", "$accent")]
    elif said:
        runs = [(literal(said, 400), "$accent")]
    elif quiet > QUIET_SECONDS:
        words = (
            f"No word from the worker for {duration_words(quiet)}; it is alive, and may be at a long step."
        )
        runs = [(f"{marks.warn} {words}", "$text-warning")]
    elif way is not None:
        runs = [(f"{marks.right} y copies: ", "$accent"), (literal(way.command, 600), "$foreground")]
    elif warning is not None:
        runs = [(f"{marks.warn} ", "bold $warning"), (literal(in_full(warning), 600), "$text-warning")]
    return [Content.assemble(*runs).truncate(width, ellipsis=True)] if runs else []


def in_full(warning: Warned) -> str:
    """What, why and what to do, in one line."""
    return " ".join(part for part in (warning.what, warning.why, warning.fix) if part)
