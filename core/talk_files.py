"""What a talk leaves behind: the talk itself, corrected answers for a dataset, and judgements."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import atomic, paths
from .errors import FinetuiError
from .talk import Messages, Talk, Target
from .text import clean, one_line


def folder(target: Target) -> Path:
    """Where talks of `target` are kept: with its run, where it lies in one. Raises OSError."""
    return paths.private_dir((target.run or paths.data()) / "talks")


def save(target: Target, talk: Talk) -> tuple[Path, Path]:
    """Writes the talk as JSONL, one row of messages for each side and stretch, and as Markdown to read.

    Raises FinetuiError (file) where it cannot be written.
    """
    rows: list[dict[str, Any]] = []
    last = [
        i
        for i, _ in enumerate(talk.exchanges)
        if talk.exchanges[i + 1 : i + 2] == [] or talk.exchanges[i + 1].fresh
    ]
    for at in last:
        for side in target.sides:
            reply = talk.exchanges[at].replies.get(side)
            if reply is not None and reply.text:
                rows.append(row((*talk.messages(side, at), ("assistant", reply.text))) | {"side": side})
    lines = [f"# A talk with {one_line(target.title, 100)}", ""]
    for exchange in talk.exchanges:
        lines += [*(["---", ""] if exchange.fresh else []), "**You**", "", clean(exchange.question), ""]
        for side in target.sides:
            reply = exchange.replies.get(side)
            if reply is not None:
                lines += [f"**{side.capitalize()}**", "", clean(reply.text), ""]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    try:
        place = folder(target)
        machine, readable = place / f"talk-{stamp}.jsonl", place / f"talk-{stamp}.md"
        atomic.write_text(machine, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows))
        atomic.write_text(readable, "\n".join(lines))
    except OSError as error:
        raise _unwritten(paths.data(), error) from error
    return machine, readable


def row(messages: Messages) -> dict[str, Any]:
    """A dataset row in the messages format."""
    return {"messages": [{"role": role, "content": text} for role, text in messages]}


def keep(target: Target, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes `rows` as a JSONL file called `name` and the time, beside the talks. Raises FinetuiError (file)."""
    try:
        file = folder(target) / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
        atomic.write_text(file, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows))
    except OSError as error:
        raise _unwritten(paths.data(), error) from error
    return file


class Rows:
    """A JSONL file beside the talks, called `name` and the time, for rows that stay when nothing more comes. Rows that the
    disk refuses wait in memory and go along with the next. `earlier` has those of a file that is gone on with."""

    def __init__(self, target: Target, name: str, resumed: Path | None = None) -> None:
        """`resumed` is such a file, gone on with after its last whole row. Raises FinetuiError (file)."""
        self.earlier: list[Any] = []
        self._waiting = b""
        new = os.O_CREAT | os.O_EXCL if resumed is None else 0
        try:
            self.file = resumed or folder(target) / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
            self._descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | new, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if resumed is not None:
                _older(target, resumed)
                content = resumed.read_bytes()
                whole = content[: content.rfind(b"\n") + 1]
                self.earlier = [json.loads(line) for line in whole.splitlines()]
                os.ftruncate(self._descriptor, len(whole))
        except OSError as error:
            raise _unwritten(resumed or paths.data(), error) from error
        except (ValueError, RecursionError) as error:
            raise FinetuiError(
                f"{one_line(self.file.name, 100)} is not a JSONL file.",
                one_line(str(error), 100),
                code="file",
            ) from error

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes `row` and what waits. Raises FinetuiError (file)."""
        self._waiting += json.dumps(row, ensure_ascii=True).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Writes what waits, whole or not at all. Raises FinetuiError (file)."""
        try:
            _write_whole(self._descriptor, self._waiting)
        except OSError as error:
            raise _unwritten(self.file, error) from error
        self._waiting = b""

    def close(self) -> None:
        os.close(self._descriptor)


def append(file: Path, messages: Messages) -> int:
    """Appends `messages` as one row to the JSONL `file`, made when missing: whole or not at all. Returns the row's line.

    Raises FinetuiError (file) where it is no JSONL file or cannot be written; what stood there is then as it was.
    """
    line = json.dumps(row(messages), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    file = file.expanduser().absolute()
    if file.suffix.lower() not in (".jsonl", ".ndjson"):
        raise FinetuiError(
            f"{one_line(file.name, 100)} is not a JSONL file.",
            "Rows are appended one a line, which only JSONL allows.",
            "Name a file that ends in .jsonl.",
            code="file",
        )
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as opened:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = opened.read()
            gap = b"" if not before or before.endswith(b"\n") else b"\n"
            _write_whole(descriptor, gap + line)
    except OSError as error:
        raise _unwritten(file, error) from error
    return before.count(b"\n") + len(gap) + 1


def _older(target: Target, rows: Path) -> None:
    """Refuses rows of other weights: what is changed is newer than they. Raises FinetuiError (file) and OSError."""
    files = target.path.iterdir() if target.path.is_dir() else (target.path,)
    if max(file.stat().st_mtime for file in files) > rows.stat().st_mtime:
        raise FinetuiError(
            f"{one_line(rows.name, 100)} is of other weights.",
            f"{one_line(target.title, 100)} has changed since those answers.",
            "Begin anew, without --resume.",
            code="file",
        )


def _write_whole(descriptor: int, content: bytes) -> None:
    """Appends `content` to what was opened, or leaves it as it was. Raises OSError."""
    size = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _unwritten(file: Path, error: OSError) -> FinetuiError:
    return FinetuiError(
        "It could not be written.",
        f"{error.filename or file}: {error.strerror or error}.",
        "Free some space, or name another place.",
        code="file",
    )
