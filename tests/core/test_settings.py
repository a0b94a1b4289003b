"""Advice, outcomes, presets and the history: what the settings say of themselves is true, and every change comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from finetui.core import (
    advice,
    advice_here,
    fit_task,
    lora,
    memory,
    outcome,
    pace,
    presets,
    presets_own,
    training,
)
from finetui.core.draft import Draft
from finetui.core.errors import FinetuiError
from finetui.core.fields import field, fields
from finetui.core.history import History
from finetui.core.lengths import Lengths
from finetui.core.memory_shape import from_facts
from finetui.core.model_fit import stand_in
from finetui.core.nearest import nearest
from finetui.core.recipe import TARGET_MODULES, Recipe
from finetui.core.recipe_lora import modules_here
from finetui.core.system import Gpu, Machine
from finetui.tui.wizard import Wizard

from .test_recipe_file import RECIPES
from .test_refusals import GPU, LLAMA, PHI3

GIB = 1024**3
CPU = Machine(4, None, 32 * GIB, 24 * GIB, None)
CARD = replace(CPU, gpus=(Gpu(0, "NVIDIA GeForce RTX 4090", 24 * GIB, 1 * GIB),))
EIGHT = outcome.Situation(stand_in(8_000_000_000), CARD, 4000, 400, 170.0, 400, 900, 500_000, "messages")
SMALL = outcome.Situation(stand_in(135_000_000), CPU, 150, 15, 60.0, 90, 120, 4_000, "messages")

EDITS = st.lists(
    st.tuples(
        st.sampled_from([spec.path for spec in fields()] + ["name"]),
        st.one_of(
            st.integers(-3, 5000),
            st.floats(0, 1),
            st.booleans(),
            st.sampled_from(["", "4bit", "x", "8", "2e-4", "on"]),
        ),
        st.booleans(),
    ),
    min_size=50,
    max_size=50,
)


@given(RECIPES, EDITS)
@examples(max_examples=30, deadline=None)
def test_undo_brings_back_the_first_draft_and_redo_the_last(
    recipe: Recipe, edits: list[tuple[str, Any, bool]]
) -> None:
    wizard = Wizard(draft=Draft(recipe))
    first = wizard.draft.dump()
    for path, value, moved in edits:
        wizard.set(path, str(value) if field_is_text(path) else value)
        if moved:
            wizard.history.close()
    wizard.apply({"lora.rank": 3, "training.epochs": 9.0}, "preset x")
    last, problems = wizard.draft.dump(), wizard.draft.problems
    while wizard.undo() is not None:
        pass
    assert wizard.draft.dump() == first
    assert not wizard.draft.problems and wizard.name_problem is None
    assert wizard.draft.recipe() == recipe
    while wizard.redo() is not None:
        pass
    assert (wizard.draft.dump(), wizard.draft.problems) == (last, problems)


def field_is_text(path: str) -> bool:
    return path == "name" or field(path).kind in ("text", "pairs", "choice")


def test_what_is_typed_in_one_field_is_one_change() -> None:
    history = History()
    history.note({"lora.rank": 16}, {"lora.rank": "1"})
    history.note({"lora.rank": "1"}, {"lora.rank": 12})
    history.close()
    history.note({"lora.rank": 12}, {"lora.rank": 8})
    assert history.undo().before == {"lora.rank": 12}  # type: ignore[union-attr]
    assert history.undo().before == {"lora.rank": 16}  # type: ignore[union-attr]
    assert history.undo() is None


@given(RECIPES, RECIPES)
@examples(max_examples=40, deadline=None)
def test_deltas_are_the_differences_of_the_estimates_themselves(one: Recipe, other: Recipe) -> None:
    for here in (EIGHT, SMALL):
        facts, machine = here.facts, here.machine
        assert facts is not None and machine is not None and here.rows is not None
        delta = outcome.delta(outcome.outcome(one, here), outcome.outcome(other, here))
        card = machine.total_bytes if machine.has_gpu else None
        before, after = (
            memory.estimate(
                r, facts, gpu=machine.has_gpu, card_bytes=card, longest_tokens=here.longest_tokens
            ).total_bytes  # type: ignore[union-attr]
            for r in (one, other)
        )
        assert delta.memory_bytes == after - before
        assert delta.weights == lora.adapter_weights(facts, other.lora) - lora.adapter_weights(
            facts, one.lora
        )  # type: ignore[operator]
        shape = from_facts(facts)
        assert shape is not None and here.tokens_per_row is not None
        spans = [
            pace.predict(
                r,
                shape,
                machine,
                Lengths.about(here.tokens_per_row, r.model.max_length, here.rows, here.evaluation_rows or 0),
            )
            for r in (one, other)
        ]
        middles = [(s.low * s.high) ** 0.5 for s in spans]
        assert delta.seconds == pytest.approx(middles[1] - middles[0], abs=1e-6)


def test_memory_goes_by_the_longest_row_once_the_rows_are_counted() -> None:
    """As fit and probe do: what no row fills is not taken."""
    roomy = recipe_of({"model.max_length": 4096, "training.batch_size": 16})
    taken = outcome.outcome(roomy, EIGHT).memory_bytes
    assert (
        taken
        == outcome.outcome(
            recipe_of({"model.max_length": 900, "training.batch_size": 16}), EIGHT
        ).memory_bytes
    )
    unknown = outcome.outcome(roomy, replace(EIGHT, longest_tokens=None)).memory_bytes
    assert taken is not None and unknown is not None and unknown > 1.3 * taken


def test_twice_the_held_out_rows_at_once_are_advised_only_where_they_fit() -> None:
    asked = outcome.with_values(
        Recipe(), {"model.precision": "4bit", "model.max_length": 8192, "training.batch_size": 2}
    )
    assert asked is not None
    here = replace(EIGHT, longest_tokens=8192)
    found = advice.advise("training.evaluation_batch_size", asked, here)
    assert found is not None and found.value == 4 and "GiB free" in found.because
    full = replace(CARD, gpus=(replace(CARD.gpus[0], used_bytes=14 * GIB),))
    found = advice.advise("training.evaluation_batch_size", asked, replace(here, machine=full))
    assert found is not None and found.value is None and "4 rows at once would take" in found.because


def test_all_advice_takes_one_choice_of_what_fits() -> None:
    """Here of 72 ways to divide the effective batch, none of which fits: each look at them is felt while one types."""
    asked = outcome.with_values(
        Recipe(), {"training.batch_size": 96, "training.gradient_accumulation_steps": 105}
    )
    assert asked is not None
    lengths = Lengths.about(170, asked.model.max_length, 4000, 400)
    here = replace(EIGHT, facts=stand_in(70_000_000_000), lengths=lengths)
    with patch.object(fit_task, "choose", wraps=fit_task.choose) as looked:
        found = advice.advise_all(asked, here)
    assert looked.call_count == 1
    assert found == {path: advice.advise(path, asked, here) for path in found}


def test_a_delta_in_words() -> None:
    wider = outcome.with_values(Recipe(), {"lora.rank": 32})
    assert wider is not None
    words = outcome.delta(outcome.outcome(Recipe(), EIGHT), outcome.outcome(wider, EIGHT)).words
    assert words.startswith("+41.9 M weights, +0.") and words.endswith("GiB, ±0 min")


@given(RECIPES)
@examples(max_examples=30, deadline=None)
def test_advice_is_always_a_value_that_the_field_takes_and_has_a_reason(recipe: Recipe) -> None:
    for here in (EIGHT, SMALL, outcome.Situation()):
        for path in presets.preset_paths():
            found = advice.advise(path, recipe, here)
            assert found is not None
            assert Draft(recipe).set(path, found.value) is None, (path, found.value)
            assert found.because.endswith(".") and len(found.because) < 200


def test_every_reason_follows_from_model_rows_machine_or_the_other_settings() -> None:
    """Of no setting the same is said everywhere; the two that hardly anything decides are named."""
    other = recipe_of(
        {
            "lora.rank": 64,
            "lora.modules_to_save": ("lm_head",),
            "model.precision": "4bit",
            "training.epochs": 4.0,
            "training.batch_size": 1,
            "training.gradient_accumulation_steps": 2,
            "training.schedule": "cosine_with_restarts",
            "training.sample_count": 0,
        }
    )
    same = []
    for path in presets.preset_paths():
        said = {
            advice.advise(path, made, here).because  # type: ignore[union-attr]
            for made in (Recipe(), other)
            for here in (EIGHT, SMALL, replace(EIGHT, rows=40, evaluation_rows=0), outcome.Situation())
        }
        if len(said) == 1:
            same.append(path)
    assert same == ["training.max_steps", "training.weight_decay"]


def test_advice_against_memorising_where_rows_are_seen_often() -> None:
    def chosen(path: str, epochs: float, **known: Any) -> Any:
        made = recipe_of({"training.epochs": epochs, "training.evaluate_every_steps": 5})
        found = advice.advise(path, made, replace(EIGHT, rows=900, evaluation_rows=90, **known))
        assert found is not None
        return found.value

    assert [chosen("training.early_stopping_patience", epochs) for epochs in (1.0, 3.0)] == [None, 3]
    assert chosen("training.neftune_noise_alpha", 1.0, learned_tokens=900 * 30) is None
    assert chosen("training.neftune_noise_alpha", 1.0, learned_tokens=900 * 300) == 5.0


def recipe_of(values: dict[str, Any]) -> Recipe:
    made = outcome.with_values(Recipe(), values)
    assert made is not None
    return made


def test_advice_follows_what_it_names() -> None:
    recipe = Recipe()

    def chosen(path: str, here: outcome.Situation) -> Any:
        found = advice.advise(path, recipe, here)
        assert found is not None
        return found.value

    assert chosen("lora.rank", EIGHT) == 16
    assert chosen("lora.rank", replace(EIGHT, learned_tokens=400_000_000)) > 32
    assert chosen("lora.rank", SMALL) == 8
    assert chosen("training.learning_rate", SMALL) > chosen("training.learning_rate", EIGHT)
    assert chosen("training.epochs", SMALL) > chosen("training.epochs", EIGHT)
    assert chosen("training.packing", EIGHT) is True and chosen("training.packing", SMALL) is False
    assert chosen("training.evaluate_every_steps", replace(EIGHT, evaluation_rows=0)) == 0
    assert chosen("lora.gradient_checkpointing", EIGHT) is True
    assert chosen("lora.gradient_checkpointing", SMALL) is False
    assert (
        chosen("model.precision", replace(EIGHT, machine=replace(CARD, gpus=(Gpu(0, "T4", 12 * GIB, 0),))))
        == "4bit"
    )
    assert chosen("model.max_length", EIGHT) == 960
    size = chosen("training.batch_size", EIGHT)
    fits = outcome.with_values(recipe, {"training.batch_size": size})
    assert fits is not None
    assert outcome.outcome(fits, EIGHT).memory_bytes <= advice_here.ROOM * CARD.free_bytes  # type: ignore[operator]
    assert set(advice.adopted(recipe, EIGHT)) <= set(presets.preset_paths())


@pytest.mark.parametrize(
    ("path", "typed", "near"),
    [
        ("lora.rank", "0", 1),
        ("lora.rank", 10_000, 1024),
        ("lora.rank", "sixteen", 16),
        ("lora.rank", "12.4", 12),
        ("training.learning_rate", "2", 0.1),
        ("training.learning_rate", "0", 2e-4),
        ("training.warmup_share", "5%", 0.05),
        ("model.max_length", "4k", 4096),
        ("training.schedule", "Cosin", "cosine"),
        ("lora.target_modules", "q_prj, v_proj", ("q_proj", "v_proj")),
    ],
)
def test_the_nearest_good_value(path: str, typed: Any, near: Any) -> None:
    assert nearest(field(path), typed) == near


@given(
    st.sampled_from(fields()),
    st.one_of(st.text(max_size=30), st.floats(), st.integers(), st.none(), st.booleans()),
)
def test_the_nearest_value_is_always_good(spec: Any, typed: Any) -> None:
    assert Draft().set(spec.path, nearest(spec, typed)) is None


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    return tmp_path


def test_every_preset_is_a_recipe_and_differs_from_the_others() -> None:
    for preset in presets.BUILT_IN:
        assert outcome.with_values(Recipe(), preset.values) is not None, preset.name
        assert set(preset.values) <= set(presets.preset_paths())
        for other in presets.BUILT_IN:
            assert bool(presets.diff(preset.values, other.values)) == (other is not preset)
        values, said = presets.here(preset, gpu=False, facts=LLAMA)
        changed = outcome.with_values(Recipe(), values)
        assert changed is not None and not training.problems(changed, CPU)
        assert bool(said) == (preset.name in ("tight-memory", "long-documents"))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_preset_leaves_a_form_that_can_start(method: str) -> None:
    """On a model with layers of its own and one that is not packed, with every weight trained, with and without a GPU."""
    phi = replace(PHI3, context_length=2048)
    gemma = replace(LLAMA, model_type="gemma2")
    packed = presets.Preset(
        "mine",
        "",
        {"model.precision": "8bit", "training.optimizer": "lion_8bit", "training.packing": True},
        own=True,
    )
    for preset in (*presets.BUILT_IN, packed):
        for facts in (phi, gemma):
            for machine in (CPU, GPU):
                form = outcome.with_values(
                    Recipe(),
                    {
                        "lora.method": method,
                        "lora.target_modules": modules_here(TARGET_MODULES, facts.modules),
                        "export.formats": ("merged",) if method == "full" else ("adapter",),
                    },
                )
                assert form is not None
                values, said = presets.here(preset, gpu=machine.has_gpu, facts=facts, method=method)
                made = outcome.with_values(form, values)
                assert made is not None
                found = training.problems(made, machine, facts)
                assert [e for _, e in found if e.code != "bitsandbytes-missing"] == [], preset.name
                changed = [path for path, value in preset.values.items() if values.get(path) != value]
                assert len(said) == len(changed)


def test_full_fine_tuning_takes_a_tenth_of_a_presets_rate() -> None:
    balanced = presets_own.find("balanced")
    values, said = presets.here(balanced, gpu=True, method="full")
    assert values["training.learning_rate"] == pytest.approx(2e-5) and "2e-05" in said[0]
    assert presets.here(balanced, gpu=True)[0]["training.learning_rate"] == 2e-4
    own = replace(balanced, values={**balanced.values, "lora.method": "full"}, own=True)
    assert presets.here(own, gpu=True, method="lora") == (own.values, ())


@given(RECIPES)
@examples(max_examples=15, deadline=None)
def test_an_own_preset_comes_back_as_it_was_saved(recipe: Recipe) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUI_HOME", folder)
        presets_own.save(presets.of_recipe("mine", "because", recipe, own=True))
        back = presets_own.find("mine")
        assert (
            back.values == presets.of_recipe("mine", "", recipe).values and back.why == "because" and back.own
        )


def test_names_and_files_of_own_presets_are_checked(home: Path) -> None:
    mine = presets.of_recipe("mine", "first", Recipe(), own=True)
    path = presets_own.save(mine)
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(FinetuiError) as taken:
        presets_own.save(replace(mine, why="second"))
    assert taken.value.code == "preset-exists" and presets_own.find("mine").why == "first"
    presets_own.save(replace(mine, why="second"), replace=True)
    assert presets_own.find("mine").why == "second"
    for name in ("", "../up", "a/b", "balanced", "Try-It", "x" * 41, ".hidden", "a\x1b"):
        with pytest.raises(FinetuiError) as refused:
            presets_own.save(replace(mine, name=name))
        assert refused.value.code == "preset-name"
    for name, text, words in (
        ("deep", "lora: {rank: 0}", "lora.rank"),
        ("alias", "a: &x 1\nb: *x", "aliases"),
        ("foreign", "model: {source: evil}", "model.source"),
        ("list", "- 1", "mapping"),
    ):
        (presets_own.folder() / f"{name}.yaml").write_text(text)
        with pytest.raises(FinetuiError) as broken:
            presets_own.find(name)
        assert broken.value.code == "preset-broken" and words in broken.value.why
    found, wrong = presets_own.own()
    assert [preset.name for preset in found] == ["mine"] and len(wrong) == 4
    presets_own.delete("mine")
    with pytest.raises(FinetuiError) as gone:
        presets_own.find("mine")
    assert gone.value.code == "preset-missing" and "balanced" in gone.value.why
