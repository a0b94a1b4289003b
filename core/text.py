"""Untrusted text made safe for a terminal.

Dataset rows, model names, log lines and model output may carry terminal escapes (FAULTS: ESC, C0, C1, OSC 52),
bidirectional overrides and lone surrogates. They are removed or replaced where text enters the product's own
structures for display; the data that is trained on is never changed by this module.
"""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"
"""Shown in place of a character that a terminal must not receive."""

# CSI, OSC (ended by BEL or ST), DCS/SOS/PM/APC strings, and two-character escapes.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"
    r"|\x1b[@-Z\\-_a-z]?"
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|\x9d[^\x07\x9c]*[\x07\x9c]?"
)
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)


def clean(text: str, limit: int = 20_000) -> str:
    """`text` without escapes; other unsafe characters become U+FFFD; newlines and tabs stay.

    `limit` is in characters; what lies past it is cut and marked with an ellipsis, so that a 10 MB line costs
    a widget nothing.
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return _UNSAFE.sub(REPLACEMENT, _ESCAPES.sub("", text.replace("\r\n", "\n")))


def one_line(text: str, limit: int = 200) -> str:
    """`text` cleaned, with every run of white space as one space, at most `limit` characters."""
    line = " ".join(clean(text, max(limit * 8, 200)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def middle(text: str, width: int) -> str:
    """`text` cut in its middle to `width` characters: the form for paths, whose two ends tell most."""
    if len(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    head = (width - 1) // 2
    return text[:head] + "…" + text[len(text) - (width - 1 - head) :]


def bytes_words(count: float) -> str:
    """`count` bytes for people, in binary units: `812 B`, `93.0 MiB`, `1.4 GiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def count_words(count: float) -> str:
    """`count` for people, in decimal units: `812`, `41.9 K`, `135 M`, `1.24 B`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(count) >= 0.9995 * size:  # what rounds to 1,000 of a unit is 1 of the next
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def counted(count: float, noun: str) -> str:
    """`count` with its noun: `1 row`, `2,000 rows`, `1.5 epochs`."""
    figure = f"{count:,}" if isinstance(count, int) else f"{count:,g}"
    return f"{figure} {noun}{'' if count == 1 else 's'}"


def duration_words(seconds: float) -> str:
    """`seconds` for people: `8 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
