"""A row token by token as lines of a terminal: what is learned, what is only read, what is cut off."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, get_character_cell_size
from textual.content import Content

from ...theme import glyphs

if TYPE_CHECKING:
    from ....core.dataset_ledger import Span

TRAINED, SPECIAL, CUT = 1, 2, 4
MOST_CHARACTERS = 24_000
"""Shown of a row at most: two thirds from its start, the rest from its end."""

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)

STYLES = {
    0: "$text-muted",
    SPECIAL: "italic $secondary on $panel",
    TRAINED: "underline $success",
    TRAINED | SPECIAL: "italic underline bold $success on $panel",
    CUT: "strike $text-error",
    CUT | SPECIAL: "italic strike $text-error on $panel",
}
"""Colour and mark of a piece, by its bits; cut goes before trained."""


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20 and glyphs().unicode:
        return chr(0x2400 + code)
    return "\ufffd" if glyphs().unicode else "?"


def visible(text: str) -> str:
    """`text` with every character that a terminal must not receive shown as a picture of itself: nothing is hidden."""
    return _UNSAFE.sub(_picture, text)


@dataclass(frozen=True)
class Line:
    """One line of the terminal: runs of text with their bits."""

    runs: tuple[tuple[str, int], ...]

    @property
    def bits(self) -> int:
        """TRAINED where any piece is learned, CUT where every piece is cut."""
        trained = any(bits & TRAINED and not bits & CUT for _, bits in self.runs)
        cut = bool(self.runs) and all(bits & CUT for _, bits in self.runs)
        return (TRAINED if trained else 0) | (CUT if cut else 0)


def _flat(spans: Iterable[Span]) -> tuple[str, bytearray]:
    """All pieces as one text, with the bits of each character; line ends carry a mark of their own."""
    pieces: list[str] = []
    bits = bytearray()
    end = "↵\n" if glyphs().unicode else "\\n\n"
    for span in spans:
        text = visible(span.text).replace("\t", "    ").replace("\n", end)
        pieces.append(text)
        one = CUT if span.cut else TRAINED if span.trained else 0
        bits.extend(bytes((one | (SPECIAL if span.special else 0),)) * len(text))
    return "".join(pieces), bits


def lay_out(spans: Iterable[Span], cells: int) -> list[Line]:
    """`spans` in lines of at most `cells` cells, broken at spaces where there are any."""
    text, bits = _flat(spans)
    if len(text) > MOST_CHARACTERS:
        head, tail = MOST_CHARACTERS * 2 // 3, MOST_CHARACTERS // 3
        note = f"\n{glyphs().ellipsis} {len(text) - head - tail:,} characters more {glyphs().ellipsis}\n"
        text = text[:head] + note + text[-tail:]
        bits = bits[:head] + bytes(len(note)) + bits[-tail:]
    lines: list[Line] = []
    start = 0
    size = len(text)
    while start < size:
        end = text.find("\n", start)
        end = size if end < 0 else end
        lines += _wrapped(text, bits, start, end, max(2, cells))
        start = end + 1
    return lines


def _wrapped(text: str, bits: bytearray, start: int, end: int, cells: int) -> list[Line]:
    lines: list[Line] = []
    while True:
        at, used, space = start, 0, -1
        while at < end:
            used += get_character_cell_size(text[at])
            if used > cells:
                break
            if text[at] == " ":
                space = at
            at += 1
        if at >= end:
            lines.append(_line(text, bits, start, end))
            return lines
        stop = space + 1 if space > start else max(at, start + 1)
        lines.append(_line(text, bits, start, stop))
        start = stop
        if start >= end:
            return lines


def plain_lines(text: str, cells: int) -> list[str]:
    """`text`, safe to show, in lines of at most `cells` cells; indentation stays."""
    lines: list[str] = []
    for part in visible(text).replace("\t", "    ").split("\n"):
        for line in _wrapped(part, bytearray(len(part)), 0, len(part), max(2, cells)):
            lines.append("".join(run for run, _ in line.runs))
    return lines


def _line(text: str, bits: bytearray, start: int, end: int) -> Line:
    runs: list[tuple[str, int]] = []
    at = start
    while at < end:
        one = bits[at]
        stop = at + 1
        while stop < end and bits[stop] == one:
            stop += 1
        runs.append((text[at:stop], one))
        at = stop
    return Line(tuple(runs))


def gutter(bits: int) -> tuple[str, str]:
    """The mark and its style in front of a line."""
    marks = glyphs()
    if bits & TRAINED:
        return ("▌" if marks.unicode else "#"), "bold $success"
    if bits & CUT:
        return marks.cross, "$error"
    return ("│" if marks.unicode else "|"), "$text-disabled"


def content(spans: Iterable[Span], cells: int) -> Content:
    """`spans` as they are shown, `cells` cells wide, the gutter included."""
    rows: list[Content] = []
    for line in lay_out(spans, cells - 2):
        mark, style = gutter(line.bits)
        rows.append(
            Content.assemble(
                (mark, style),
                " ",
                *((text, STYLES[bits if not bits & CUT else bits & ~TRAINED]) for text, bits in line.runs),
            )
        )
    return Content("\n").join(rows)


def legend(cells: int) -> Content:
    """What the colours and marks say: always in sight."""
    marks = glyphs()
    learned, read = gutter(TRAINED)[0], gutter(0)[0]
    parts = [
        (f"{learned} ", "learned", STYLES[TRAINED]),
        (f"{read} ", "only read", STYLES[0]),
        (f"{marks.cross} ", "cut off", STYLES[CUT]),
        ("", "<special>", STYLES[SPECIAL]),
    ]
    runs: list[tuple[str, str]] = []
    used = 0
    for index, (mark, word, style) in enumerate(parts):
        wide = cell_len(mark) + cell_len(word) + (3 if index else 0)
        if used + wide > cells:
            break
        used += wide
        runs += [("   " if index else "", ""), (mark, style.replace("underline ", "").replace("strike ", ""))]
        runs.append((word, style))
    return Content.assemble(*runs)
