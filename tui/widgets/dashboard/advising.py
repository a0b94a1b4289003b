"""What the coach says, as lines beneath the chart."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from ....core.coach import Advice
from ...theme import glyphs
from ..text import literal
from .lines import wrapped

STYLES = {"trouble": "$error", "warning": "$warning", "hint": "$accent"}


def advice(found: Sequence[Advice], width: int, most: int) -> list[Content]:
    """The first finding in at most `most` lines: what it is, its evidence where there is room, and the key to act on it."""
    if not found or most < 1:
        return []
    first, marks = found[0], glyphs()
    style = STYLES[first.level]
    key = f"  a {first.action.words}" if first.action is not None else ""
    more = f"  (+{len(found) - 1})" if len(found) > 1 else ""
    head = f"{marks.warn} Coach "
    lines = wrapped(literal(first.sentence), width - len(head), max(1, most - (1 if most > 1 else 0)))
    rows = [
        Content.assemble((head if index == 0 else " " * len(head), f"bold {style}"), (line, "$foreground"))
        for index, line in enumerate(lines)
    ]
    if most == 1:
        room = width - len(head) - len(key)
        text = wrapped(literal(first.sentence), max(10, room), 1)[0]
        return [Content.assemble((head, f"bold {style}"), (text, "$foreground"), (key, "bold $accent"))]
    left = most - len(rows)
    evidence = wrapped(
        literal(first.evidence),
        max(10, width - len(head) - (len(key + more) if left < 2 else 0)),
        max(1, left),
    )
    for index, line in enumerate(evidence[:left]):
        last = index == min(len(evidence), left) - 1
        fits = len(line) + len(head) + len(key + more) <= width
        tail = [(key, "bold $accent"), (more, "$text-muted")] if last and fits else []
        rows.append(Content.assemble((" " * len(head), ""), (line, "$text-muted"), *tail))
    return rows
