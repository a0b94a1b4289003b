"""A recipe on disk: one YAML file, read strictly, with errors that name the key, the line and what is allowed.

The YAML is the part that people write: mappings, lists, text, numbers, true, false and null, as YAML 1.2 reads them (so
`1e-3` is a number and `on` is text). Aliases, tags and repeated keys are refused: a recipe has no use for them, and a
few lines of aliases can unfold into gigabytes.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from . import atomic
from .errors import FinetuiError, RecipeError
from .fields import field
from .recipe import SECTIONS, STEPS, VERSION, Recipe
from .text import one_line

MAX_BYTES = 1_000_000
_MAX_DEPTH = 8
_TOP_KEYS = ("version", "name", *STEPS)

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class _Loader(yaml.SafeLoader):
    """Only used to compose nodes; scalars are read by `_scalar`."""


class _Dumper(yaml.SafeDumper):
    """Writes plain only what `_scalar` reads back as the same text."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)

    def represent_text(self, data: str) -> yaml.ScalarNode:
        plain = not isinstance(_plain_scalar(data), str) or data != data.strip() or not data
        awkward = any(c in data for c in "\x85\u2028\u2029\ufeff\t") or (" \n" in data)
        style = '"' if plain or awkward else ("|" if "\n" in data else None)
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_number(self, data: float) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:float", repr(data))


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(float, _Dumper.represent_number)
# A float such as `1e-05` is no float to YAML 1.1, and would be written with a tag.
_Dumper.yaml_implicit_resolvers = {k: list(v) for k, v in _Dumper.yaml_implicit_resolvers.items()}
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+0123456789.")
)


@dataclass(frozen=True)
class _Problem(Exception):
    line: int
    message: str


def _plain_scalar(text: str) -> Any:
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INT.fullmatch(text):
        return int(text) if len(text) <= 100 else text
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "").lower())
    return text


