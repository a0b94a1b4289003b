"""The draft: the recipe while it is being made, with whatever has been typed so far, right or wrong."""

from __future__ import annotations

import contextlib
import errno
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from . import atomic, paths
from .errors import FinetuiError, RecipeError
from .fields import FieldSpec, field, fields, get
from .recipe import SECTIONS, Recipe
from .recipe_file import sentences

_PART = r'("(?:[^"\\]|\\.)*"|[^;="]+)'
_PAIR = re.compile(rf"\s*{_PART}\s*=\s*{_PART}\s*(?:;|$)")
_ITEM = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^;"]*)\s*(?:;|$)')
_TRUE, _FALSE = ("true", "on", "yes"), ("false", "off", "no")


def _from_text(spec: FieldSpec, text: str) -> Any:
    """What was typed, as the field's kind where it can be read as such; otherwise the text itself."""
    bare = text.strip()
    if spec.optional and not bare:
        return None
    if spec.kind == "int":
        with contextlib.suppress(ValueError):
            return int(bare.replace(",", "").replace("_", ""))
    if spec.kind == "float":
        with contextlib.suppress(ValueError):
            return float(bare)
    if spec.kind == "flag" and bare.lower() in _TRUE + _FALSE:
        return bare.lower() in _TRUE
    if spec.kind == "choices":
        return tuple(part for part in bare.replace(",", " ").split() if part)
    if spec.kind == "texts":
        return _texts(bare)
    if spec.kind == "pairs":
        return _pairs(spec, bare)
    return text if spec.kind == "text" else bare


def _pairs(spec: FieldSpec, text: str) -> dict[str, Any] | str:
    """`name = value; name = value` as a mapping, or the text itself where it is not written so."""
    pairs: dict[str, Any] = {}
    at = 0
    while at < len(text):
        found = _PAIR.match(text, at)
        if found is None:
            return text
        try:
            name, value = (json.loads(p) if p.startswith('"') else p.strip() for p in found.groups())
        except ValueError:  # a backslash that JSON does not know
            return text
        if not name or name in pairs:
            return text
        pairs[name] = value
        if spec.maximum is not None:
            with contextlib.suppress(ValueError):
                pairs[name] = float(value)
        at = found.end()
    return pairs


def _texts(text: str) -> tuple[str, ...] | str:
    """`one; another; "with; a semicolon"` as texts, or the text itself where a quotation is not closed."""
    found: list[str] = []
    at = 0
    while at < len(text):
        match = _ITEM.match(text, at)
        if match is None:
            return text
        part = match[1].strip()
        try:
            part = json.loads(part) if part.startswith('"') else part
        except ValueError:
            return text
        if part:
            found.append(part)
        at = match.end()
    return tuple(found)


def texts_text(texts: Sequence[str]) -> str:
    """Texts as they are typed: `one; another`. What would be misread stands in quotes, as in JSON."""
    return "; ".join(
        json.dumps(t, ensure_ascii=False) if any(c in t for c in ';"\\\n\t') or t != t.strip() else t
        for t in texts
    )


def pairs_text(pairs: Mapping[str, Any]) -> str:
    """A mapping as it is typed: `name = value; name = value`. What would be misread stands in quotes, as in JSON."""

    def written(part: Any) -> str:
        if isinstance(part, float):
            return f"{part:g}" if float(f"{part:g}") == part else repr(part)
        awkward = any(c in part for c in ';="\\\n\t') or part != part.strip() or not part
        return json.dumps(part, ensure_ascii=False) if awkward else part

    return "; ".join(f"{written(name)} = {written(value)}" for name, value in pairs.items())


