"""`--set` reaches every field, and a commented recipe reads back as the same recipe."""

from __future__ import annotations

from typing import Any

import pytest

from finetui.core.demo.recipe import demo_recipe
from finetui.core.errors import RecipeError
from finetui.core.fields import FieldSpec, fields, get
from finetui.core.recipe import Recipe
from finetui.core.recipe_file import parse
from finetui.tui.commands.recipes import changed, commented


def other(spec: FieldSpec) -> tuple[str, Any]:
    """A value that is not the default, as typed and as kept."""
    if spec.kind == "flag":
        return ("false", False) if spec.default else ("true", True)
    if spec.kind == "choice":
        value = next(c for c in spec.choices if c != spec.default)
        return value, value
    if spec.kind == "choices":
        return f"{spec.choices[1]},{spec.choices[0]}", (spec.choices[1], spec.choices[0])
    if spec.kind == "int":
        value = int(spec.minimum or 0) + 5
        return str(value), value
    if spec.kind == "float":
        value = (spec.maximum or 1.0) / 4
        return repr(value), value
    if spec.kind == "pairs":
        left = spec.choices[0] if spec.choices else "a.csv"
        return (f"{left} = 2", {left: 2.0}) if spec.maximum else (f"{left} = b", {left: "b"})
    if spec.pattern:
        return "40", "40"
    if spec.kind == "texts":
        return "a = b; c", ("a = b", "c")
    return "a = b", "a = b"


@pytest.mark.parametrize("spec", fields(), ids=lambda spec: spec.path)
def test_every_field_is_reached(spec: FieldSpec) -> None:
    typed, kept = other(spec)
    after = changed(Recipe(), [f"{spec.path}={typed}"])
    assert get(after, spec.path) == kept != spec.default
    assert [s.path for s in fields() if get(after, s.path) != s.default] == [spec.path]
    if spec.optional:
        assert get(changed(after, [f"{spec.path}="]), spec.path) is None


def test_later_settings_win_and_none_changes_nothing() -> None:
    assert changed(Recipe(), None) == Recipe()
    assert changed(Recipe(), ["lora.rank=4", "lora.rank=8", "name=x"]).lora.rank == 8


def test_every_bad_setting_is_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        changed(Recipe(), ["lora.rank=0", "rank=3", "epochs", "lora.alpha=x"])
    assert len(caught.value.problems) == 4
    assert "did you mean lora.rank?" in caught.value.problems[1]


@pytest.mark.parametrize("recipe", [Recipe(), demo_recipe()], ids=["defaults", "demo"])
def test_a_commented_recipe_reads_back(recipe: Recipe) -> None:
    text = commented(recipe)
    assert parse(text) == recipe
    for spec in fields():
        assert f"# {spec.help}" in text


def test_text_of_many_lines_gets_no_comments_inside() -> None:
    recipe = changed(Recipe(), ["dataset.system_prompt=one\n  rank: 3\nmodel:\n  source: x"])
    assert parse(commented(recipe)) == recipe
