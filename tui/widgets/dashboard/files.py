"""The files of a run as lines: name, size, age."""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual.content import Content

from ....core.runs.files import Entry
from ....core.text import bytes_words
from ..gauges import elapsed_words
from ..text import clip_middle, literal, spread


def lines(entries: Sequence[Entry] | None, path: str, width: int) -> list[Content]:
    """The folder with its size, then what lies in it. None: it is being looked at."""
    place = Content.assemble((clip_middle(literal(path, 1000), width), "$text-muted"))
    if entries is None:
        return [place, Content.assemble(("Looking at the files.", "$text-muted"))]
    size, count = sum(entry.bytes for entry in entries), sum(entry.files for entry in entries)
    head = spread(
        [("Files", "bold $accent"), (f"   {count:,}, {bytes_words(size)} in all", "$text-muted")], [], width
    )
    return [head, place, *(_line(entry, width) for entry in entries)]


def _line(entry: Entry, width: int) -> Content:
    name = literal(entry.name, 300) + ("/" if entry.folder else "")
    age = elapsed_words(max(0.0, time.time() - entry.modified_ts)) if entry.modified_ts else ""
    inside = f"{entry.files:,} file{'' if entry.files == 1 else 's'}" if entry.folder else ""
    right = f"{bytes_words(entry.bytes):>11}  {age:>14}"
    room = width - len(right) - 1
    if inside and room >= len(name) + len(inside) + 2:
        return spread(
            [(name, "$foreground"), (f"  {inside}", "$text-disabled")], [(right, "$text-muted")], width
        )
    return spread([(clip_middle(name, max(4, room)), "$foreground")], [(right, "$text-muted")], width)
