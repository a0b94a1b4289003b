"""What a talk is made of: the line for the question, what was asked, and an answer as it is written."""

from __future__ import annotations

import json
from typing import ClassVar

from markdown_it import MarkdownIt
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Markdown, Static, TextArea

from ...core import talk_score
from ...core.talk import Reply
from ...core.text import clean
from ..theme import glyphs

REASONS = {"length": "cut at the limit", "stopped": "stopped", "failed": "broken off"}


def parser() -> MarkdownIt:
    """Markdown without HTML, which stays in sight as it is written."""
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


class Question(TextArea):
    """Where the question is typed: Enter asks, Ctrl+N begins a line."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n", "line", "New line", show=False, id="question.line"),
    ]

    class Asked(Message):
        """The person wants `text` answered."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(
            compact=True, show_line_numbers=False, soft_wrap=True, tab_behavior="focus", highlight_cursor_line=False, id=id,
            placeholder="Ask something",
        )  # fmt: skip

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.prevent_default().stop()
            if self.text.strip():
                self.post_message(self.Asked(self.text.strip()))
            return
        await super()._on_key(event)

    def action_line(self) -> None:
        self.insert("\n")


class Said(Static):
    """A question. A `fresh` one begins anew."""

    def __init__(self, text: str, fresh: bool) -> None:
        rule = f"{glyphs().dash * 3} a new talk {glyphs().dash * 3}\n" if fresh else ""
        words = clean(text)
        super().__init__(
            Content.assemble((rule, "$text-disabled"), ("You  ", "bold $text-muted"), words), markup=False
        )


class Answer(Vertical):
    """An answer: plain while it is written, Markdown once it is whole. Links in it lead nowhere."""

    def compose(self) -> ComposeResult:
        yield Static(
            Content.assemble((glyphs().ellipsis, "$text-disabled")), classes="answer-text", markup=False
        )

    def grow(self, text: str) -> None:
        """Shows `text` as it is so far."""
        for static in self.query(".answer-text").results(Static):
            static.update(Content(clean(text)))

    def finish(self, reply: Reply, expected: str = "") -> None:
        """Shows the whole answer, and what the dataset would have said."""
        words = clean(reply.text)
        if words.strip() and not _is_json(words):
            self.query(".answer-text").remove()
            self.mount(Markdown(words, parser_factory=parser, open_links=False))
        else:
            self.grow(words or "(nothing)")
        notes: list[tuple[str, str]] = []
        if reply.reason in REASONS:
            notes.append((REASONS[reply.reason], "$text-warning"))
        if expected and reply.reason != "failed":
            notes.append((("\n" if notes else "") + talk_score.words(reply.text, expected), "$text-muted"))
        if expected:
            notes.append(
                (("\n" if notes else "") + "The dataset's answer: " + clean(expected), "$text-muted")
            )
        if notes:
            self.mount(Static(Content.assemble(*notes), classes="answer-note", markup=False))

    @on(Markdown.LinkClicked)
    def _inert(self, event: Markdown.LinkClicked) -> None:
        event.stop()


def _is_json(text: str) -> bool:
    """Whether Markdown would spoil `text`."""
    try:
        return isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False
