"""The explanation of the field that has the focus: at the right, or under the form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from ...core.fields import FieldSpec
from ..theme import glyphs
from .form import value_words
from .text import literal

RANGES = re.compile(r"(?:(?<=^)|(?<=· ))([0-9][0-9–.]*\+?)(?= )")
"""A range at the head of a phrase, as in `8–16 tone, format · 128+ rarely better`."""


def allowed_words(spec: FieldSpec) -> str:
    """What the field takes, in the words that its control shows; empty where the control shows all of it."""
    if spec.kind in ("flag", "text", "choices"):
        return ""
    if spec.kind == "choice":
        return "One of: " + ", ".join(value_words(spec.path, choice) for choice in spec.choices) + "."
    return f"Takes {spec.allowed}{' ' + spec.unit if spec.unit and not spec.unit.startswith('×') else ''}."


def _explained(spec: FieldSpec) -> list[Content]:
    """The paragraphs; a paragraph of ranges becomes a small table."""
    paragraphs: list[Content] = []
    for paragraph in spec.explain.split("\n"):
        parts = paragraph.rstrip(".").split(" · ")
        if len(parts) > 1 and all(part[:1].isdigit() for part in parts):
            styles = ("$success", "$accent", "$text-muted")
            rows = []
            for index, part in enumerate(parts):
                head, _, rest = part.partition(" ")
                rows.append(Content.assemble((head.ljust(7), f"bold {styles[min(index, 2)]}"), rest))
            paragraphs.append(Content("\n").join(rows))
        else:
            paragraphs.append(Content(paragraph))
    return paragraphs


def full(spec: FieldSpec, value: Any, facts: str = "") -> Content:
    """Everything known about a field: what it does, what it takes, its default, and what was set."""
    parts = [Content.assemble((spec.title, "bold $accent")), *_explained(spec)]
    if facts:
        parts.append(Content.assemble((literal(facts, 600), "$success")))
    default = value_words(spec.path, spec.default)
    words = literal(value_words(spec.path, value), 120)
    state = [Content.assemble(("Default ", "$text-muted"), default)]
    if value != spec.default:
        state.append(Content.assemble(("You set ", "$text-muted"), (words, "bold $accent")))
    allowed = allowed_words(spec)
    if allowed:
        state.append(Content.assemble((allowed, "$text-muted")))
    parts.append(Content("\n").join(state))
    return Content("\n\n").join(parts)


def compact(spec: FieldSpec, value: Any, facts: str = "") -> Content:
    """`full` without empty lines, for a pane under the form."""
    first, *rest = _explained(spec)
    lines = [Content.assemble((spec.title, "bold $accent"), "  ", first), *rest]
    if facts:
        lines.append(Content.assemble((literal(facts, 600), "$success")))
    state: list[Any] = [("Default ", "$text-muted"), value_words(spec.path, spec.default)]
    if value != spec.default:
        words = literal(value_words(spec.path, value), 60)
        state += [(f" {glyphs().middot} you set ", "$text-muted"), (words, "bold $accent")]
    allowed = allowed_words(spec)
    if allowed:
        state.append((f" {glyphs().middot} {allowed[:1].lower()}{allowed[1:].rstrip('.')}", "$text-muted"))
    lines.append(Content.assemble(*state))
    return Content("\n").join(lines)


def brief(spec: FieldSpec, value: Any, facts: str = "") -> Content:
    """A field in two or three lines: the help, and its default."""
    marks = glyphs()
    default = f"default {value_words(spec.path, spec.default)}"
    if value != spec.default:
        default += f", you set {literal(value_words(spec.path, value), 60)}"
    tail = f"{facts} {marks.middot} {default}" if facts else default
    help = spec.help[:1].upper() + spec.help[1:]
    return Content.assemble(
        (spec.title, "bold $accent"), "  ", (help, "$foreground"), (f"  ({tail})", "$text-muted")
    )


def briefest(spec: FieldSpec) -> Content:
    """A field's help alone."""
    return Content.assemble((spec.title, "bold $accent"), "  ", spec.help[:1].upper() + spec.help[1:])


class Explain(VerticalScroll, can_focus=False):
    """The explanation at the right, scrollable."""

    def compose(self) -> ComposeResult:
        yield Static(id="explain-text", markup=False)

    def show(self, content: Content, stay: bool = False) -> None:
        """Replace the explanation and start at its top; `stay` keeps the place that is read."""
        self.query_one("#explain-text", Static).update(content)
        if not stay:
            self.scroll_home(animate=False)


class Brief(Static):
    """The explanation under the form, as long as the room there allows."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._levels: tuple[Content, ...] = ()
        self._shown: Content | None = None

    def offer(self, levels: Sequence[Content]) -> None:
        """Takes an explanation in several lengths, the longest first. `fit` shows one of them."""
        self._levels = tuple(levels)

    def fit(self, room: int, least: int, width: int) -> None:
        """Shows the longest that fits in `room` lines of `width` cells, else the shortest in `least` lines."""
        if not self._levels:
            return
        room, lines, content = max(least, room), 0, self._levels[-1]
        for content in self._levels:
            lines = sum(max(1, len(line.wrap(width))) for line in content.split("\n", allow_blank=True))
            if lines <= room:
                break
        height = max(least, min(lines, room)) + self.gutter.height
        if height != self.outer_size.height:
            self.styles.height = height
        if content is not self._shown:
            self._shown = content
            self.update(content)
