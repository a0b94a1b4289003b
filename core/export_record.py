"""What an export was made from: a record in its folder, and the prints that tell whether two are of the same weights.

No torch. The record holds no path of this machine, so that the folder can be given away as it is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from . import atomic
from .export import weighed
from .recipe import ExportFormat, Recipe
from .runs.store import RunFolder

FILE: Final = "export.json"
"""Stands beside the exported files."""

MAX_BYTES: Final = 64 * 1024
_WEIGHTS: Final = ("*.safetensors", "*.safetensors.index.json")
_WORDS: Final = (
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


@dataclass(frozen=True)
class Record:
    """`learned` and `base` are prints (SHA-256); `weights` is the folder of the weights, relative to the run's."""

    format: str
    key: str
    """The same key means: the same base, the same weights, the same recipe for what is written beside them."""
    learned: str
    base: str
    weights: str
    step: int | None = None
    result: bool = True
    """Of what the run ended with, not of a checkpoint."""
    revision: str | None = None
    """The base model's commit, where the recipe names one."""
    weighed: bool = False
    """Quantized with an importance matrix."""
    begins: bool | None = None
    """Of an adapter's GGUF: whether training had the beginning-of-text token before what is asked, where a GGUF of the base model
    has it otherwise; None where that has it alike."""
    made_ts: float = 0.0


def write(folder: Path, record: Record) -> None:
    """Puts the record into an export's folder. Raises OSError."""
    told = {"v": 1, **dataclasses.asdict(record), "made_ts": time.time()}
    atomic.write_text(folder / FILE, json.dumps(told, indent=1))


def read(folder: Path) -> Record | None:
    """The record in an export's folder; None where there is none that can be read."""
    try:
        with (folder / FILE).open("rb") as file:
            told = json.loads(file.read(MAX_BYTES))
        told.pop("v", None)
        return TypeAdapter(Record).validate_python(told)
    except (OSError, ValueError, TypeError, AttributeError, ValidationError, RecursionError):
        return None


def learned_print(folder: Path) -> str:
    """Of what was learned: every byte of the weights, their configuration and their tokenizer. Raises OSError."""
    digest = hashlib.sha256()
    for file in _files(folder, (*_WEIGHTS, *_WORDS)):
        with file.open("rb") as opened:
            digest.update(file.name.encode() + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def base_print(folder: Path) -> str:
    """Of a base model: every byte of its small files; of its weights where they stand, their sizes and times.

    A model in the hub's cache stands under its contents' hash. Raises OSError.
    """
    digest = hashlib.sha256()
    for file in _files(folder, _WORDS):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    for file in _files(folder, _WEIGHTS):
        real = file.resolve()
        about = real.stat()
        digest.update(f"{file.name}\0{real}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def key(recipe: Recipe, learned: str, base: str, maker: str) -> str:
    """One print for all that decides what an export holds. `maker` names the versions of what makes it."""
    told = [learned, base, recipe.name, recipe.dataset.system_prompt, recipe.model.precision, maker]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


@dataclass(frozen=True)
class There:
    """An export that stands in a run's folder already. `same`: of the very weights that would be exported now, in the same way."""

    format: ExportFormat
    same: bool
    words: str


def there(
    run: RunFolder, formats: tuple[ExportFormat, ...], learned: str, importance: bool
) -> tuple[There, ...]:
    """Which of `formats` the run has exported already, against weights whose print is `learned` and whether `importance` is
    asked for."""
    found: list[There] = []
    for format in formats:
        folder = run.exports / format
        if not folder.exists():
            continue
        record = read(folder)
        if record is None:
            words = "made by an older finetui"
        else:
            made = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.made_ts))
            words = f"of step {record.step:,}, made {made}" if record.step is not None else f"made {made}"
        same = record is not None and record.learned == learned
        if record is not None and record.weighed != weighed(format, importance):
            same, words = False, f"{words}, with{'' if record.weighed else 'out'} an importance matrix"
        found.append(There(format, same, words))
    return tuple(found)
