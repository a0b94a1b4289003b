"""Lines of a pane: wrapped with a hanging label, side by side, or as many figures as fit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content

from ....core.text import clean
from ...theme import glyphs
from ..text import run_length

Run = tuple[str, str]


def wrapped(text: str, width: int, most: int | None = None) -> list[str]:
    """`text`, cleaned, as lines of at most `width` cells; with `most`, the last line kept ends in an ellipsis where
    there is more."""
    width = max(1, width)
    lines: list[str] = []
    for line in clean(text, 8000).expandtabs(2).split("\n"):
        if len(line) <= width and line.isascii():  # most lines, and a log has many
            lines.append(line.rstrip())
            continue
        lines += [part.plain.rstrip() for part in Content(line).wrap(width)] or [""]
    while lines and not lines[-1]:
        lines.pop()
    if most is not None and len(lines) > most:
        mark = glyphs().ellipsis
        last = lines[most - 1]
        while cell_len(last) + cell_len(mark) > width:
            last = last[:-1]
        lines = [*lines[: most - 1], last.rstrip() + mark]
    return lines


def hanging(
    label: str,
    text: str,
    width: int,
    style: str = "$foreground",
    *,
    cells: int = 9,
    most: int | None = None,
    empty: str = "",
) -> list[Content]:
    """`text` wrapped beside `label`, which has `cells` cells."""
    lines = wrapped(text, width - cells, most)
    if not lines:
        lines, style = [empty or "(nothing)"], "$text-disabled"
    return [
        Content.assemble(
            (label if index == 0 else "", "$text-muted"),
            " " * (cells - (cell_len(label) if index == 0 else 0)),
            (line, style),
        )
        for index, line in enumerate(lines)
    ]


def side_by_side(
    left: Sequence[str], right: Sequence[str], width: int, styles: tuple[str, str]
) -> list[Content]:
    """Two columns of lines that were wrapped to `width` cells each."""
    rows: list[Content] = []
    for index in range(max(len(left), len(right))):
        one = left[index] if index < len(left) else ""
        two = right[index] if index < len(right) else ""
        rows.append(
            Content.assemble((one, styles[0]), " " * max(0, width - cell_len(one) + 2), (two, styles[1]))
        )
    return rows


def flowing(figures: Sequence[Sequence[Run]], width: int, most: int, gap: int = 3) -> list[Content]:
    """Figures side by side in at most `most` lines; what fits nowhere is left out, the last first."""
    lines: list[list[Run]] = [[]]
    for figure in figures:
        if not figure:
            continue
        line = lines[-1]
        if line and run_length(line) + gap + run_length(figure) > width:
            if len(lines) == most:
                continue
            lines.append([])
            line = lines[-1]
        if line:
            line.append((" " * gap, ""))
        line.extend(figure)
    return [Content.assemble(*line) for line in lines if line]
