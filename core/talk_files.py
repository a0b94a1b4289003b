"""What a talk leaves behind: the talk itself, corrected answers for a dataset, and judgements."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

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


def begin(target: Target, name: str) -> IO[str]:
    """Opens a JSONL file beside the talks, called `name` and the time, for rows that stay when nothing more comes. Raises
    FinetuiError (file)."""
    try:
        return (folder(target) / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl").open("x", encoding="utf-8")
    except OSError as error:
        raise _unwritten(paths.data(), error) from error


def add(rows: IO[str], row: Mapping[str, Any]) -> None:
    """Writes `row` to what `begin` opened. Raises FinetuiError (file)."""
    try:
        rows.write(json.dumps(row, ensure_ascii=True) + "\n")
        rows.flush()
    except OSError as error:
        raise _unwritten(Path(rows.name), error) from error


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
            size = len(before)
            gap = b"" if not before or before.endswith(b"\n") else b"\n"
            try:
                if os.write(descriptor, gap + line) != len(gap) + len(line):
                    raise OSError(28, os.strerror(28))
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
    except OSError as error:
        raise _unwritten(file, error) from error
    return before.count(b"\n") + len(gap) + 1


def _unwritten(file: Path, error: OSError) -> FinetuiError:
    return FinetuiError(
        "It could not be written.",
        f"{error.filename or file}: {error.strerror or error}.",
        "Free some space, or name another place.",
        code="file",
    )
