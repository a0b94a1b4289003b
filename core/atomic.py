"""Files written whole or not at all: temporary file, fsync, rename."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def write_bytes(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes `content` to `path` so that a reader sees the old file or the new one, never a part.

    Raises OSError as the system gives it (no space, read-only); the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str, mode: int = 0o600) -> None:
    """As `write_bytes`, in UTF-8; lone surrogates become `?` rather than an error."""
    write_bytes(path, text.encode("utf-8", "replace"), mode)
