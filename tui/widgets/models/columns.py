"""The columns of a list of models, as many as the width allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content

from ....core.model_fit import Fit
from ....core.text import count_words
from ...theme import glyphs
from ..text import clip, clip_middle, literal
from .rows import Row, Tab

LEAST_NAME = 20
LICENSES = {
    "apache-2.0": "Apache 2",
    "mit": "MIT",
    "gemma": "Gemma",
    "llama3": "Llama 3",
    "llama3.1": "Llama 3.1",
    "llama3.2": "Llama 3.2",
    "llama3.3": "Llama 3.3",
    "cc-by-nc-4.0": "BY-NC 4",
    "cc-by-4.0": "BY 4",
}
FIT_STYLES = {"fits": "$text-success", "tight": "$text-warning", "no": "$text-error"}


@dataclass(frozen=True)
class Column:
    """`rank` tells which go first where it is narrow: the highest."""

    key: str
    title: str
    cells: int
    rank: int
    right: bool = False


SIZE = Column("size", "Size", 6, 2, right=True)
FOUR = Column("4bit", "4-bit", 9, 3)
SIXTEEN = Column("16bit", "16-bit", 7, 1)
LICENSE = Column("license", "Licence", 9, 6)
CONTEXT = Column("context", "Context", 7, 5, right=True)
COLUMNS: dict[Tab, tuple[Column, ...]] = {
    "recommended": (SIZE, CONTEXT, LICENSE, FOUR, SIXTEEN),
    "hub": (SIZE, Column("downloads", "Popular", 7, 5, right=True), LICENSE, FOUR, SIXTEEN),
    "local": (SIZE, Column("disk", "Disk", 8, 4, right=True), FOUR, SIXTEEN),
    "runs": (
        Column("on", "Started from", 14, 5),
        Column("loss", "Loss", 6, 2, right=True),
        Column("when", "Ended", 10, 4),
        FOUR,
        SIXTEEN,
    ),
}


def fitting(tab: Tab, width: int) -> tuple[tuple[Column, ...], int]:
    """The columns of `tab` that fit in `width` cells beside a name, and the cells that remain for the name."""
    columns = list(COLUMNS[tab])

    def left() -> int:
        return width - 2 - sum(c.cells + 1 for c in columns)

    while columns and left() < LEAST_NAME:
        columns.remove(max(columns, key=lambda c: c.rank))
    return tuple(columns), max(4, left())


def heading(columns: Sequence[Column], name_cells: int) -> Content:
    """The names of the columns."""
    cells = ["  " + clip("Model", name_cells).ljust(name_cells)]
    cells += [c.title.rjust(c.cells) if c.right else c.title.ljust(c.cells) for c in columns]
    return Content.assemble((" ".join(cells), "$text-muted"))


def line(
    row: Row,
    columns: Sequence[Column],
    name_cells: int,
    fits: tuple[Fit | None, Fit | None],
    mark: tuple[str, str],
) -> Content:
    """`row` under `heading`. `fits` are for 4-bit and 16-bit; `mark` is a glyph and its style."""
    tag = " gated" if row.gated else " base" if row.base and "base" not in row.title.lower() else ""
    if row.problem:
        tag = " cannot be tuned"
    name = clip_middle(literal(row.title, 200), max(6, name_cells - len(tag)))
    runs: list[tuple[str, str]] = [
        (mark[0] or " ", mark[1]),
        (" ", ""),
        (name, "$text-muted" if row.problem else "bold"),
        (clip(tag, max(0, name_cells - cell_len(name))), "$text-error" if row.problem else "$text-muted"),
    ]
    runs.append((" " * (name_cells - cell_len(name) - cell_len(runs[-1][0])), ""))
    for column in columns:
        words, style = _cell(row, column.key, fits)
        words = clip(words, column.cells)
        gap = " " * (column.cells - cell_len(words))
        runs += [(" ", ""), (gap + words if column.right else words + gap, style)]
    return Content.assemble(*runs)


def _cell(row: Row, key: str, fits: tuple[Fit | None, Fit | None]) -> tuple[str, str]:
    dash = glyphs().dash
    if key == "size":
        return (count_words(row.parameters) if row.parameters else dash), "$foreground"
    if key == "context":
        return context_words(row.context_length) or dash, "$text-muted"
    if key == "license":
        return license_words(row.license) or dash, "$text-muted"
    if key == "downloads":
        return (count_words(row.downloads) if row.downloads is not None else dash), "$text-muted"
    if key == "disk":
        return (short_bytes(row.bytes) if row.bytes else dash), "$text-muted"
    if key == "on":
        return row.on or dash, "$text-muted"
    if key == "loss":
        return (f"{row.loss:.3f}" if row.loss is not None else dash), "$foreground"
    if key == "when":
        return (row.when.isoformat() if row.when else dash), "$text-muted"
    fit = fits[0] if key == "4bit" else fits[1]
    if fit is None or row.problem:
        return dash, "$text-muted"
    return fit_word(fit), FIT_STYLES[fit.level] if fit.bytes is not None else "$text-muted"


def fit_word(fit: Fit) -> str:
    """The verdict in a word or two."""
    if fit.level == "no":
        return "too big" if fit.bytes is not None else "needs GPU" if "GPU" in fit.words else "no"
    return fit.level


def license_words(license: str) -> str:
    """A licence's id as people write it."""
    return LICENSES.get(license.lower(), literal(license, 40))


def context_words(tokens: int | None) -> str:
    """A context length, short: `8K`, `128K`, `1M`."""
    if not tokens:
        return ""
    if tokens >= 1_000_000:
        return f"{tokens / 1_048_576:.3g}M" if tokens % 1_048_576 == 0 else f"{tokens / 1e6:.2g}M"
    return f"{round(tokens / 1024)}K" if tokens >= 1024 else str(tokens)


def short_bytes(count: int) -> str:
    """Bytes in eight cells at most."""
    if count >= 0.95 * 1024**3:
        return f"{count / 1024**3:.1f} GiB"
    return f"{count / 1024**2:.0f} MiB" if count >= 1024**2 else f"{count / 1024:.0f} KiB"
