"""Models that are on this machine: in the hub's cache, and in folders."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from . import hub, paths
from .errors import FinetuiError
from .model_files import check_links
from .model_folder import has_tokenizer, inspect_folder
from .text import one_line

MAX_CHILDREN = 2000
"""Entries of a folder that are looked at: the working folder may be anything."""

MAX_FILES = 20_000
_SIGNS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
_CUT_SHORT = "Its download is not whole: choosing it downloads the rest."


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine, or what looks like one and cannot be tuned (`problem` says why)."""

    source: str
    """What to write as model.source: a hub id or a path."""
    title: str
    kind: Literal["cache", "folder"]
    bytes: int
    """On the disk, everything of it."""
    parameters: int | None = None
    revision: str | None = None
    whole: bool = True
    """False where weight files are missing: a download that was cut short."""
    problem: str = ""
    """Why it cannot be tuned, in a sentence; empty where it can."""


def local_models(extra_folders: Iterable[Path] = ()) -> tuple[LocalModel, ...]:
    """What stands in the hub's cache, among the working folder's children, in the models' folder, and in
    `extra_folders` (models themselves, or folders of them). Blocking; raises nothing.

    Those that can be tuned come first, in each group by name. Folders that are nothing like a model are left out.
    """
    found: dict[str, LocalModel] = {}
    for model in _cached():
        found[model.source] = model
    seen: set[Path] = set()
    for parent in (Path.cwd(), paths.models(), *extra_folders):
        for place in (parent, *_children(parent)):
            try:
                real = place.resolve()
            except (OSError, RuntimeError):
                continue
            if real in seen:
                continue
            seen.add(real)
            if (model := _folder(place, place is parent)) is not None:
                found[str(place.absolute())] = model
    return tuple(sorted(found.values(), key=lambda m: (bool(m.problem), m.kind, m.title.lower(), m.source)))


def _children(folder: Path) -> list[Path]:
    try:
        children = [p for p in itertools.islice(folder.iterdir(), MAX_CHILDREN) if not p.name.startswith(".")]
    except (OSError, ValueError):
        return []
    return sorted(children)


def _cached() -> Iterable[LocalModel]:
    for root in _children(hub.cache_folder()):
        if not root.name.startswith("models--") or not root.is_dir():
            continue
        source = root.name.removeprefix("models--").replace("--", "/", 1)
        if not hub.is_id(source):
            continue
        snapshot = hub.cached_snapshot(source, "model") or next(iter(_children(root / "snapshots")), None)
        if snapshot is None:
            continue
        names = {p.name for p in _children(snapshot)}
        if not any(name.endswith((*_SIGNS, ".json")) for name in names):
            continue
        yield _looked_at(snapshot, source, source, "cache", _disk_bytes(root), snapshot.name, root)


def _folder(place: Path, is_parent: bool) -> LocalModel | None:
    """`place` as a model, or None where it is nothing like one. GGUFs in a parent folder are listed one by one."""
    try:
        if place.is_file():
            if place.suffix.lower() != ".gguf":
                return None
            size = place.stat().st_size
        elif place.is_dir():
            names = {p.name for p in itertools.islice(place.iterdir(), MAX_CHILDREN)}
            weights = any(name.lower().endswith(_SIGNS) for name in names)
            if not weights and not ({"config.json"} <= names and has_tokenizer(names)):
                return None
            if not names & {"config.json", "adapter_config.json"} and (
                is_parent or not any(name.lower().endswith(".gguf") for name in names)
            ):
                return None
            size = _disk_bytes(place)
        else:
            return None
    except (OSError, ValueError):
        return None
    return _looked_at(place, str(place.absolute()), place.name or str(place), "folder", size, None, None)


def _looked_at(
    folder: Path,
    source: str,
    title: str,
    kind: Literal["cache", "folder"],
    size: int,
    revision: str | None,
    cache: Path | None,
) -> LocalModel:
    made = LocalModel(source, one_line(title, 100), kind, size, revision=revision)
    try:
        if cache is not None:
            check_links(folder, hub.cache_folder(), title)
        facts = inspect_folder(folder, source, title, commit=revision)
    except FinetuiError as error:
        whole = error.code not in (
            "model-broken",
            "model-no-weights",
            "model-no-tokenizer",
            "model-not-a-model",
        )
        why = _CUT_SHORT if not whole and cache is not None else one_line(f"{error.what} {error.why}", 240)
        return replace(made, whole=whole, problem=why)
    except (OSError, ValueError) as error:
        return replace(made, whole=False, problem=one_line(f"It cannot be read: {error}.", 240))
    return replace(made, parameters=facts.parameters)


def _disk_bytes(folder: Path) -> int:
    """What the files under `folder` take; links are not followed, so that a blob counts once."""
    total = seen = 0
    for parent, _folders, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
            seen += 1
            if seen > MAX_FILES:
                return total
    return total
