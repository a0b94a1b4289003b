"""The recipe's declared fields, as screens, help texts and docs need them: kind, bounds, choices, words."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import annotated_types
from pydantic.fields import FieldInfo

from .recipe import SECTIONS, Recipe

Kind = Literal["int", "float", "text", "flag", "choice", "choices", "texts", "pairs"]


@dataclass(frozen=True)
class FieldSpec:
    """One declared field, as screens and help texts need it. `path` is `section.name`.

    Of a field of kind `pairs`, `choices` are the names that may stand on the left (empty: any), and `minimum` and
    `maximum` bound the number on the right, or are None where it is text.
    """

    path: str
    title: str
    help: str
    explain: str
    unit: str
    advanced: bool
    kind: Kind
    default: Any
    optional: bool
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    minimum_excluded: bool = False
    pattern: str = ""
    """What a text must match; any text where it is empty. `form` says so in words."""
    form: str = ""

    @property
    def section(self) -> str:
        return self.path.split(".")[0]

    @property
    def allowed(self) -> str:
        """What the field takes, in words."""
        if self.kind == "flag":
            return "true or false"
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        if self.kind == "choices":
            return "some of " + ", ".join(self.choices)
        if self.kind == "text":
            return self.form or "text"
        if self.kind == "texts":
            return "a list of texts"
        if self.kind == "pairs":
            left = "one of " + ", ".join(self.choices) if self.choices else "a name"
            right = f"a number above 0 up to {self.maximum:g}" if self.maximum else "text"
            return f"pairs of {left} and {right}"
        noun = "a whole number" if self.kind == "int" else "a number"
        if self.minimum is None or self.maximum is None:
            return noun
        low = f"above {self.minimum:g}" if self.minimum_excluded else f"from {self.minimum:,.10g}"
        up_to = "up" if self.minimum_excluded else ""
        return f"{noun} {low} {up_to}".rstrip() + f" to {self.maximum:,.10g}"


def _unwrap(annotation: Any) -> tuple[Any, bool]:
    """The annotation without `None` and `Annotated`, and whether None was allowed."""
    optional = False
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        optional, annotation = True, inner[0]
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation, optional


def _names(annotation: Any) -> tuple[str, ...]:
    """The words of a Literal; none of another type."""
    return tuple(typing.get_args(annotation)) if typing.get_origin(annotation) is Literal else ()


def _spec(section: str, name: str, info: FieldInfo) -> FieldSpec:
    annotation, optional = _unwrap(info.annotation)
    choices: tuple[str, ...] = ()
    bounds = info.metadata
    kind: Kind
    if typing.get_origin(annotation) is Literal:
        kind, choices = "choice", tuple(str(a) for a in typing.get_args(annotation))
    elif typing.get_origin(annotation) is tuple:
        choices = _names(typing.get_args(annotation)[0])
        kind = "choices" if choices else "texts"
    elif typing.get_origin(annotation) is dict:
        kind = "pairs"
        left, right = typing.get_args(annotation)
        choices = tuple(typing.get_args(left)) if typing.get_origin(left) is Literal else ()
        if typing.get_args(right)[0] is float:
            bounds = [c for one in typing.get_args(right)[1:] for c in getattr(one, "metadata", (one,))]
    else:
        kinds: dict[Any, Kind] = {bool: "flag", int: "int", float: "float", str: "text"}
        kind = kinds[annotation]
    low = high = None
    excluded = False
    for constraint in bounds:
        if isinstance(constraint, annotated_types.Ge):
            low = float(constraint.ge)  # type: ignore[arg-type]
        elif isinstance(constraint, annotated_types.Gt):
            low, excluded = float(constraint.gt), True  # type: ignore[arg-type]
        elif isinstance(constraint, annotated_types.Le):
            high = float(constraint.le)  # type: ignore[arg-type]
    pattern = next((str(c.pattern) for c in bounds if getattr(c, "pattern", None)), "")
    extra: dict[str, Any] = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    return FieldSpec(
        path=f"{section}.{name}",
        title=info.title or name,
        help=info.description or "",
        explain=str(extra.get("explain", "")),
        unit=str(extra.get("unit", "")),
        advanced=bool(extra.get("advanced", False)),
        kind=kind,
        default=info.default,
        optional=optional,
        choices=choices,
        minimum=low,
        maximum=high,
        minimum_excluded=excluded,
        pattern=pattern,
        form=str(extra.get("form", "")),
    )


_SPECS: dict[str, FieldSpec] = {
    f"{section}.{name}": _spec(section, name, info)
    for section, model in SECTIONS.items()
    for name, info in model.model_fields.items()
}


def fields(section: str | None = None) -> tuple[FieldSpec, ...]:
    """All declared fields in order, or those of one step."""
    return tuple(s for s in _SPECS.values() if section is None or s.section == section)


def field(path: str) -> FieldSpec:
    """The field at `section.name`. Raises KeyError for any other path."""
    return _SPECS[path]


def get(recipe: Recipe, path: str) -> Any:
    """The recipe's value at `section.name`."""
    section, name = path.split(".")
    return getattr(getattr(recipe, section), name)
