"""One row that the inspector has read, as lines: its figures, what the model sees of it, and the row as it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from ...theme import glyphs
from ..text import literal
from . import tokens

if TYPE_CHECKING:
    from ....core.dataset_ledger import SeenRow

MOST_RAW_CHARACTERS = 24_000


def head(row: SeenRow, message: str) -> Content:
    """Two lines: which row it is, what becomes of it and `message`; and its tokens, counted."""
    marks = glyphs()
    dot = f" {marks.middot} "
    where = f"line {row.number:,}" + (f" of {literal(row.source, 60)}" if row.source else "")
    if row.dropped:
        fate = (f"{marks.cross} left out: {literal(row.dropped, 200)}", "bold $text-warning")
    elif row.evaluation:
        fate = ("held out for evaluation", "$accent")
    else:
        fate = ("to learn from", "$success")
    first = Content.assemble((f"Row {row.index + 1:,}", "bold"), (dot + where + dot, "$text-muted"), fate)
    if message:
        first = Content.assemble(first, (dot + literal(message, 200), "$text-warning"))
    read = row.tokens - row.trained_tokens
    cut = max(0, row.full_tokens - row.tokens)
    share = f" ({row.trained_tokens / row.tokens:.0%})" if row.tokens else ""
    second = Content.assemble(
        (f"{row.tokens:,} tokens", "$foreground"),
        (f", {row.special_tokens:,} special", "$text-muted"),
        (dot, "$text-disabled"),
        (f"{row.trained_tokens:,} learned{share}", "$success" if row.trained_tokens else "$text-warning"),
        (dot, "$text-disabled"),
        (f"{read:,} only read", "$text-muted"),
        (dot, "$text-disabled"),
        (f"{cut:,} cut off", "$text-error" if cut else "$text-muted"),
    )
    return Content("\n").join((first, second))


def seen(row: SeenRow, cells: int, *, with_raw: bool) -> Content:
    """Its tokens in lines of `cells`. `with_raw`: a row that is left out is shown as it stands, for want of a place beside."""
    parts: list[Content] = []
    if row.spans:
        parts.append(tokens.content(row.spans, cells))
    elif row.dropped:
        parts.append(Content.assemble(("The model never sees this row: it is left out.", "$text-muted")))
        if with_raw:
            lines = tokens.plain_lines(row.raw[:MOST_RAW_CHARACTERS], cells)
            parts.append(Content("\n" + "\n".join(lines)))
    if row.rejected:
        lines = tokens.plain_lines(row.rejected[:MOST_RAW_CHARACTERS], cells - 2)
        parts.append(
            Content.assemble(("The rejected answer (kept for preference training, not learned)", "bold"))
        )
        parts.append(Content.assemble(("\n".join("  " + line for line in lines), "$text-muted")))
    return Content("\n").join(parts)


def raw(row: SeenRow, cells: int) -> Content:
    """The row as it stands in the file, in lines of `cells`."""
    text = row.raw[:MOST_RAW_CHARACTERS]
    if len(row.raw) > MOST_RAW_CHARACTERS:
        text += f"\n{glyphs().ellipsis} {len(row.raw) - MOST_RAW_CHARACTERS:,} characters more"
    lines = tokens.plain_lines(text, cells)
    return Content.assemble(("As it stands in the file\n", "bold $text-muted"), "\n".join(lines))
