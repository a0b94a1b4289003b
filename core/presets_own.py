"""Own presets: YAML files, one each, in the folder `presets` beside the runs; and every preset by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import atomic, paths
from .draft import Draft
from .errors import FinetuiError
from .presets import BUILT_IN, Preset, preset_paths
from .recipe import SECTIONS
from .recipe_file import plain, written
from .text import one_line

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
MAX_BYTES = 100_000


def folder() -> Path:
    """Where own presets are kept."""
    return paths.data() / "presets"


def check_name(name: str) -> str:
    """`name`, fit for an own preset. Raises FinetuiError (preset-name)."""
    bare = name.strip()
    if not NAME.fullmatch(bare):
        raise FinetuiError(
            f"{one_line(bare, 60)!r} cannot be a preset's name." if bare else "A preset needs a name.",
            "A name has 1 to 40 letters, digits, dots, hyphens and underscores, and starts with a letter or digit.",
            "Choose another one, such as support-tone.",
            code="preset-name",
        )
    if any(bare.lower() == preset.name for preset in BUILT_IN):
        raise FinetuiError(
            f"{bare} is one of finetui's own presets.",
            "Those cannot be replaced.",
            f"Choose another name, such as my-{bare.lower()}.",
            code="preset-name",
        )
    return bare


def exists(name: str) -> bool:
    """Whether an own preset of this name is kept."""
    return (folder() / f"{check_name(name)}.yaml").exists()


def save(preset: Preset, *, replace: bool = False) -> Path:
    """Keeps `preset` as an own one. Raises FinetuiError: preset-name, preset-exists, preset-disk."""
    name = check_name(preset.name)
    target = folder() / f"{name}.yaml"
    if target.exists() and not replace:
        raise FinetuiError(
            f"There is a preset {name} already.",
            "It was not touched.",
            "Replace it, or choose another name.",
            code="preset-exists",
        )
    sections: dict[str, Any] = {"why": preset.why}
    for path, value in preset.values.items():
        section, key = path.split(".")
        sections.setdefault(section, {})[key] = list(value) if isinstance(value, tuple) else value
    try:
        paths.private_dir(folder())
        atomic.write_text(target, written(sections))
    except OSError as error:
        raise FinetuiError(
            f"The preset {name} cannot be saved.",
            f"{target}: {error.strerror or error}.",
            "Free some space, or set FINETUI_HOME to a folder that you can write to.",
            code="preset-disk",
        ) from error
    return target


def delete(name: str) -> None:
    """Forgets an own preset. Raises FinetuiError: preset-name, preset-missing, preset-disk."""
    target = folder() / f"{check_name(name)}.yaml"
    try:
        target.unlink()
    except FileNotFoundError:
        raise _missing(name) from None
    except OSError as error:
        raise FinetuiError(
            f"The preset {name} cannot be deleted.",
            f"{target}: {error.strerror or error}.",
            code="preset-disk",
        ) from error


def own() -> tuple[tuple[Preset, ...], tuple[str, ...]]:
    """The own presets by name, and a sentence on each file that cannot be used."""
    try:
        files = sorted(path for path in folder().iterdir() if path.suffix == ".yaml" and path.name[:1] != ".")
    except OSError:
        return (), ()
    found, broken = [], []
    for path in files[:200]:
        try:
            found.append(read(path))
        except FinetuiError as error:
            broken.append(f"{one_line(path.name, 60)}: {error.why}")
    return tuple(found), tuple(broken)


def read(path: Path) -> Preset:
    """The own preset in the file at `path`. Raises FinetuiError (preset-broken) naming everything that is wrong."""
    name = path.stem

    def broken(why: str) -> FinetuiError:
        return FinetuiError(
            f"The preset {one_line(name, 60)} cannot be used.",
            why,
            f"Correct {path}, or delete it.",
            code="preset-broken",
        )

    try:
        check_name(name)
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FinetuiError as error:
        raise broken(error.what) from None
    except OSError as error:
        raise broken(f"{error.strerror or error}.") from error
    if len(raw) > MAX_BYTES:
        raise broken("It is larger than a preset can be.")
    try:
        data = plain(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise broken(f"It is no YAML of a recipe's kind: {one_line(str(error), 160)}") from None
    if not isinstance(data, dict):
        raise broken("It is no mapping of sections.")
    why, allowed, draft, wrong = data.pop("why", ""), set(preset_paths()), Draft(), []
    values: dict[str, Any] = {}
    for section, inner in data.items():
        for key, value in inner.items() if isinstance(inner, dict) else ((None, None),):
            place = f"{section}.{key}" if key is not None else str(section)
            if place not in allowed:
                wrong.append(f"{one_line(place, 60)} is no setting of a preset")
                continue
            problem = draft.set(place, tuple(value) if isinstance(value, list) else value)
            if problem:
                wrong.append(f"{place} {problem}")
            else:
                values[place] = getattr(SECTIONS[section].model_validate({key: draft[place]}), str(key))
    if wrong:
        raise broken("; ".join(wrong[:3]) + ("" if len(wrong) <= 3 else f"; and {len(wrong) - 3} more") + ".")
    return Preset(name, one_line(str(why), 300), values, own=True)


def every() -> tuple[Preset, ...]:
    """All presets, the built-in ones first."""
    return (*BUILT_IN, *own()[0])


def find(name: str) -> Preset:
    """The preset called `name`; spaces may stand for hyphens. Raises FinetuiError (preset-missing, preset-broken)."""
    wanted = name.strip().lower().replace(" ", "-")
    for preset in BUILT_IN:
        if preset.name == wanted:
            return preset
    path = folder() / f"{name.strip()}.yaml"
    if NAME.fullmatch(name.strip()) and path.exists():
        return read(path)
    raise _missing(name)


def _missing(name: str, known: Iterable[Preset] = ()) -> FinetuiError:
    names = [preset.name for preset in (known or every())]
    return FinetuiError(
        f"There is no preset {one_line(name, 60)!r}.",
        f"Presets: {', '.join(names)}.",
        "finetui presets shows what each of them sets.",
        code="preset-missing",
    )
