"""Fit, probe and ladder where there is a GPU; torch's cap on a process's memory stands in for a smaller card."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetui.core import fit, memory, recipe_file
from finetui.core.lengths import Lengths
from finetui.core.memory_parts import GIB
from finetui.core.memory_shape import from_config
from finetui.core.recipe import Recipe
from finetui.core.runs.events import Probed, Step
from finetui.core.system import Gpu, Machine
from tests.bench.gpu import memory_one, shapes
from tests.worker import harness
from tests.worker.test_out_of_memory import trained

SHAPE = "Llama-3.1-8B"
LENGTH, STEPS = 1024, 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 8 billion weights of zeros."""
    return shapes.make(SHAPE, tmp_path_factory.mktemp("shape") / SHAPE)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    point = memory_one.Point(SHAPE, length=LENGTH, batch=16)
    return memory_one.write_rows(point, tmp_path_factory.mktemp("rows") / "rows.jsonl")


@pytest.fixture
def cap(unsloth: None) -> Iterator[Any]:
    """`cap(gib)` lets this process reserve so much of the GPU's memory."""
    import torch

    def set_cap(gib: float) -> None:
        gc.collect()
        memory_one.clean()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total))

    yield set_cap
    set_cap(10_000)


def asked(model: Path, rows: Path, **values: Any) -> Recipe:
    common: dict[str, Any] = {
        "max_length": LENGTH,
        "batch_size": 8,
        "precision": "4bit",
        "learning_rate": 1e-6,
        "max_steps": STEPS,
        "rank": 16,
        "alpha": 16,
        "gradient_checkpointing": True,
    }
    return harness.recipe(model, rows, **(common | values))


def card(gib: float) -> Machine:
    return Machine(16, None, 128 * GIB, 100 * GIB, None, (Gpu(0, "NVIDIA H100", int(gib * GIB), 0),))


@pytest.mark.parametrize("gib", [12, 24])
def test_what_is_chosen_for_a_limit_fits_under_it(cap: Any, model: Path, rows: Path, gib: int) -> None:
    """Fit, probe and run; the probe's measurement is within a tenth of the prediction."""
    shape = from_config(shapes.SHAPES[SHAPE])
    assert shape is not None
    found = fit.fit(asked(model, rows), shape, card(gib), Lengths.full(LENGTH, 48))
    cap(gib - 0.8)  # the context is no part of what torch reserves
    built = trained(found.recipe, probed=True)
    (probed,) = harness.events(built.run, Probed)
    print(f"{gib} GiB: {found.changes} {probed}")
    assert not probed.stepped_down
    assert probed.measured_bytes == pytest.approx(probed.predicted_bytes, rel=0.10)
    assert probed.measured_bytes <= gib * GIB
    assert probed.cost_seconds < 20
    assert [s.step for s in harness.events(built.run, Step)] == list(range(1, STEPS + 1))


def test_memory_that_runs_out_in_a_run_is_recovered_from(cap: Any, model: Path, rows: Path) -> None:
    """Without a probe: the cap is below what the asked batch takes, so the run itself meets it."""
    recipe = asked(model, rows, gradient_checkpointing=False, batch_size=8)
    shape = from_config(shapes.SHAPES[SHAPE])
    assert shape is not None
    needed = memory.estimate_shape(recipe, shape, longest_tokens=LENGTH).gpu_reserved_bytes
    small = asked(model, rows, batch_size=1, gradient_accumulation_steps=8)
    fits = memory.estimate_shape(small, shape, longest_tokens=LENGTH).gpu_reserved_bytes
    cap((fits + 0.35 * (needed - fits)) / GIB)
    built = trained(recipe, ladder=True)
    assert "memory-smaller-batch" in harness.codes(built.run)
    after = recipe_file.load(built.run.recipe)
    assert after.effective_batch_size == recipe.effective_batch_size
    assert after.training.batch_size < 8
    found = harness.losses(built.run)
    cap(10_000)
    calm = trained(
        asked(model, rows, gradient_checkpointing=False, batch_size=1, gradient_accumulation_steps=8)
    )
    assert found == pytest.approx(harness.losses(calm.run), rel=5e-3)


@pytest.mark.parametrize("values", [{}, {"packing": True}, {"precision": "16bit", "dropout": 0.1}])
def test_a_probe_changes_no_loss(
    unsloth: None, tiny_model: Path, tiny_rows: Path, values: dict[str, Any]
) -> None:
    common: dict[str, Any] = {"precision": "4bit", "max_length": 512, "max_steps": 4, "evaluation_share": 0.2}
    recipe = harness.recipe(tiny_model, tiny_rows, **(common | values))
    without, with_probe = trained(recipe), trained(recipe, probed=True)
    assert harness.losses(with_probe.run) == pytest.approx(harness.losses(without.run), rel=1e-3)
    (found,) = harness.events(with_probe.run, Probed)
    assert found.device == "gpu"


def test_packed_batches_are_divided_too(unsloth: None, tiny_model: Path, tiny_rows: Path) -> None:
    recipe = harness.recipe(
        tiny_model, tiny_rows, precision="4bit", packing=True, max_length=256, max_steps=3
    )
    whole = trained(recipe)
    from finetui.core.worker import training
    from finetui.core.worker.ladder import Ladder
    from tests.worker.in_process import Trainer

    built = Trainer(recipe)
    ladder = Ladder(built.trainer, recipe, built.run, built.writer).hold()
    ladder.rows = 1
    training.train(built.trainer, built.reporter, recipe, None)
    assert harness.losses(built.run) == pytest.approx(harness.losses(whole.run), rel=5e-3)
