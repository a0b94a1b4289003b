"""Hub tokens: read from the environment or the hub's own login file, never stored and never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,})"
)
HIDDEN = "‹token hidden›"


def hub_token() -> str | None:
    """The hub token that huggingface_hub itself would use, or None."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip():
            return os.environ[name].strip()
    try:
        return token_file().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def token_file() -> Path:
    """Where the hub's own login keeps its token: huggingface_hub's rules and variables."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("HF_HOME") or str(Path(base) / "huggingface")
    return Path(os.environ.get("HF_TOKEN_PATH") or str(Path(folder) / "token")).expanduser()


def is_secret(name: str) -> bool:
    """Whether an environment variable is named like a secret."""
    return _NAMES.search(name) is not None


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without anything that is named like a secret."""
    return {name: value for name, value in environment.items() if not is_secret(name)}


def redact(text: str) -> str:
    """`text` with every known token, and everything shaped like one, replaced."""
    token = hub_token()
    if token:
        text = text.replace(token, HIDDEN)
    return _SHAPES.sub(HIDDEN, text)
