"""Going on from the adapter of an earlier run: what was learned is there from the first step on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from finetui.core import model_adapter, recipe_file
from finetui.core.recipe import Recipe
from finetui.core.runs.store import RunFolder

from . import harness, tiny

STEPS = 6


@pytest.fixture(scope="module")
def asked(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Every step sees every row, so that the loss of a step depends on the weights alone."""
    rows = tiny.write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 8)
    return harness.recipe(
        tiny_model,
        rows,
        evaluation_share=0.0,
        max_steps=STEPS,
        batch_size=8,
        schedule="constant",
        warmup_share=0.0,
        dropout=0.0,
    )


def trained(recipe: Recipe) -> RunFolder:
    run = harness.make_run(recipe)
    harness.finish(harness.start("train", run), run)
    assert harness.ended(run).reason == "completed", harness.ended(run)
    return run


def more_steps(recipe: Recipe, steps: int) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"max_steps": steps})})


@pytest.fixture(scope="module")
def source(asked: Recipe) -> RunFolder:
    return trained(asked)


def test_the_first_loss_is_where_the_last_run_ended(asked: Recipe, source: RunFolder) -> None:
    reference = trained(more_steps(asked, STEPS + 1))
    facts = model_adapter.read_adapter(source.adapter)
    assert (facts.rank, facts.alpha, facts.base) == (4, 8, asked.model.source)
    again = trained(model_adapter.with_adapter(asked, facts))
    first, expected = harness.losses(again)[1], harness.losses(reference)[STEPS + 1]
    assert abs(first - expected) < 1e-3, (first, expected)
    assert harness.losses(source)[1] - first > 0.2, "something had been learned, so that this shows anything"
    assert harness.losses(again)[STEPS] < first, "and it learns on"

    before, after = (load_file(r.adapter / "adapter_model.safetensors") for r in (source, again))
    assert sorted(before) == sorted(after)
    assert any((before[name] != after[name]).any() for name in before)


def test_a_stopped_run_resumes_without_the_adapter_that_it_came_from(
    asked: Recipe, source: RunFolder, tmp_path: Path
) -> None:
    moved = shutil.copytree(source.adapter, tmp_path / "adapter")
    facts = model_adapter.read_adapter(moved)
    slow = more_steps(model_adapter.with_adapter(asked, facts, asked.model.source), 40)
    run = harness.make_run(slow)
    worker = harness.start("train", run)
    harness.until(lambda: len(harness.losses(run)) >= 3, worker)
    (run.control / "stop").touch()
    assert harness.finish(worker, run) == 0 and harness.ended(run).reason == "stopped"
    stopped_at = max(harness.losses(run))
    shutil.rmtree(moved)
    assert harness.finish(harness.start("resume", run), run) == 0
    losses = harness.losses(run)
    assert max(losses) == 40 > stopped_at
    assert losses[stopped_at + 1] < losses[1] + 0.05


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"r": 8}, "adapter-shape"),
        ({"lora_alpha": 16}, "adapter-shape"),
        ({"target_modules": ["q_proj", "v_proj"]}, "adapter-shape"),
        ({"base_model_name_or_path": "Qwen/Qwen3-0.6B"}, "adapter-base"),
        ({"target_modules": ["lm_head"]}, "adapter-broken"),
        ({"peft_type": "IA3"}, "adapter-broken"),
        ({"modules_to_save": ["lm_head"]}, "adapter-broken"),
    ],
)
def test_another_shape_or_base_is_refused_before_anything_is_loaded(
    asked: Recipe, source: RunFolder, tmp_path: Path, change: dict[str, object], code: str
) -> None:
    place = shutil.copytree(source.adapter, tmp_path / "adapter")
    settings = json.loads((place / "adapter_config.json").read_text()) | change
    (place / "adapter_config.json").write_text(json.dumps(settings))
    model = asked.model.model_copy(update={"adapter": str(place)})
    with pytest.raises(Exception) as caught:
        model_adapter.check_adapter(asked.model_copy(update={"model": model}))
    assert getattr(caught.value, "code", None) == code, caught.value


def test_weights_that_do_not_fit_end_the_run_with_a_card(
    asked: Recipe, source: RunFolder, tmp_path: Path
) -> None:
    place = shutil.copytree(source.adapter, tmp_path / "adapter")
    settings = json.loads((place / "adapter_config.json").read_text()) | {"r": 8}
    (place / "adapter_config.json").write_text(json.dumps(settings))
    lora = asked.lora.model_copy(update={"rank": 8})
    model = asked.model.model_copy(update={"adapter": str(place)})
    run = harness.make_run(asked.model_copy(update={"model": model, "lora": lora}))
    assert harness.finish(harness.start("train", run), run) == 1
    assert (harness.ended(run).reason, harness.ended(run).code) == ("failed", "adapter-shape")
    missing = model.model_copy(update={"adapter": str(tmp_path / "none")})
    gone = harness.make_run(asked.model_copy(update={"model": missing}))
    assert harness.finish(harness.start("train", gone), gone) == 1
    assert harness.ended(gone).code == "adapter-missing"
    assert recipe_file.load(gone.recipe).model.adapter == str(tmp_path / "none")
