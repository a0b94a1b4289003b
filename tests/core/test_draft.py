"""The draft keeps what was typed, right or wrong, and becomes a recipe when all of it is right."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetui.core.draft import Draft
from finetui.core.errors import RecipeError
from finetui.core.fields import fields, get
from finetui.core.recipe import Recipe

from .test_recipe_file import RECIPES


@given(RECIPES)
def test_every_recipe_can_be_typed_and_comes_back(recipe: Recipe) -> None:
    shown = Draft(recipe)
    typed = Draft()
    typed.name = recipe.name
    for spec in fields():
        if spec.kind == "text":
            assert typed.set(spec.path, get(recipe, spec.path)) is None
        else:
            assert typed.set(spec.path, shown.text(spec.path)) is None, spec.path
    assert typed.recipe() == recipe


@given(RECIPES)
def test_a_saved_draft_comes_back_whole(recipe: Recipe) -> None:
    draft = Draft(recipe)
    draft.set("lora.rank", "many")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "draft.yaml"
        draft.save(path)
        loaded = Draft.load(path)
    assert loaded is not None
    assert loaded.dump() == draft.dump()
    assert loaded.problems == draft.problems


@pytest.mark.parametrize(
    ("path", "typed", "words"),
    [
        ("lora.rank", "0", "from 1 to 1,024"),
        ("lora.rank", "eight", "a whole number"),
        ("lora.rank", "", "a whole number"),
        ("training.learning_rate", "2", "above 0 up to 0.1"),
        ("training.learning_rate", "nan", "number"),
        ("training.max_steps", "-1", "or null"),
        ("lora.target_modules", "q_proj, x_proj", "some of"),
        ("lora.target_modules", "", "at least one"),
        ("model.source", "", "must not be empty"),
    ],
)
def test_a_wrong_value_stays_with_its_sentence(path: str, typed: str, words: str) -> None:
    draft = Draft()
    sentence = draft.set(path, typed)
    assert sentence is not None
    assert words in sentence
    assert draft.problems == {path: sentence}
    with pytest.raises(RecipeError):
        draft.recipe()
    spec = next(s for s in fields() if s.path == path)
    assert draft.set(path, spec.default) is None
    assert draft.recipe() == Recipe()


@pytest.mark.parametrize("typed", ["1,024", "1_024", " 1024 "])
def test_numbers_as_people_write_them(typed: str) -> None:
    draft = Draft()
    assert draft.set("model.max_length", typed) is None
    assert draft.recipe().model.max_length == 1024


@given(st.binary(max_size=300))
def test_a_damaged_file_gives_a_draft_or_none(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "draft.yaml"
        path.write_bytes(raw)
        draft = Draft.load(path)
    assert draft is None or isinstance(draft.text("lora.rank"), str)


@pytest.mark.parametrize("value", [[1], {"a": 1}, "x" * 5000])
def test_a_value_of_a_wrong_kind_is_left_out_or_marked(tmp_path: Path, value: Any) -> None:
    import yaml

    path = tmp_path / "draft.yaml"
    path.write_text(yaml.safe_dump({"lora": {"rank": value, "alpha": 8}, "foreign": 3}))
    draft = Draft.load(path)
    assert draft is not None
    assert draft["lora.alpha"] == 8
    assert draft["lora.rank"] == 16 or "lora.rank" in draft.problems