def _read(node: yaml.Node, path: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]) -> Any:
    """`node` as plain data; `lines` gets the line of every path in it."""
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(path) > _MAX_DEPTH:
        raise _Problem(line, "nested too deeply for a recipe")
    if isinstance(node, yaml.ScalarNode):
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise _Problem(line, f"the tag {one_line(node.tag, 40)} is not for recipes")
        return _plain_scalar(node.value) if node.style is None else node.value
    if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        raise _Problem(line, f"the tag {one_line(node.tag, 40)} is not for recipes")
    if isinstance(node, yaml.SequenceNode):
        return [_read(child, (*path, i), lines) for i, child in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise _Problem(key_line, "a key must be a word")
        key = key_node.value
        if key in result:
            raise _Problem(key_line, f"{one_line(key, 40)} stands here for the second time")
        lines[(*path, key)] = key_line
        result[key] = _read(value_node, (*path, key), lines)
    return result


def _compose(text: str, lines: dict[tuple[str | int, ...], int]) -> Any:
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Problem(event.start_mark.line + 1, "aliases (& and *) are not for recipes")
    node = yaml.compose(text, Loader=_Loader)
    return {} if node is None else _read(node, (), lines)


def _nearest(word: str, choices: tuple[str, ...]) -> str:
    """A ` — did you mean …?` where one of `choices` is near, and all of them otherwise."""
    near = difflib.get_close_matches(word.lower(), choices, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(choices)}"


def _elsewhere(word: str, section: str) -> str:
    """Where a key is right in another section, says so."""
    other = next((s for s, m in SECTIONS.items() if s != section and word in m.model_fields), None)
    return f"; it belongs under {other}" if other else ""


def _sentence(error: Any, loc: tuple[str | int, ...]) -> str:
    """One pydantic error at `loc` as a sentence about a key, without the line."""
    key = ".".join(str(part) for part in loc)
    kind = error["type"]
    if kind == "extra_forbidden":
        word = str(loc[-1])
        section = str(loc[0]) if len(loc) > 1 else ""
        names = tuple(SECTIONS[section].model_fields) if section in SECTIONS else _TOP_KEYS
        where = _elsewhere(word, section)
        if not section and not where:
            near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
            where = f"; did you mean {near[0]}?" if near else ""
        return f"{one_line(key, 60)} is not a recipe key{where or _nearest(word, names)}"
    got = one_line(repr(error["input"]), 60)
    if loc == ("name",):
        return f"name must be 1 to 60 letters, digits, dots, dashes or underscores, and is {got}"
    if len(loc) == 1:
        return f"{key} must be a section with keys below it, and is {got}"
    spec = field(".".join(str(p) for p in loc[:2]))
    if spec.kind == "pairs" and len(loc) > 2:
        key = f"{spec.path}, {one_line(str(loc[2]), 60)},"
        if loc[-1] == "[key]" and spec.choices:
            return f"{spec.path} has no {one_line(str(loc[2]), 60)}{_nearest(str(loc[2]), spec.choices)}"
        return f"{key} is {got}; {spec.title.lower()} takes {spec.allowed}"
    if len(loc) > 2 or kind == "literal_error":
        word = str(error["input"])
        near = difflib.get_close_matches(word.lower(), spec.choices, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{spec.path} must be {spec.allowed}, and is {got}{hint}"
    if kind == "value_error":
        return f"{spec.path} {error['msg'].removeprefix('Value error, ')}"
    if kind == "too_short":
        return f"{spec.path} must name at least one of {', '.join(spec.choices)}"
    if kind == "string_too_long":
        return f"{spec.path} is longer than {error['ctx']['max_length']:,} characters"
    if kind == "string_too_short":
        return f"{spec.path} must not be empty"
    empty = " or null" if spec.optional else ""
    allowed = spec.allowed + (f" {spec.unit}" if spec.unit and spec.kind in ("int", "float") else "")
    return f"{spec.path} must be {allowed}{empty}, and is {got}"


def sentences(error: ValidationError, *section: str) -> list[tuple[tuple[str | int, ...], str]]:
    """Each problem of a failed validation as (path, sentence). `section` is given where it was validated alone."""
    located = [(e, (*section, *e["loc"])) for e in error.errors(include_url=False)]
    return [(loc, _sentence(e, loc)) for e, loc in located]


def parse(text: str, where: str = "recipe") -> Recipe:
    """The recipe that `text` holds. `where` names the file in messages.

    Raises RecipeError whose `problems` are one line each: `where:line: key … allowed … nearest name`.
    """
    lines: dict[tuple[str | int, ...], int] = {}

    def refuse(problems: list[tuple[int, str]]) -> RecipeError:
        count = len(problems)
        what = f"{where} is not a usable recipe: {count} {'problem' if count == 1 else 'problems'}."
        return RecipeError(what, tuple(f"{where}:{line}: {message}" for line, message in sorted(problems)))

    try:
        data = _compose(text, lines)
    except _Problem as problem:
        raise refuse([(problem.line, problem.message)]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise refuse(
            [(mark.line + 1 if mark else 1, f"no YAML: {one_line(str(error.problem), 120)}")]
        ) from None
    except yaml.YAMLError as error:  # characters that YAML does not take
        raise refuse([(1, f"no YAML: {one_line(str(error), 120)}")]) from None
    except RecursionError:
        raise refuse([(1, "nested too deeply for a recipe")]) from None
    if not isinstance(data, dict):
        raise refuse([(1, f"a recipe is a mapping with the keys {', '.join(_TOP_KEYS)}")])
    version = data.get("version", VERSION)
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        message = f"version {version} is newer than this finetui reads ({VERSION}); update finetui"
        raise refuse([(lines[("version",)], message)])
    if version != VERSION or isinstance(version, bool):
        raise refuse(
            [(lines[("version",)], f"version must be {VERSION}, and is {one_line(repr(version), 40)}")]
        )
    for section in STEPS:  # `training:` with nothing below it is an empty section
        if section in data and data[section] is None:
            data[section] = {}
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        found = []
        for path, sentence in sentences(error):
            line = next(lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines)
            found.append((line, sentence))
        raise refuse(found) from None


def load(path: Path) -> Recipe:
    """The recipe in the file at `path`. Raises RecipeError, or FinetuiError where the file cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FinetuiError(
            f"The recipe {path} cannot be read.",
            f"{error.strerror or error}.",
            "Check the path, or make one with: finetui recipe init",
            code="recipe-missing",
        ) from error
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{path} is not a recipe.", (f"{path}:1: larger than a recipe can be (1 MB)",))
    try:
        return parse(raw.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is not a recipe.", (f"{path}:1: not a UTF-8 text file",)) from None


def dump(recipe: Recipe) -> str:
    """`recipe` as YAML with every field written out; `parse(dump(r)) == r` for every recipe."""
    return written(recipe.model_dump(mode="json"))


def plain(text: str) -> Any:
    """What a text of a recipe's kind of YAML holds, not yet checked as a recipe. Raises ValueError with the line."""
    try:
        return _compose(text, {})
    except _Problem as problem:
        raise ValueError(f"line {problem.line}: {problem.message}") from None
    except yaml.YAMLError as error:
        raise ValueError(one_line(str(error), 160)) from None


def written(data: dict[str, Any]) -> str:
    """Plain data as YAML of the same kind; `plain` reads it back."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def edited(text: str, before: Recipe, after: Recipe) -> str | None:
    """`text`, which holds `before`, so that it holds `after`: only the fields that differ are written, and all else stays,
    comments too. None where that cannot be done in place."""
    root, edits, absent = yaml.compose(text, Loader=_Loader), list[tuple[int, int, str]](), ""
    for section in STEPS:
        old, new = (getattr(recipe, section).model_dump(mode="json") for recipe in (before, after))
        inner, missing = _child(root, section), ""
        for name, value in new.items():
            if value == old[name]:
                continue
            row = written({name: value}).rstrip("\n")
            found = _child(inner, name)
            if found is not None:
                edits.append((found.start_mark.index, found.end_mark.index, row.removeprefix(f"{name}: ")))
            elif isinstance(inner, yaml.MappingNode):
                at = inner.start_mark.index + bool(inner.flow_style)
                end = ", " if inner.flow_style else "\n" + " " * inner.start_mark.column
                edits.append((at, at, row + end))
            else:
                missing += f"  {row}\n"
        absent += f"\n{section}:\n{missing}" if missing else ""
    for begin, end, words in sorted(edits, reverse=True):
        text = text[:begin] + words + text[end:]
    text = text.rstrip("\n") + "\n" + absent if absent else text
    try:
        return text if parse(text) == after else None
    except RecipeError:
        return None


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for name, value in pairs if name.value == key), None)


def save(recipe: Recipe, path: Path) -> None:
    """Writes `recipe` whole to `path`."""
    atomic.write_text(path, dump(recipe))


def schema() -> dict[str, Any]:
    """The recipe's JSON schema (draft 2020-12), for editors that complete and check YAML."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
