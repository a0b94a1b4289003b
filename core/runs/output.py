"""What the libraries printed: worker.log, read a piece at a time, however long it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import secrets
from ..text import clean

Level = Literal["info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("info", "warning", "error")
PIECE_BYTES = 64 * 1024
BLOCK_BYTES = 1024 * 1024
"""So much is searched at once."""
_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL|Fatal|[A-Za-z_.]*(?:Error|Exception)\b[:(]|[Ee]rror:)")
_WARNING = re.compile(r"\bWARN(?:ING)?\b|[Ww]arning\b")
_RAISED = re.compile(r"[A-Za-z_][\w.]*(?::|$)")


@dataclass(frozen=True)
class Piece:
    """The whole lines of a log from byte `start` up to byte `end`, when the file had `size` bytes. Safe to show: without
    escapes and tokens. Of a line that was drawn over itself (a progress bar) the last state is left."""

    start: int = 0
    end: int = 0
    size: int = 0
    lines: tuple[str, ...] = ()


def before(log: Path, end: int | None = None) -> Piece:
    """The lines that end at byte `end`, or at the file's end. A file that is not there is empty. Raises OSError."""
    return _read(log, lambda size: _back(size if end is None else min(end, size)))


def after(log: Path, start: int) -> Piece:
    """The lines from byte `start` on. Raises OSError."""
    return _read(log, lambda size: (min(start, size), min(start + PIECE_BYTES, size)))


def _back(end: int) -> tuple[int, int]:
    return max(0, end - PIECE_BYTES), end


def _read(log: Path, place: Callable[[int], tuple[int, int]]) -> Piece:
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            start, end = place(size)
            file.seek(max(0, start - 1))
            told = file.read(end - max(0, start - 1))
    except FileNotFoundError:
        return Piece()
    if (
        start > 0
    ):  # the byte before tells whether a line begins here; a piece that is all one line stays as it is
        cut = told.find(b"\n") + 1
        if 0 < cut < len(told):
            start, told = start - 1 + cut, told[cut:]
        else:
            told = told[1:]
    if end < size:
        whole = told.rfind(b"\n") + 1
        if whole > 0:
            end, told = start + whole, told[:whole]
    text = secrets.redact(told.decode("utf-8", "replace").replace("\r\n", "\n"))
    lines = text.removesuffix("\n").split("\n") if text else []
    return Piece(start, end, size, tuple(_last_state(line) for line in lines))


def _last_state(line: str) -> str:
    states = [state for state in line.split("\r") if state.strip()]
    return clean(states[-1], 4000).rstrip() if states else ""


def find_before(log: Path, words: str, end: int, stop: Callable[[], bool] = lambda: False) -> int | None:
    """The byte after the last line that has `words` (in any case of its letters) before byte `end`; None where there is none,
    or `stop()` says so. Holds two blocks at most. Raises OSError."""
    wanted = words.encode("utf-8", "replace").lower()
    if not wanted:
        return None
    with log.open("rb") as file:
        later = b""
        while end > 0 and not stop():
            start = max(0, end - BLOCK_BYTES)
            file.seek(start)
            block = file.read(end - start)
            found = (block + later[: len(wanted) - 1]).lower().rfind(wanted)
            if found >= 0:
                file.seek(start + found + len(wanted))
                rest = file.read(PIECE_BYTES)
                line = rest.find(b"\n") + 1
                return start + found + len(wanted) + (line or len(rest))
            later, end = block, start
    return None


def levels(lines: Sequence[str]) -> list[Level]:
    """What each line weighs. All of a traceback is an error."""
    found: list[Level] = []
    inside = False
    for line in lines:
        if line.startswith("Traceback (most recent call last)"):
            inside = True
        error = inside or _ERROR.search(line) is not None
        found.append("error" if error else "warning" if _WARNING.search(line) else "info")
        if inside and line[:1] not in (" ", "T", "") and _RAISED.match(line):
            inside = False
    return found
