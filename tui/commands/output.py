"""What the command line writes: plain lines that carry nothing a terminal could obey, error cards, and JSON."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from typing import Any, TextIO

from ...core import secrets, text
from ...core.errors import FinetuiError

_ASCII = str.maketrans(
    {
        "…": "...",
        "·": "-",
        "→": "->",
        "×": "x",
        "–": "-",
        "—": "-",
        "÷": "/",
        "√": "sqrt ",
        "¾": "3/4",
        "‹": "<",
        "›": ">",
        "✓": "+",
        "✗": "x",
        text.REPLACEMENT: "?",
    }
)

ascii_only = False
"""Set once by `--ascii`."""


def prepare() -> None:
    """Makes the streams take any text, whatever the locale: what it cannot show becomes `?`."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def line(words: str = "", stream: TextIO | None = None) -> None:
    """Writes `words` and a newline, at once. Escapes and control characters are taken out."""
    target = sys.stdout if stream is None else stream
    safe = text.clean(words)
    if ascii_only:
        safe = safe.translate(_ASCII).encode("ascii", "replace").decode("ascii")
    target.write(safe + "\n")
    target.flush()


def data(value: Any, indent: int | None = None) -> None:
    """Writes `value` as JSON in ASCII, and a newline. NaN and infinities become null."""
    sys.stdout.write(json.dumps(_finite(value), indent=indent, allow_nan=False) + "\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def card(error: FinetuiError, as_json: bool = False) -> None:
    """An error for people, as its three texts on stderr; for programs, as one JSON object on stdout."""
    what, why, fix = (secrets.redact(part) for part in (error.what, error.why, error.fix))
    if as_json:
        data({"error": {"code": error.code, "what": what, "why": why, "fix": fix}})
        return
    for part in (what, why, fix):
        if part:
            line(part, sys.stderr)


def width(most: int = 100) -> int:
    """Columns to write in: the terminal's, at most `most`, and `most` where there is no terminal."""
    if not sys.stdout.isatty():
        return most
    return max(40, min(most, shutil.get_terminal_size((most, 24)).columns))


def interactive() -> bool:
    """Whether a full-screen application can run here."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
