"""The last word where only ASCII may be sent: every line on its way to the terminal is put into it."""

from __future__ import annotations

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_LIKE = str.maketrans(
    {
        "–": "-", "—": "-", "−": "-", "·": "-", "•": "*", "…": ".", "×": "x", "÷": "/", "“": '"', "”": '"',
        "‘": "'", "’": "'", "→": ">", "←": "<", "↑": "^", "↓": "v", "✓": "+", "✗": "x", "›": ">", "‹": "<",
        "│": "|", "┃": "|", "─": "-", "━": "=", "▌": "#", "█": "#", "▎": "|", "▊": "|", "▍": "|", "▉": "#", "▋": "#", "▏": "|",
    }
)  # fmt: skip
_BOX = "┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛"
_BLANK = "▔▁▄▀▂▃▅▆▇"
"""Blocks that draw an edge, such as the ends of a scroll bar."""


def to_ascii(text: str) -> str:
    """`text` in ASCII, as many cells wide as before; what has no likeness becomes question marks."""
    if text.isascii():
        return text
    text = text.translate(_LIKE)
    if text.isascii():
        return text
    return "".join(
        c if c.isascii() else "+" if c in _BOX else " " if c in _BLANK else "?" * cell_len(c) for c in text
    )


class AsciiFilter(LineFilter):
    """Applied by the application to every line that it draws."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same segments with their text in ASCII."""
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]