class Draft:
    """Values by field path. A value that is wrong stays, with its sentence in `problems`, until it is mended."""

    def __init__(self, recipe: Recipe | None = None) -> None:
        recipe = recipe or Recipe()
        self.name: str = recipe.name
        self._values: dict[str, Any] = {spec.path: get(recipe, spec.path) for spec in fields()}
        self._problems: dict[str, str] = {}

    def __getitem__(self, path: str) -> Any:
        """The value at `section.name`: of the field's type, or the text as typed where that is wrong."""
        return self._values[path]

    def text(self, path: str) -> str:
        """The value as an input shows it; empty for None."""
        value = self._values[path]
        if value is None:
            return ""
        if isinstance(value, tuple):
            return texts_text(value) if field(path).kind == "texts" else ", ".join(value)
        if isinstance(value, dict):
            return pairs_text(value)
        if isinstance(value, bool):
            return "true" if value else "false"
        return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)

    def set(self, path: str, value: Any) -> str | None:
        """Takes `value`, typed text or a value of the field's type. Returns what is wrong with it, or None."""
        spec = field(path)
        self._values[path] = _from_text(spec, value) if isinstance(value, str) else value
        section, name = path.split(".")
        try:
            taken = SECTIONS[section].model_validate({name: self._values[path]})
        except ValidationError as error:
            (_, sentence), *_ = sentences(error, section)
            self._problems[path] = sentence.removeprefix(path).strip()
            return self._problems[path]
        if spec.kind == "choices":  # words for groups are written out
            self._values[path] = getattr(taken, name)
        self._problems.pop(path, None)
        return None

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong now, by field path."""
        return dict(self._problems)

    @property
    def changed(self) -> tuple[str, ...]:
        """Paths whose value is not the default."""
        return tuple(spec.path for spec in fields() if self._values[spec.path] != spec.default)

    def recipe(self) -> Recipe:
        """The recipe that this draft is. Raises RecipeError naming every problem."""
        data: dict[str, Any] = {"name": self.name}
        for path, value in self._values.items():
            section, name = path.split(".")
            data.setdefault(section, {})[name] = value
        try:
            return Recipe.model_validate(data)
        except ValidationError as error:
            problems = tuple(sentence for _, sentence in sentences(error))
            raise RecipeError(
                "The settings are not complete.", problems, "Correct them on their step."
            ) from None

    def replace(self, recipe: Recipe) -> None:
        """Takes over every value of `recipe`."""
        self.__init__(recipe)

    def dump(self) -> str:
        """The draft as YAML, wrong values included."""
        sections: dict[str, Any] = {"name": self.name}
        for path, value in self._values.items():
            section, name = path.split(".")
            sections.setdefault(section, {})[name] = list(value) if isinstance(value, tuple) else value
        return yaml.safe_dump(sections, sort_keys=False)

    def save(self, path: Path | None = None) -> None:
        """Writes the draft whole. Raises FinetuiError where the disk does not take it."""
        target = path or paths.draft()
        try:
            paths.private_dir(target.parent)
            atomic.write_text(target, self.dump())
        except OSError as error:
            raise FinetuiError(
                "The draft cannot be saved.",
                f"{target}: {error.strerror or error}.",
                "Your settings stay in this window. "
                + (
                    "Free some space; the next change saves again."
                    if error.errno in (errno.ENOSPC, errno.EDQUOT)
                    else "Set FINETUI_HOME to a folder that you can write to."
                ),
                code="draft",
            ) from error

    @classmethod
    def load(cls, path: Path | None = None) -> Draft | None:
        """The saved draft, or None where there is none. What a damaged file still holds is kept; the rest is default."""
        try:
            data = yaml.safe_load((path or paths.draft()).read_bytes()[:1_000_000])
        except (OSError, yaml.YAMLError, RecursionError, ValueError):
            return None
        if not isinstance(data, dict):
            return None
        draft = cls()
        if isinstance(data.get("name"), str):
            with contextlib.suppress(ValidationError):
                draft.name = Recipe(name=data["name"]).name
        for spec in fields():
            section, name = spec.path.split(".")
            values = data.get(section)
            if isinstance(values, dict) and name in values:
                value = values[name]
                if spec.kind in ("choices", "texts") and isinstance(value, list):
                    value = tuple(str(v) for v in value)
                if value is None or isinstance(value, (str, int, float, bool, tuple, dict)):
                    draft.set(spec.path, value)
        return draft
