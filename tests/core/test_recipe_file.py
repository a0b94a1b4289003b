"""The recipe's YAML: exact round trips, and errors that name key, line and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetui.core import recipe_file
from finetui.core.errors import FinetuiError, RecipeError
from finetui.core.fields import FieldSpec, fields
from finetui.core.recipe import SECTIONS, Recipe

PRINTABLE = st.text(st.characters(exclude_categories=["C"], include_characters="\n\t"), max_size=40)


def values(spec: FieldSpec) -> st.SearchStrategy[Any]:
    """Any allowed value of a field."""
    if spec.kind == "flag":
        found: st.SearchStrategy[Any] = st.booleans()
    elif spec.kind == "choice":
        found = st.sampled_from(spec.choices)
    elif spec.kind == "choices":
        least = 1 if spec.default else 0
        found = st.lists(st.sampled_from(spec.choices), min_size=least, unique=True).map(tuple)
    elif spec.pattern:
        found = st.from_regex(spec.pattern, fullmatch=True)
    elif spec.kind == "text":
        found = PRINTABLE.filter(lambda t: all(c.isprintable() or c in "\n\t" for c in t) and t.strip())
    elif spec.kind == "texts":
        words = PRINTABLE.filter(lambda t: all(c.isprintable() or c in "\n\t" for c in t) and t.strip())
        found = st.lists(words, max_size=4, unique=True).map(tuple)
    elif spec.kind == "pairs":
        words = PRINTABLE.filter(lambda t: all(c.isprintable() or c in "\n\t" for c in t) and t.strip())
        left = st.sampled_from(spec.choices) if spec.choices else words
        right: st.SearchStrategy[Any] = (
            words if spec.maximum is None else st.floats(spec.minimum, spec.maximum, exclude_min=True)
        )
        found = st.dictionaries(left, right, min_size=1, max_size=4)
    elif spec.kind == "int":
        assert spec.minimum is not None and spec.maximum is not None
        found = st.integers(int(spec.minimum), int(spec.maximum))
    else:
        found = st.floats(spec.minimum, spec.maximum, exclude_min=spec.minimum_excluded)
    return st.none() | found if spec.optional else found


RECIPES = st.builds(
    Recipe,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", fullmatch=True),
    **{
        name: st.fixed_dictionaries({s.path.split(".")[1]: values(s) for s in fields(name)}).map(
            lambda kept, model=model: model.model_validate(kept)
        )
        for name, model in SECTIONS.items()
    },
)


@given(RECIPES)
def test_a_recipe_survives_its_file_exactly(recipe: Recipe) -> None:
    assert recipe_file.parse(recipe_file.dump(recipe)) == recipe


@given(st.text(max_size=300) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_text_is_a_recipe_or_a_clear_refusal(text: str) -> None:
    try:
        recipe_file.parse(text)
    except RecipeError as error:
        assert error.problems and all("\n" not in p for p in error.problems)


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("lora:\n  rnk: 8\n", 2, ["lora.rnk", "did you mean rank?"]),
        ("lora:\n  learning_rate: 1e-4\n", 2, ["belongs under training"]),
        ("rank: 8\n", 1, ["rank is not a recipe key", "belongs under lora"]),
        ("modle:\n  source: demo\n", 1, ["did you mean model?"]),
        ("lora:\n  rank: 0\n", 2, ["lora.rank", "from 1 to 1,024", "is 0"]),
        ("lora:\n  rank: '8'\n", 2, ["lora.rank", "a whole number", "'8'"]),
        ("lora:\n  rank: 8.5\n", 2, ["a whole number"]),
        ("training:\n\n  learning_rate: 2\n", 3, ["training.learning_rate", "above 0 up to 0.1"]),
        ("training:\n  learning_rate: .nan\n", 2, ["training.learning_rate"]),
        ("training:\n  schedule: cosin\n", 2, ["linear, cosine, ", "did you mean cosine?"]),
        ("export:\n  formats: [adapter, gguf_q4]\n", 2, ["gguf_q4_k_m"]),
        ("export:\n  formats: []\n", 2, ["at least one"]),
        ("export:\n  formats: [adapter, adapter]\n", 2, ["twice"]),
        ("lora:\n  rslora: yes\n", 2, ["true or false", "'yes'"]),
        ("version: 2\n", 1, ["newer", "update finetui"]),
        ("version: zero\n", 1, ["version must be 1"]),
        ("export:\n  checkpoint: newest\n", 2, ["export.checkpoint", "result, last, best or the step"]),
        ("name: ../evil\n", 1, ["letters, digits"]),
        ("lora: 5\n", 1, ["lora must be a section"]),
        ("- a\n- b\n", 1, ["mapping"]),
        ("lora:\n  rank: 8\n  rank: 9\n", 3, ["second time"]),
        ("lora:\n rank: [\n", 3, ["no YAML"]),
        ("a: &x [1]\nb: *x\n", 1, ["aliases"]),
        ("name: !!python/object/apply:os.system [ls]\n", 1, ["tag"]),
        ("model:\n  revision: ' '\n", 2, ["white space"]),
        ("model:\n  source: ''\n", 2, ["must not be empty"]),
        ('model:\n  source: "a\\x1bb"\n', 2, ["control character"]),
    ],
)
def test_each_mistake_is_named_with_its_line(text: str, line: int, parts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_file.parse(text, "r.yaml")
    (problem,) = caught.value.problems
    assert problem.startswith(f"r.yaml:{line}: "), problem
    for part in parts:
        assert part in problem


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_file.parse("lora:\n  rank: 0\n  alfa: 3\ntraining:\n  epochs: -1\n")
    assert [p.split(":")[1] for p in caught.value.problems] == ["2", "3", "5"]


def test_numbers_read_as_people_write_them() -> None:
    recipe = recipe_file.parse("training:\n  learning_rate: 1e-3\n  epochs: 2\nlora:\n")
    assert recipe.training.learning_rate == 1e-3
    assert recipe.training.epochs == 2.0


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(RecipeError):
        recipe_file.parse("a: " + "[" * 5000)


def test_a_missing_binary_or_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FinetuiError, match="cannot be read"):
        recipe_file.load(tmp_path / "none.yaml")
    for name, content in (("binary", b"\xff\xfe\x00\x01"), ("huge", b"#" * 2_000_000)):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(RecipeError, match="not a recipe"):
            recipe_file.load(path)


def test_the_file_holds_every_field_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    recipe_file.save(Recipe(), path)
    text = path.read_text()
    for spec in fields():
        assert f"  {spec.path.split('.')[1]}:" in text
    assert path.stat().st_mode & 0o077 == 0
    assert recipe_file.load(path) == Recipe()


def test_the_schema_describes_every_field() -> None:
    schema = recipe_file.schema()
    for spec in fields():
        model = SECTIONS[spec.section].__name__
        declared = schema["$defs"][model]["properties"][spec.path.split(".")[1]]
        assert declared["description"] == spec.help
        assert declared["explain"] == spec.explain


def test_every_field_explains_itself() -> None:
    for spec in fields():
        assert spec.title and spec.help and spec.explain, spec.path
        assert len(spec.help) <= 100, spec.path
        assert len(spec.title) <= 16, spec.path


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("columns: {usr: question}", "recipe:2: dataset.columns has no usr; did you mean user?"),
        ("columns: {user: 3}", "recipe:2: dataset.columns, user, is 3; columns takes pairs of one of"),
        (
            "mix: {faq.csv: -1}",
            "recipe:2: dataset.mix, faq.csv, is -1; mixed with takes pairs of a name and a number",
        ),
        (
            "mix: faq.csv",
            "recipe:2: dataset.mix must be pairs of a name and a number above 0 up to 100 or null",
        ),
    ],
)
def test_a_wrong_pair_is_named(line: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_file.parse(f"dataset:\n  {line}\n")
    assert caught.value.problems[0].startswith(says), caught.value.problems


@pytest.mark.parametrize(
    "text",
    [
        "# mine\nname: a  # b\ntraining:\n  # why eight\n  batch_size: 8  # fits\n  epochs: 2.0\nlora: # c\n    rank: 8\n",
        "# mine\r\ntraining: {batch_size: 8, packing: false}\r\nmodel: {source: x} # d\r\n",
        "# mine\nmodel:\n  source: x",
        "training: {}\nlora:\n  gradient_checkpointing: true   # e",
    ],
)
def test_only_the_fields_that_change_are_written(text: str) -> None:
    before = recipe_file.parse(text)
    after = Recipe.model_validate(
        before.model_dump()
        | {
            "model": {**before.model.model_dump(), "precision": "4bit"},
            "lora": {**before.lora.model_dump(), "gradient_checkpointing": False},
            "training": {**before.training.model_dump(), "batch_size": 2, "packing": True},
        }
    )
    written = recipe_file.edited(text, before, after)
    assert written is not None and recipe_file.parse(written) == after
    rest = iter(written)  # all that stood there still does, in its order, but for the values
    assert all(letter in rest for letter in text.replace("8", "").replace("false", "").replace("true", ""))
    assert recipe_file.edited(text, before, before) == text


@given(RECIPES, RECIPES)
def test_what_is_written_in_place_is_the_new_recipe_or_nothing(before: Recipe, after: Recipe) -> None:
    written = recipe_file.edited(recipe_file.dump(before), before, after)
    assert written is None or recipe_file.parse(written) == after
