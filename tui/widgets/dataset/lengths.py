"""How long the rows are: a column chart of token counts with the sequence length drawn in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from textual.content import Content

from ...theme import glyphs

LEAST_COLUMNS = 12


def columns(edges: Sequence[float], counts: Sequence[int], cells: int) -> tuple[list[float], list[int]]:
    """`counts` without the empty ones at the start, merged so that columns of whole cells fill most of `cells`.

    `edges` has one more than there are columns.
    """
    first = next(index for index, count in enumerate(counts) if count)
    edges, counts = edges[first:], counts[first:]

    def filled(together: int) -> int:
        number = -(-len(counts) // together)
        return number * (cells // number)

    fewest = -(-len(counts) // max(1, cells))
    most = max(fewest, len(counts) // LEAST_COLUMNS)
    together = max(range(max(1, fewest), max(1, most) + 1), key=lambda n: (filled(n), -n))
    merged = [sum(counts[at : at + together]) for at in range(0, len(counts), together)]
    kept = [edges[min(at * together, len(edges) - 1)] for at in range(len(merged))]
    return [*kept, edges[-1]], merged


def histogram(
    edges: Sequence[float], counts: Sequence[int], maximum: int, cells: int, rows: int
) -> Content | None:
    """Columns of rows by length, `rows` lines high and one for the axis; a bar stands at `maximum` tokens.

    `edges` are token counts, one more than `counts`. None where nothing was counted.
    """
    if len(counts) < 1 or len(edges) != len(counts) + 1 or not any(counts) or cells < 20:
        return None
    marks = glyphs()
    edges, counts = columns(edges, counts, cells - 2)
    wide = max(1, (cells - 2) // len(counts))
    at = len(counts) if maximum >= edges[-1] else max(0, bisect_left(edges, maximum))
    bar = at * wide
    highest = max(counts)
    lines: list[Content] = []
    for row in range(rows, 0, -1):
        runs: list[tuple[str, str]] = []
        for index, count in enumerate(counts):
            if index == at:
                runs.append((marks.marker, "bold $accent"))
            runs.append((_cell(count, highest, row, rows) * wide, "$warning" if index >= at else "$success"))
        if at == len(counts):
            runs.append((marks.marker, "bold $accent"))
        lines.append(Content.assemble(*runs))
    label = f"maximum {maximum:,}"
    lines.append(_axis(f"{edges[0]:,.0f}", label, f"{edges[-1]:,.0f}", bar, len(counts) * wide + 1, cells))
    return Content("\n").join(lines)


def _cell(count: int, highest: int, row: int, rows: int) -> str:
    """One row's piece of a column: full, a part, or nothing."""
    marks = glyphs()
    height = count / highest * rows - (row - 1)
    if count and row == 1:
        height = max(height, 0.13)
    if height <= 0:
        return " "
    if not marks.unicode:
        return "#" if height >= 0.5 or row == 1 else " "
    return marks.levels[min(7, max(0, round(min(1.0, height) * 8) - 1))]


def _axis(first: str, label: str, last: str, bar: int, width: int, cells: int) -> Content:
    """The words under the columns: the shortest, the maximum under its bar, the longest where there is room."""
    marks = glyphs()
    label = f"{marks.above} {label}"
    at = max(0, min(bar, cells - len(label)))
    line = " " * at + label
    if at > len(first) + 1:
        line = first + line[len(first) :]
    if len(line) + 2 + len(last) <= width:
        line = line.ljust(width - len(last)) + last
    start = line.index(label)
    return Content.assemble(
        (line[:start], "$text-muted"), (label, "$accent"), (line[start + len(label) :], "$text-muted")
    )
