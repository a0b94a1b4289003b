"""What a script is made of: cells of code with a heading and words, and texts quoted so that nothing in them is code."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

WIDTH = 96


@dataclass(frozen=True)
class Cell:
    """A part of a script: in a notebook a cell of its own, under its heading."""

    heading: str
    words: str
    code: str


def comment(words: str) -> str:
    """`words` as comment lines. Whatever could end a line is taken out."""
    safe = "".join(c if c.isprintable() else " " for c in words)
    return textwrap.fill(safe, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def literal(text: str) -> str:
    """A Python expression that is `text`, on several lines where it is long. Nothing in it is ever run."""
    if len(text) <= 90 and "\n" not in text:
        return repr(text)
    pieces: list[str] = []
    for line in text.splitlines(keepends=True):
        while len(line) > 90:
            cut = line.rfind(" ", 0, 90) + 1 or 90
            pieces.append(line[:cut])
            line = line[cut:]
        if line:
            pieces.append(line)
    assert "".join(pieces) == text
    return "(\n" + "\n".join(f"    {piece!r}" for piece in pieces) + "\n)"


_NAMES = re.compile(r"[^a-z0-9]+")


def file_stem(name: str) -> str:
    """A recipe's name as the stem of a file that can be imported, too."""
    return _NAMES.sub("_", name.lower()).strip("_") or "fine_tune"
