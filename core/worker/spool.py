"""The rows that the inspector has read, kept on disk in compressed pieces, so that any of them can be shown again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..conversation import Conversation, Turn

PIECE = 256
"""Rows in a piece."""

MAX_BYTES = 4 * 1024**3
"""No spool grows larger; rows past it are counted but cannot be shown."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One row: as it stood in its file, and as a conversation, or None with the reason why it was left out."""

    raw: Mapping[str, Any]
    conversation: Conversation | None
    number: int
    reason: str


class Spool:
    """Append-only; reading is safe from another thread meanwhile."""

    def __init__(self, path: Path, pieces: list[tuple[int, int, int]] | None = None) -> None:
        """Opens `path`, made when missing; `pieces` (offset, stored bytes, plain bytes) tells what it holds."""
        import pyarrow as pa

        self._codec = pa.Codec("zstd", compression_level=1)
        self.path = path
        self.pieces = list(pieces or [])
        self._file = path.open("a+b")
        self._end = sum(size for _, size, _ in self.pieces)
        self._open: list[str] = []
        self._lock = threading.Lock()
        self._last: tuple[int, list[Any]] = (-1, [])
        self.full = False

    def __len__(self) -> int:
        return len(self.pieces) * PIECE + len(self._open)

    @property
    def bytes(self) -> int:
        return self._end

    def add(
        self, raw: Mapping[str, Any], conversation: Conversation | None, number: int, reason: str
    ) -> None:
        """Raises OSError where the disk takes no more."""
        if self.full:
            return
        line = json.dumps([number, reason, _plain(conversation), raw], default=_as_text, skipkeys=True)
        with self._lock:
            self._open.append(line)
            if len(self._open) == PIECE:
                self._flush()

    def finish(self) -> None:
        with self._lock:
            if self._open:
                self._flush()
            self._file.flush()

    def _flush(self) -> None:
        plain = "\n".join(self._open).encode("ascii")
        packed = self._codec.compress(plain, asbytes=True)
        if self._end + len(packed) > MAX_BYTES:
            self.full = True
            self._open.clear()
            return
        self._file.write(packed)
        self.pieces.append((self._end, len(packed), len(plain)))
        self._end += len(packed)
        self._open.clear()

    def row(self, index: int) -> Kept | None:
        """The row at `index`, or None where there is none."""
        if not 0 <= index < len(self):
            return None
        piece, at = divmod(index, PIECE)
        lines = self._lines(piece)
        return _kept(lines[at]) if at < len(lines) else None

    def _lines(self, piece: int) -> list[str]:
        with self._lock:
            if piece >= len(self.pieces):
                return list(self._open)
            if self._last[0] != piece:
                offset, size, plain = self.pieces[piece]
                self._file.flush()
                self._file.seek(offset)
                data = self._codec.decompress(self._file.read(size), plain, asbytes=True)
                self._last = (piece, data.decode("ascii").split("\n"))
            return self._last[1]

    def lines(self, start: int = 0) -> Iterator[tuple[int, str]]:
        """(index, the row's JSON) from `start` on."""
        for piece in range(start // PIECE, len(self.pieces) + 1):
            for at, line in enumerate(self._lines(piece)):
                if piece * PIECE + at >= start:
                    yield piece * PIECE + at, line

    def close(self) -> None:
        self._file.close()


def raw_of(line: str) -> Mapping[str, Any]:
    """The raw row in one of `Spool.lines`."""
    return json.loads(line)[3]


def texts_of(line: str) -> str:
    """All that is said in one of `Spool.lines`: its conversation, or the raw row where there is none."""
    kept = _kept(line)
    if kept.conversation is None:
        return json.dumps(kept.raw, ensure_ascii=False)
    return "\n".join(turn.text for turn in kept.conversation)


def _as_text(value: object) -> str:
    """What JSON has no form for (times, bytes): as Python writes it, not too long."""
    return repr(value)[:2000]


def _plain(conversation: Conversation | None) -> list[Any] | None:
    if conversation is None:
        return None
    c = conversation
    return [_turns(c.turns), c.tools, _turns(c.rejected), c.number, c.source, c.file]


def _turns(turns: tuple[Turn, ...]) -> list[list[Any]]:
    return [[t.role, t.text, t.learned, t.reasoning, t.calls, t.name, t.call_id] for t in turns]


def _kept(line: str) -> Kept:
    number, reason, plain, raw = json.loads(line)
    conversation = None
    if plain is not None:
        turns, tools, rejected, line_number, source, file = plain
        conversation = Conversation(
            tuple(Turn(*turn) for turn in turns),
            tools,
            tuple(Turn(*turn) for turn in rejected),
            line_number,
            source,
            file,
        )
    return Kept(raw, conversation, number, reason)
