"""What a run is made from, told apart by size and a hash of each file's ends: whether it has changed since."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..recipe import DEMO, Recipe
from ..text import one_line

END_BYTES = 1024 * 1024
MOST_FILES = 200
_MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "*.safetensors")


def prints(recipe: Recipe) -> dict[str, str]:
    """Path → print of the local files behind `recipe`: rows, base model, adapter. Reads at most 2 MiB of each file.

    What comes from the hub is not here: its revision stands in the recipe, and its rows are compared once they are read.
    """
    data, model = recipe.dataset, recipe.model
    found: dict[str, str] = {}
    for source in (data.source, data.evaluation_source, *(data.mix or {})):
        found |= _of(source, ("*",))
    found |= _of(model.source, _MODEL)
    found |= _of(model.adapter, _MODEL)
    return found


def _of(source: str | None, patterns: tuple[str, ...]) -> dict[str, str]:
    if not source or source == DEMO:
        return {}
    try:
        path = Path(source).expanduser()
        if path.is_file():
            return {str(path): _print(path)}
        if not path.is_dir():
            return {}
        files = sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})
        return {str(file): _print(file) for file in files[:MOST_FILES]}
    except (OSError, RuntimeError, ValueError):  # no path of this machine, or none that can be read
        return {}


def _print(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(END_BYTES))
        if size > END_BYTES:
            file.seek(max(END_BYTES, size - END_BYTES))
            digest.update(file.read(END_BYTES))
    return f"{size}:{digest.hexdigest()[:32]}"


def changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What differs, in words: one for each file that is not what it was."""
    return [
        f"{one_line(Path(path).name, 80)} {'has changed' if path in now else 'is gone'}"
        for path, print_ in before.items()
        if now.get(path) != print_
    ]
