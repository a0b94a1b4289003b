"""What of a drawing changed: over SSH nothing is sent twice."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate
from textual.content import Content
from textual.geometry import Region
from textual.widget import Widget


def _cells(line: Content) -> list[tuple[str, str]]:
    """Each character with its style. Only for lines whose characters take one cell each."""
    styles = [""] * len(line.plain)
    for span in line.spans:
        for index in range(max(0, span.start), min(span.end, len(styles))):
            styles[index] += f" {span.style}"
    return list(zip(line.plain, styles, strict=True))


def changed_regions(before: Sequence[Content], now: Sequence[Content]) -> list[Region]:
    """The parts of lines that differ; as many lines in both. Where a character is wider than a cell, the whole line."""
    regions: list[Region] = []
    for row, (old, new) in enumerate(zip(before, now, strict=True)):
        if old.plain == new.plain and old.spans == new.spans:
            continue
        width = max(old.cell_length, new.cell_length)
        if old.cell_length != len(old.plain) or new.cell_length != len(new.plain):
            regions.append(Region(0, row, width, 1))
            continue
        blank = (" ", "")
        left, right = _cells(old), _cells(new)
        left += [blank] * (width - len(left))
        right += [blank] * (width - len(right))
        differing = [index for index in range(width) if left[index] != right[index]]
        if differing:
            regions.append(Region(differing[0], row, differing[-1] - differing[0] + 1, 1))
    return regions


def refresh_line(widget: Widget, before: Content | None, now: Content) -> Content:
    """Draws of a widget of one line what is new in `now`; returns it, to be `before` next time."""
    if before is None:
        widget.refresh()
    else:
        regions = changed_regions([before], [now])
        if regions:
            widget.refresh(*regions)
    return now


class Trimmed(ChopsUpdate):
    """An update of parts of the screen that sends those parts alone.

    Textual 8.2 sends each line from its widget's left edge to the end of the part that changed: most of a chart's row for
    its last cell.
    """

    @classmethod
    def of(cls, update: ChopsUpdate) -> Trimmed:
        """`update`, trimmed."""
        return cls(update.chops, update.spans, update.chop_ends)

    def render_segments(self, console: Console) -> str:
        """The update as a terminal takes it."""
        sequences: list[str] = []
        for y, left, right in self.spans:
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or x >= right or end <= left:
                    continue
                first = max(x, left)
                sequences.append(Control.move_to(first, y).segment.text)
                sequences.append(strip.crop(first - x, min(end, right) - x).render(console))
        return "".join(sequences)
