"""A folder as a dataset: which of its files are taken for a split, in natural order, and which are left out and why."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from .dataset_source import broken, unreadable
from .errors import FinetuiError
from .text import one_line

TABLE_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".arrow")
TEXT_ENDINGS = (".txt", ".md", ".markdown")
ENDINGS = TABLE_ENDINGS + TEXT_ENDINGS
PACKED_ENDINGS = (".gz", ".zst")

MAX_FILES = 20_000

_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "metadata.json")
_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
}


@dataclass(frozen=True)
class Manifest:
    """What a folder gives for one split."""

    folder: Path
    taken: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...]
    """Each with the reason in words."""

    @property
    def note(self) -> str:
        """In words, such as `3 files: a.jsonl, b.jsonl, c.csv; left out: README.md (notes beside the data)`."""
        names = ", ".join(one_line(str(p.relative_to(self.folder)), 60) for p in self.taken[:4])
        more = ", …" if len(self.taken) > 4 else ""
        note = f"{len(self.taken):,} file{'s' * (len(self.taken) != 1)}: {names}{more}"
        if self.left_out:
            out = ", ".join(
                f"{one_line(str(p.relative_to(self.folder)), 60)} ({why})" for p, why in self.left_out[:4]
            )
            note += f"; left out: {out}{', …' if len(self.left_out) > 4 else ''}"
        return note


def bare_suffix(path: Path) -> str:
    """The ending that tells the kind, in lower case: `.jsonl` of `rows.JSONL.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED_ENDINGS else suffix


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", str(path).lower())
    return [(0, int(p[:18]), p) if p.isdigit() and p.isascii() else (1, 0, p) for p in parts]


def split_in(path: Path) -> str:
    """The split that a file's name or folder names (`train-00000-of-00003.parquet`, `test/rows.csv`); "" for none."""
    for part in reversed(path.parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return ""


def manifest(folder: Path, split: str = "train") -> Manifest:
    """The files of `folder` (and of the folders in it) for `split`. Files whose names speak of no split count as train.

    Raises FinetuiError: dataset-missing where it holds no file of rows, dataset-split where none is of that split.
    """
    saved = _saved_by_datasets(folder, split)
    if saved is not None:
        return saved
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        raise FinetuiError(
            f"{one_line(str(folder), 200)} is a folder with a model, not with rows.",
            "It holds config.json and safetensors.",
            "Name it in the model step, and a file or a folder of examples here.",
            code="dataset-missing",
        )
    found, left_out = _files(folder)
    tables = [path for path in found if bare_suffix(path) in TABLE_ENDINGS]
    if tables:
        left_out += [(p, "notes beside the data") for p in found if bare_suffix(p) in TEXT_ENDINGS]
        found = tables
    if not found:
        raise FinetuiError(
            f"{one_line(str(folder), 200)} is a folder without files of rows.",
            f"Looked for {', '.join(ENDINGS)}, also with .gz or .zst.",
            "Name a file, or another folder.",
            code="dataset-missing",
        )
    by_split: dict[str, list[Path]] = {}
    for path in found:
        by_split.setdefault(split_in(path.relative_to(folder)), []).append(path)
    wanted = _SPLITS.get(split.lower(), split)
    taken = by_split.get(wanted, []) + (by_split.get("", []) if wanted == "train" else [])
    if not taken and wanted == "train":
        taken = found  # nothing but, say, test files: the person named this folder to train on it
    if not taken:
        raise no_split(folder, split, [name or "train" for name in by_split])
    chosen = set(taken)
    left_out += [(p, f"{split_in(p.relative_to(folder))} split") for p in found if p not in chosen]
    return Manifest(folder, tuple(sorted(taken, key=_natural)), tuple(left_out))


def no_split(path: Path, split: str, there: list[str]) -> FinetuiError:
    """The card for a split that is not there (dataset-split)."""
    names = ", ".join(sorted({one_line(name, 40) for name in there})[:12])
    return FinetuiError(
        f"{one_line(path.name, 100)} has no split named {one_line(split, 40)}.",
        f"It has: {names}." if names else "It is one file, whose rows are not divided.",
        "Set the split to one of these."
        if names
        else "Leave the split empty, or name a folder of several files.",
        code="dataset-split",
    )


def _files(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    found: list[Path] = []
    left_out: list[tuple[Path, str]] = []

    def fail(error: OSError) -> None:
        if error.filename == str(folder):
            raise unreadable(folder, error) from error
        left_out.append((Path(str(error.filename)), "cannot be read"))

    for here, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(names):
            path = Path(here, name)
            if name.startswith("."):
                continue
            if not path.is_file():
                left_out.append((path, "no ordinary file"))
            elif name in _ABOUT:
                left_out.append((path, "about the data"))
            elif bare_suffix(path) not in ENDINGS:
                left_out.append((path, "not a file of rows"))
            elif path.stat().st_size == 0:
                left_out.append((path, "empty"))
            else:
                found.append(path)
            if len(found) + len(left_out) > MAX_FILES:
                raise FinetuiError(
                    f"{one_line(str(folder), 200)} holds more than {MAX_FILES:,} files.",
                    "A dataset has fewer; this may be the wrong folder.",
                    "Name a folder that holds only the files of rows.",
                    code="dataset-missing",
                )
    return found, left_out


def _saved_by_datasets(folder: Path, split: str) -> Manifest | None:
    """The files of a folder that `datasets` wrote with save_to_disk, or None where it is no such folder."""
    listing = folder / "dataset_dict.json"
    if listing.is_file():
        names = _json(listing).get("splits")
        there = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        if split not in there or Path(split).name != split:
            raise no_split(folder, split, there)
        folder = folder / split
    state = folder / "state.json"
    if not state.is_file():
        return None
    entries = _json(state).get("_data_files")
    taken: list[Path] = []
    for entry in entries if isinstance(entries, list) else []:
        name = entry.get("filename") if isinstance(entry, dict) else None
        path = folder / name if isinstance(name, str) and name == Path(name).name else None
        if path is None or not path.is_file() or path.resolve().parent != folder.resolve():
            raise broken(
                folder, f"Its list names {one_line(str(name), 60)}, which is not in it.", "Save it again."
            )
        taken.append(path)
    return Manifest(folder, tuple(taken), ()) if taken else None


def _json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes()[: 16 * 1024 * 1024])
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise broken(path, "It is not valid JSON.", "Save the dataset again.") from error
    return value if isinstance(value, dict) else {}
