"""llama.cpp as something that runs a GGUF: the pinned package xllamacpp."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import packages
from .child import Check
from .packages import Package

CONSUMER: Final = Package(
    "xllamacpp",
    "2026.10.11549",
    (
        "c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261",  # x86_64
        "e2a3e79e775515de4ad197e667f874070446ef9ac9cf2044bc9866bc4c72289e",  # aarch64
    ),
    "xllamacpp/__init__.py",
)
"""llama.cpp with its server as a Python package, 34 MB, for Python 3.10 and later."""


def folder(check: Check, tell: Callable[[str], None]) -> Path | None:
    """Where xllamacpp is imported from, fetched when it must be; None where this environment has it.

    Raises FinetuiError (package-fetch, no-pip) and what `check` raises.
    """
    if importlib.util.find_spec("xllamacpp") is not None:
        return None
    if not (CONSUMER.folder / CONSUMER.proof).is_file():
        tell("fetching llama.cpp (34 MB) to try the file with")
    return packages.fetch(CONSUMER, check, "Check the network, then try again")
