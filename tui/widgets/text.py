"""Text for one line of a terminal: measured in cells, shortened with the ellipsis of the alphabet in use."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from ...core.text import one_line
from ..theme import glyphs

_ASCII = str.maketrans(
    {
        "·": "-",
        "×": "x",
        "–": "-",
        "—": "-",
        "…": "...",
        "°": None,
        "→": "->",
        "←": "<-",
        "›": ">",
        "‹": "<",
        "≤": "<=",
        "≥": ">=",
        "−": "-",
        "’": "'",
        "“": '"',
        "”": '"',
        "✓": "+",
        "✗": "x",
        "●": "*",
        "○": "o",
        "▸": ">",
    }
)


def literal(text: object, limit: int = 400) -> str:
    """`text` made safe to show: one line, no escapes. Markup in it stays as the characters that it is.

    In the ASCII alphabet the punctuation that the product's own phrases use is spelled in ASCII too.
    """
    line = one_line(str(text), limit)
    return line if glyphs().unicode else line.translate(_ASCII)


def clip(text: str, cells: int) -> str:
    """`text` in at most `cells` cells, its end replaced by an ellipsis where it does not fit."""
    if cell_len(text) <= cells:
        return text
    mark = glyphs().ellipsis
    if cells <= len(mark):
        return mark[: max(0, cells)]
    return set_cell_size(text, cells - len(mark)).rstrip() + mark


def clip_parts(text: str, cells: int, separator: str = " · ") -> str:
    """`text` in at most `cells` cells, losing whole parts from its end while there is more than one."""
    if cell_len(text) <= cells:
        return text
    mark = " " + glyphs().ellipsis
    parts = text.split(separator if glyphs().unicode else separator.translate(_ASCII))
    while len(parts) > 1:
        parts.pop()
        kept = separator.join(parts) + mark
        if cell_len(kept) <= cells:
            return kept if glyphs().unicode else kept.translate(_ASCII)
    return clip(text, cells)


def clip_middle(text: str, cells: int) -> str:
    """`text` in at most `cells` cells, its middle replaced by an ellipsis: both ends of a name or path tell
    most."""
    if cell_len(text) <= cells:
        return text
    mark = glyphs().ellipsis
    room = cells - len(mark)
    if room < 2:
        return clip(text, cells)
    tail_cells = room // 2
    tail = ""
    for character in reversed(text):
        if cell_len(character + tail) > tail_cells:
            break
        tail = character + tail
    return set_cell_size(text, room - tail_cells).rstrip() + mark + tail


def run_length(runs: Iterable[tuple[str, str]]) -> int:
    """Cells that `runs` of (text, style) take."""
    return sum(cell_len(text) for text, _ in runs)


def spread(left: list[tuple[str, str]], right: list[tuple[str, str]], cells: int) -> Content:
    """One line of `cells` cells: `left` at its start, `right` at its end, at least one space between.

    Where both do not fit, `left` is clipped, then `right`.
    """
    wanted = run_length(right)
    if wanted >= cells:
        return Content.assemble(*right).truncate(cells, ellipsis=glyphs().unicode)
    room = cells - wanted - (1 if wanted else 0)
    start = Content.assemble(*left)
    if start.cell_length > room:
        start = start.truncate(room, ellipsis=glyphs().unicode)
    gap = cells - start.cell_length - wanted
    return Content.assemble(start, " " * max(0, gap), *right)
