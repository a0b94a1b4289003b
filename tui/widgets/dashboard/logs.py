"""The two logs of a run, sifted: its events in words, and what the libraries printed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from textual.content import Content

from ....core.runs.output import LEVELS, Level, Piece, levels
from ....core.text import counted
from ...theme import glyphs
from ..text import literal
from .lines import Run, flowing, hanging, wrapped
from .story import LogLine

STYLES: dict[Level, str] = {"info": "$text-muted", "warning": "$text-warning", "error": "$text-error"}
LEVEL_WORDS: dict[Level, str] = {"info": "all", "warning": "warnings", "error": "errors"}


@dataclass(frozen=True)
class Sifting:
    """Which lines are shown: those of at least `level` that have `words`, in any case of their letters."""

    level: Level = "info"
    words: str = ""

    def keeps(self, text: str, level: Level) -> bool:
        """Whether a line is shown."""
        return LEVELS.index(level) >= LEVELS.index(self.level) and self.words.lower() in text.lower()

    def mark(self, line: Content) -> Content:
        """`line` with the words marked."""
        if self.words:
            for match in re.finditer(re.escape(self.words), line.plain, re.IGNORECASE):
                line = line.stylize("bold reverse", match.start(), match.end())
        return line


@dataclass(frozen=True)
class Sifted:
    """The lines that are shown, wrapped; how many lines they are, and of how many."""

    lines: tuple[Content, ...] = ()
    shown: int = 0
    total: int = 0


def events(log: Iterable[LogLine], sifting: Sifting, width: int) -> Sifted:
    """The events in words, the newest last."""
    lines: list[Content] = []
    shown = total = 0
    for line in log:
        total += 1
        if sifting.keeps(line.words, line.level):
            shown += 1
            stamp = time.strftime("%H:%M:%S", time.localtime(line.ts))
            lines += hanging(stamp, literal(line.words, 400), width, line.style, cells=9, most=3)
    return _told(lines, shown, total, sifting, "Nothing yet.")


def output(piece: Piece, sifting: Sifting, width: int) -> Sifted:
    """A piece of worker.log."""
    lines: list[Content] = []
    shown = 0
    for text, level in zip(piece.lines, levels(piece.lines), strict=True):
        if sifting.keeps(text, level):
            shown += 1
            lines += [Content.assemble((line, STYLES[level])) for line in wrapped(text, width, 4)]
    return _told(lines, shown, len(piece.lines), sifting, "The libraries have printed nothing yet.")


def _told(lines: Sequence[Content], shown: int, total: int, sifting: Sifting, nothing: str) -> Sifted:
    if not lines:
        words = nothing if not total else f"None of {counted(total, 'line')}."
        return Sifted((Content.assemble((words, "$text-muted")),), shown, total)
    return Sifted(tuple(sifting.mark(line) for line in lines), shown, total)


def ruler(
    sifted: Sifted, sifting: Sifting, following: bool, piece: Piece | None, width: int, skipped: int = 0
) -> list[Content]:
    """The line over a log: what of it is shown, and the keys that change that. `piece`: the one in sight of worker.log.
    `skipped`: lines of events.jsonl that were damaged."""
    marks = glyphs()
    level, words = LEVEL_WORDS[sifting.level], literal(sifting.words, 40)
    parts: list[list[Run]] = [
        [("g ", "$accent"), (level, "$foreground" if sifting.level == "info" else "bold $accent")],
        [("/ ", "$accent"), (words or "search", "bold $accent" if words else "$foreground")],
    ]
    if sifted.shown < sifted.total:
        parts.append([(f"{sifted.shown:,} of {counted(sifted.total, 'line')}", "$text-muted")])
    if skipped:
        parts.append([(f"{counted(skipped, 'damaged line')} left out", "$text-warning")])
    parts.append([("F ", "$accent"), ("following" if following else "held", "$foreground")])
    if piece is not None and piece.size > piece.end - piece.start:
        share = 100 * piece.end / piece.size
        parts.append([(f"at {share:.0f} % of the file {marks.middot} ", "$text-muted"), ("n ", "$accent")])
        parts[-1].append(("find earlier", "$text-muted"))
    return flowing(parts, width, 1)
