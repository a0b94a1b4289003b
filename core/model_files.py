"""Which files of a repository are a model, and file names that lead elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import FinetuiError
from .text import bytes_words, one_line

WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "LICENSE*")
UNWANTED = ("consolidated*", "original/*", "onnx/*", "*/*.safetensors", "*.gguf")
CODE = ("*.py",)

MAX_JSON_BYTES = 64 * 1024 * 1024


def wanted(names: Iterable[str]) -> tuple[str, ...]:
    """The names that a download brings, of all in a repository."""
    return tuple(
        name
        for name in names
        if any(fnmatch(name, pattern) for pattern in WANTED)
        and not any(fnmatch(name, pattern) for pattern in UNWANTED)
    )


def is_safe_name(name: str) -> bool:
    """Whether a file of this name lands inside the folder that it is put in."""
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and name.isprintable()
        and "\\" not in name
        and not name.startswith("/")
        and not any(part in ("..", ".git") for part in parts)
        and len(name) < 1024
    )


def check_names(names: Iterable[str], shown: str) -> None:
    """Raises FinetuiError (model-hostile) where one of a repository's file names leads out of it."""
    for name in names:
        if not is_safe_name(name):
            raise FinetuiError(
                f"{one_line(shown, 100)} names a file outside its folder.",
                f"Its repository lists {one_line(repr(name), 80)}.",
                "Do not use this model; take it from its first source.",
                code="model-hostile",
            )


def check_links(folder: Path, inside: Path, shown: str) -> None:
    """Raises FinetuiError (model-hostile) where a link in `folder` leads out of `inside`, as none of the hub's cache does."""
    root = inside.resolve()
    for path in folder.iterdir():
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise FinetuiError(
                f"{one_line(shown, 100)} has a link that leads out of the hub's cache.",
                f"{one_line(path.name, 80)} points to {one_line(str(path.resolve()), 120)}.",
                "Remove it from the cache and download it again.",
                code="model-hostile",
            )


def unreadable(file: Path, shown: str, error: OSError) -> FinetuiError:
    """The card for a file of the model that the system does not let us read (model-broken)."""
    return FinetuiError(
        f"{shown} is broken.",
        f"{one_line(file.name, 80)} cannot be read: {error.strerror}.",
        "Check its permissions.",
        code="model-broken",
    )


def read_json(file: Path, shown: str) -> dict[str, Any]:
    """A JSON object from one of the model's files. Raises FinetuiError (model-broken)."""
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {bytes_words(MAX_JSON_BYTES)}")
        value = json.loads(file.read_text(encoding="utf-8-sig"))
        if not isinstance(value, dict):
            raise json.JSONDecodeError("it holds no JSON object", "", 0)
    except (OSError, ValueError, RecursionError) as error:
        raise FinetuiError(
            f"{shown} is broken.",
            f"{one_line(file.name, 80)} cannot be read: {one_line(str(error), 120)}.",
            "Download that file again.",
            code="model-broken",
        ) from error
    return value
