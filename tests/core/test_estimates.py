"""Steps, trainable weights, memory and time, from the recipe and a model's shape alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetui.core import lora, memory, training
from finetui.core.model import DEMO_FACTS, ModelFacts
from finetui.core.recipe import LoraSection, ModelSection, Recipe, TrainingSection
from finetui.core.system import Gpu, Machine

CPU = Machine(2, None, 24 << 30, 20 << 30, None)
GPU = Machine(16, None, 128 << 30, 100 << 30, None, (Gpu(0, "NVIDIA H100 80GB HBM3", 80 << 30, 1 << 30),))


@pytest.mark.parametrize("rank", [1, 8, 64])
def test_the_adapter_of_the_demo_model(rank: int) -> None:
    assert lora.adapter_weights(DEMO_FACTS, LoraSection(rank=rank)) == 305_280 * rank


def test_fewer_layers_and_unknown_shapes() -> None:
    some = lora.adapter_weights(DEMO_FACTS, LoraSection(target_modules=("q_proj", "v_proj")))
    assert some == 16 * 30 * (576 + 576 + 576 + 192)
    assert lora.adapter_weights(ModelFacts("x/y", "hub", "y"), LoraSection()) is None


def test_the_scale() -> None:
    assert lora.scale(LoraSection(rank=16, alpha=32)) == 2
    assert lora.scale(LoraSection(rank=16, alpha=32, rslora=True)) == 8


def recipe(**training_values: object) -> Recipe:
    return Recipe(training=TrainingSection.model_validate(training_values))


def test_a_plan_in_words() -> None:
    plan = training.plan(recipe(max_steps=30), 48_000)
    assert plan.words == "30 steps = 240 rows = 0.5 % of your data"
    assert training.plan(recipe(epochs=2.0), 80).words == "20 steps = 160 rows = 2 × your data"


def test_a_last_batch_that_is_not_full_is_a_step() -> None:
    assert training.plan(recipe(batch_size=8), 81).steps == 11
    assert training.plan(recipe(batch_size=2, gradient_accumulation_steps=4), 81).steps == 11
    assert training.plan(recipe(batch_size=8), 0).steps == 0


@given(st.integers(1, 100_000), st.integers(1, 64), st.integers(1, 64), st.floats(0.01, 20))
def test_a_plan_never_claims_more_than_it_does(
    rows: int, batch: int, accumulation: int, epochs: float
) -> None:
    plan = training.plan(
        recipe(batch_size=batch, gradient_accumulation_steps=accumulation, epochs=epochs), rows
    )
    assert plan.steps >= 1
    assert plan.rows_seen <= plan.steps * batch * accumulation
    assert 0 <= plan.warmup_steps <= plan.steps
    assert plan.share >= epochs * 0.99 or plan.steps * batch * accumulation >= rows * epochs * 0.99


def test_memory_grows_with_what_it_should_grow_with() -> None:
    def total(**values: object) -> int:
        found = memory.estimate(recipe(**values), DEMO_FACTS, gpu=True)
        assert found is not None
        return found.total_bytes

    assert total(batch_size=16) > total(batch_size=8)
    four_bit = memory.estimate(Recipe(model=ModelSection(precision="4bit")), DEMO_FACTS, gpu=True)
    sixteen = memory.estimate(Recipe(), DEMO_FACTS, gpu=True)
    assert four_bit is not None and sixteen is not None
    assert four_bit.total_bytes < sixteen.total_bytes
    kept = memory.estimate(Recipe(lora=LoraSection(gradient_checkpointing=False)), DEMO_FACTS, gpu=True)
    assert kept is not None
    assert kept.total_bytes > sixteen.total_bytes
    assert memory.estimate(Recipe(), ModelFacts("x/y", "hub", "y"), gpu=True) is None


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        (Recipe(model=ModelSection(precision="4bit")), "model.precision"),
        (recipe(packing=True), "training.packing"),
        (recipe(optimizer="adamw_8bit"), "training.optimizer"),
    ],
)
def test_what_needs_a_gpu_is_refused_without_one(broken: Recipe, path: str) -> None:
    ((found, error),) = training.problems(broken, CPU)
    assert found == path
    assert error.what and error.why and error.fix
    assert training.problems(Recipe(), CPU) == []
