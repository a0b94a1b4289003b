"""Rows out of plain writing (TXT, Markdown): blocks of whole paragraphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from .dataset_source import Located

BLOCK_CHARACTERS = 2000
"""A block ends with the paragraph that reaches this length; about 500 tokens, the default sequence length."""

NOTE = f"plain writing: paragraphs together in blocks of about {BLOCK_CHARACTERS:,} characters"


def text_rows(text: TextIO) -> Iterator[Located]:
    """The text in blocks, each with the line it begins at. Nothing but white space between blocks is left out.

    A block ends at a blank line once it is long enough, before a Markdown heading once it is half as long, and at any
    line end, at last within a line, where it is twice as long.
    """
    lines: list[str] = []
    length, begins, number = 0, 1, 0
    middle = False  # of a line that is longer than a block
    while piece := text.readline(BLOCK_CHARACTERS):
        number += not middle
        was_middle, middle = middle, not piece.endswith(("\n", "\r"))
        blank = not piece.strip() and not was_middle
        heading = not was_middle and piece.startswith("#") and length >= BLOCK_CHARACTERS / 2
        if lines and ((blank and length >= BLOCK_CHARACTERS) or heading or length >= 2 * BLOCK_CHARACTERS):
            yield from _block(begins, lines)
            lines, length = [], 0
        if blank and not lines:
            continue
        if not lines:
            begins = number
        lines.append(piece)
        length += len(piece)
    yield from _block(begins, lines)


def _block(begins: int, lines: list[str]) -> Iterator[Located]:
    block = "".join(lines).replace("\r\n", "\n").strip()
    if block:
        yield Located(begins, {"text": block})
