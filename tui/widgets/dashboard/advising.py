"""What the coach says, as lines beneath the chart."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from textual.content import Content

from ....core.coach_seen import LEVELS, Advice
from ....core.recipe import Recipe
from ...theme import glyphs
from ..text import literal
from .lines import wrapped
from .story import Story

ASK_SECONDS = 2.0
"""The coach is asked again so much later at the earliest, while steps come."""
HOLD_SECONDS = 20.0
"""A finding on the edge of its threshold comes and goes with each batch; it stays in sight so long after it was last found."""
STYLES = {"trouble": "$error", "warning": "$warning", "hint": "$accent"}


class Counsel:
    """What the coach says about one run, steady enough to be read."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._asked_at = 0.0
        self._found: dict[str, tuple[Advice, float]] = {}

    def of(self, story: Story, recipe: Recipe | None, live: bool) -> list[Advice]:
        """What there is to say now, what needs the person most first."""
        step = story.step.step if story.step else 0
        settled = (story.curves.evaluations.total, live, story.whole, recipe is None)
        key, now = (step, *settled), monotonic()
        soon = self._key is not None and self._key[1:] == settled and now - self._asked_at < ASK_SECONDS
        if key != self._key and not soon:
            self._key, self._asked_at = key, now
            found = {advice.rule: (advice, now) for advice in story.advice(recipe, live)}
            if live and found.keys() <= self._found.keys():
                held = {rule: one for rule, one in self._found.items() if now - one[1] < HOLD_SECONDS}
                found = {**held, **found}
            self._found = found
        return sorted((advice for advice, _ in self._found.values()), key=lambda one: LEVELS.index(one.level))


def advice(found: Sequence[Advice], width: int, most: int) -> list[Content]:
    """The first finding in at most `most` lines: what it is, its evidence where there is room, and the key to act on it."""
    if not found or most < 1:
        return []
    first, marks = found[0], glyphs()
    style = STYLES[first.level]
    key = f"  a: {first.action.words}" if first.action is not None else ""
    more = f"  ({len(found) - 1} more)" if len(found) > 1 else ""
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
    room, tail = width - len(head), len(key + more)
    left = max(1, most - len(rows))
    evidence = wrapped(literal(first.evidence), room, left) or [""]
    if len(evidence[-1]) + tail > room:  # the key is never what is left out
        if len(evidence) < left:
            evidence.append("")
        else:
            evidence = wrapped(literal(first.evidence), max(10, room - tail), left)
    for line in evidence:
        rows.append(Content.assemble((" " * len(head), ""), (line, "$text-muted")))
    rows[-1] += Content.assemble((key, "bold $accent"), (more, "$text-muted"))
    return rows
