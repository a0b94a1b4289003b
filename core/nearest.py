"""The good value that is nearest to a wrong one."""

from __future__ import annotations

import difflib
import math
import re
from typing import Any

from pydantic import ValidationError

from .fields import FieldSpec
from .recipe import SECTIONS

_NUMBER = re.compile(r"([-+−]?(?:\d[\d,_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4})?)\s*([kKmM%]?)")


def nearest(spec: FieldSpec, value: Any) -> Any:
    """The value of the field's type that is nearest to `value`, typed or of any type; the default where nothing is near.

    Numbers are read out of what was typed (`0.5x`, `4k`, `5 %`) and brought into the bounds; of names the nearest is taken.
    """
    found = _found(spec, value)
    try:
        section, name = spec.path.split(".")
        SECTIONS[section].model_validate({name: found})
    except (ValidationError, ValueError, KeyError):
        return spec.default
    return found


def _found(spec: FieldSpec, value: Any) -> Any:
    if spec.kind in ("int", "float"):
        return _number(spec, value)
    if spec.kind == "choice":
        near = difflib.get_close_matches(str(value).lower(), spec.choices, n=1, cutoff=0.4)
        return near[0] if near else spec.default
    if spec.kind == "choices":
        words = value if isinstance(value, (tuple, list)) else re.split(r"[,\s]+", str(value))
        near = [difflib.get_close_matches(str(w).lower(), spec.choices, n=1, cutoff=0.5) for w in words]
        chosen = {n[0] for n in near if n}
        return tuple(c for c in spec.choices if c in chosen) or spec.default
    return spec.default


def _number(spec: FieldSpec, value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e300 else math.copysign(1e300, value)
    else:
        read = _NUMBER.search(str(value)[:200])
        if read is None:
            return spec.default
        digits, suffix = read.groups()
        number = float(digits.replace(",", "").replace("_", "").replace("−", "-"))
        thousand = 1024 if spec.unit == "tokens" else 1000
        number *= {"k": thousand, "m": thousand**2, "%": 0.01, "": 1}[suffix.lower()]
    if math.isnan(number):
        return spec.default
    if spec.minimum is not None and spec.minimum_excluded and number <= spec.minimum:
        return spec.default
    number = max(number, spec.minimum if spec.minimum is not None else number)
    number = min(number, spec.maximum if spec.maximum is not None else number)
    return round(number) if spec.kind == "int" else number
