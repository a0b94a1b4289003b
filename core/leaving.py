"""What leaves a run with its exports: which files, under which names, and none that hold rows or paths of this machine.

A hub repository and a copied folder are laid out alike: merged model and GGUFs at the root, the adapter too where no
merged model is beside it (their file names are the same), else under `adapter/`. So is one in 4 bit beside one in 16. The proof stays here: its table quotes
held-out rows. Its verdict goes along in the card.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from . import export_record, proof_file
from .errors import FinetuiError
from .export import FORMATS, FormatInfo
from .proof import Proof
from .recipe import DEMO, Recipe
from .runs.chosen import settle
from .runs.store import RunFolder
from .script import DEMO_MODEL
from .text import one_line

CARD = "README.md"
"""The model card's name, on the hub and in a folder."""

_FILES: Final = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*config.json",
    "tokenizer*.json",
    "*token*.json",
    "vocab*.json",
    "chat_template.json",
    "*.jinja",
    "*.model",
    "merges.txt",
    "vocab.txt",
    "system_prompt.txt",
    "ask.py",
    "*.gguf",
    "Modelfile",
)
"""What a consumer needs. Anything else in an export's folder is ours and stays."""

_NAMING: Final = ("adapter_config.json", "config.json", "tokenizer_config.json")
_PATHS: Final = ("base_model_name_or_path", "_name_or_path", "name_or_path")
_CHUNK = 4 * 1024**2


@dataclass(frozen=True)
class Finished:
    """An export that stands whole in the run's folder."""

    info: FormatInfo
    folder: Path
    files: tuple[Path, ...]
    """What of it leaves."""
    proof: Proof | None
    begins: bool | None = None
    """As in its record."""

    @property
    def format(self) -> str:
        return self.info.format

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    @property
    def gguf(self) -> Path | None:
        """The GGUF, where it is one of a whole model."""
        if not self.info.quantization:
            return None
        return next((file for file in self.files if file.suffix == ".gguf"), None)


@dataclass(frozen=True)
class Item:
    """One file that leaves: its name where it goes, and where its bytes come from."""

    name: str
    source: Path
    content: bytes | None = None
    """In place of the file's own bytes."""

    @property
    def bytes(self) -> int:
        return len(self.content) if self.content is not None else self.source.stat().st_size

    def read(self) -> bytes:
        return self.content if self.content is not None else self.source.read_bytes()


def finished(run: RunFolder) -> tuple[Finished, ...]:
    """The exports of `run` that are there now, in the order of the formats. The run's own adapter counts as one."""
    settle(run)
    found: list[Finished] = []
    for format, info in FORMATS.items():
        folder = run.exports / format
        if format == "adapter" and not folder.is_dir():
            folder = run.adapter
        files = _files(folder)
        if any(file.suffix in (".safetensors", ".gguf") for file in files):
            record = export_record.read(folder)
            begins = record.begins if record is not None else None
            found.append(Finished(info, folder, files, proof_file.load(folder), begins))
    return tuple(found)


def chosen(run: RunFolder, formats: Sequence[str], first: str | None = None) -> tuple[Finished, ...]:
    """The finished exports of `formats`; without any, that of `first`, or all. Raises FinetuiError (export-missing)."""
    there = {done.format: done for done in finished(run)}
    if not formats:
        formats = [first] if first in there else list(there)
    missing = [format for format in formats if format not in there]
    if missing or not formats:
        names = ", ".join(missing) or "Nothing"
        raise FinetuiError(
            f"{names} of {run.id} {'is' if len(missing) < 2 else 'are'} not exported yet.",
            f"There are: {', '.join(there)}." if there else "The run has no finished export.",
            f"finetui export {run.id} --format {missing[0] if missing else 'gguf_q8_0'}",
            code="export-missing",
        )
    return tuple(done for format, done in there.items() if format in formats)


def base_name(recipe: Recipe, *, here: bool = False) -> str:
    """What others call the base model: its hub id, or the name of its folder, never a path of this machine.

    `here`: a folder's path instead, as what goes to a folder may well be used on this machine.
    """
    source = recipe.model.source
    if source == DEMO:
        return DEMO_MODEL
    path = Path(source).expanduser()
    if not path.is_absolute() and not path.exists():
        return one_line(source)
    return str(path.absolute()) if here else one_line(path.resolve().name)


def items(recipe: Recipe, exports: Sequence[Finished], card: str, *, here: bool = False) -> tuple[Item, ...]:
    """The files of `exports` under the names that they leave with, the card among them. `here` as for `base_name`."""
    formats = {done.format for done in exports}
    several = several_modelfiles(exports)
    found = [Item(CARD, Path(CARD), card.encode("utf-8", "replace"))]
    for done in exports:
        apart = subfolder(done.format, formats)
        for file in done.files:
            name = file.relative_to(done.folder).as_posix()
            if file.name == "Modelfile":
                name = modelfile_name(done, several=several)
            if apart:
                name = str(PurePosixPath(apart) / name)
            found.append(Item(name, file, _without_paths(file, base_name(recipe, here=here))))
    return tuple(found)


def subfolder(format: str, formats: Collection[str]) -> str:
    """Where the export `format` stands beside others of `formats`; empty for the root."""
    apart = format == "merged_4bit" and "merged" in formats
    apart = apart or (format == "adapter" and not {"merged", "merged_4bit"}.isdisjoint(formats))
    return format if apart else ""


def modelfile_name(done: Finished, *, several: bool) -> str:
    """What the Modelfile of a GGUF is called beside others."""
    return f"Modelfile-{done.info.quantization or 'adapter'}" if several else "Modelfile"


def several_modelfiles(exports: Sequence[Finished]) -> bool:
    """Whether more than one of `exports` has a Modelfile, which cannot all be called that."""
    return sum(file.name == "Modelfile" for done in exports for file in done.files) > 1


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises OSError."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(_CHUNK):
            found.update(part)
    return found.hexdigest()


def _files(folder: Path) -> tuple[Path, ...]:
    """The plain files of an export that leave; links lead elsewhere and are left out."""
    try:
        return tuple(
            file
            for file in sorted(folder.iterdir())
            if file.is_file() and not file.is_symlink() and any(fnmatch.fnmatch(file.name, p) for p in _FILES)
        )
    except OSError:
        return ()


def _without_paths(file: Path, base: str) -> bytes | None:
    """The file with paths of this machine replaced by the base's name; None where it has none."""
    if file.name not in _NAMING:
        return None
    try:
        told = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    changed = {
        key: base
        for key in _PATHS
        if isinstance(told.get(key), str) and (told[key].startswith(("/", "~", ".")) or "\\" in told[key])
    }
    return json.dumps({**told, **changed}, indent=2, ensure_ascii=False).encode() if changed else None
