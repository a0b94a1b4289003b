"""Files that the person names: where they are, and writing them without losing what stands there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from . import atomic
from .errors import FinetuiError


def given_path(text: str) -> Path:
    """`text` as a path, `~` included. Raises FinetuiError where it names the home of nobody."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise FinetuiError(
            f"{text} is not a path here.", f"{error}", "Write the path in full.", code="file-missing"
        ) from None


def write_new(files: Sequence[tuple[Path, bytes]], force: bool) -> None:
    """Writes each whole; one that stands there already with other contents only with `force`, and then none is written.

    Raises FinetuiError (file-exists, file-missing, file).
    """
    for path, content in files:
        if os.path.exists(path) and not force and (path == files[0][0] or path.read_bytes() != content):
            raise FinetuiError(
                f"{path} is there already.",
                "Nothing was written.",
                "Name another file, or replace it with --force.",
                code="file-exists",
            )
    for path, content in files:
        try:
            atomic.write_bytes(path, content, mode=0o644)
        except OSError as error:
            raise FinetuiError(
                f"{path} cannot be written.",
                f"{error.strerror or error}.",
                "Check the folder, or name another file.",
                code="file-missing" if isinstance(error, FileNotFoundError) else "file",
            ) from error
