"""Memory predicted from a config.json, against what an H100 and an H200 measured."""

from __future__ import annotations

import pytest

from finetui.core import memory
from finetui.core.memory_parts import MIB
from finetui.core.memory_shape import from_config
from finetui.core.model_facts import UNPACKED

from ..bench.gpu import memory_grid, memory_table, shapes
from ..bench.gpu.memory_table import Measured

TABLE = memory_table.read_table()


def test_the_readme_has_the_errors_of_the_table() -> None:
    """Made anew by `python -m tests.bench.gpu.memory_table`."""
    text = memory_table.README.read_text(encoding="utf-8")
    assert memory_table.BEGIN + memory_table.for_readme(TABLE) + memory_table.END in text


@pytest.mark.parametrize(
    ("split", "packing", "mean", "most", "below"),
    [
        ("fit", False, 0.009, 0.043, -0.023),
        ("held-out", False, 0.011, 0.046, -0.029),
        ("fit", True, 0.015, 0.04, -0.01),
        ("held-out", True, 0.016, 0.04, -0.034),
    ],
)
def test_the_gpu_measured_what_is_predicted(
    split: str, packing: bool, mean: float, most: float, below: float
) -> None:
    """The goal is a mean error of at most 5 %, none above 10 % and none more than 3 % below the truth: held to where it is
    reached, and kept from getting worse where it is not (one packed point, by the allocator's slack)."""
    errors = [row.error for row in TABLE if row.point.split == split and row.point.packing == packing]
    assert len(errors) >= (4 if packing else 12)
    assert sum(map(abs, errors)) / len(errors) <= mean
    assert max(map(abs, errors)) <= most
    assert min(errors) >= below


def _kind(row: Measured) -> str:
    shape = from_config(shapes.SHAPES[row.point.shape])
    assert shape is not None
    return "moe" if shape.experts else shape.kind


def _method(row: Measured) -> str:
    return row.point.precision if row.point.precision in ("8bit", "32bit") else row.point.method


@pytest.mark.parametrize("kind", [*memory.MEASURED_KINDS, "moe"])
def test_each_family_is_measured_and_predicted(kind: str) -> None:
    errors = [row.error for row in TABLE if _kind(row) == kind and _method(row) == "lora"]
    assert len(errors) >= 8
    assert sum(map(abs, errors)) / len(errors) <= 0.02
    assert max(map(abs, errors)) <= 0.046
    assert min(errors) >= -0.034


@pytest.mark.parametrize("method", ["dora", "full", "8bit", "32bit"])
def test_each_method_is_measured_and_predicted(method: str) -> None:
    errors = [row.error for row in TABLE if _method(row) == method]
    assert len(errors) >= (3 if method == "32bit" else 5)
    assert sum(map(abs, errors)) / len(errors) <= (0.025 if method == "32bit" else 0.015)
    assert max(map(abs, errors)) <= 0.045
    assert min(errors) >= -0.03


def test_the_table_holds_both_precisions_and_ways_of_keeping_activations() -> None:
    kinds = {(row.point.precision, row.point.checkpointing) for row in TABLE}
    assert kinds >= {("16bit", True), ("16bit", False), ("4bit", True), ("4bit", False)}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.point.shape}-{row.point.precision}")
def test_weights_and_adapter_are_exact(row: Measured) -> None:
    parts = {part.name: part.bytes for part in memory_table.predicted(row.point).parts}
    # DoRA multiplies matrices while it loads, so that cuBLAS' memory is there already.
    cublas = 32 * MIB if row.point.method == "dora" else 0
    assert parts["weights"] + parts["adapter"] == pytest.approx(row.loaded_bytes - cublas, abs=MIB)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.point.shape}-{row.point.precision}")
def test_what_is_allocated_is_derived_not_fitted(row: Measured) -> None:
    """A term that is missing or counted twice shows here first: the allocator's slack, which is fitted, cannot hide it."""
    parts = {part.name: part.bytes for part in memory_table.predicted(row.point).parts}
    allocated = sum(size for name, size in parts.items() if name not in ("allocator", "context"))
    # Rows of many lengths fill a packed batch as they can: the second of two may hold a fifth less than the first.
    assert allocated == pytest.approx(row.allocated_bytes, rel=0.046 if row.point.rows == "mixed" else 0.026)


@pytest.mark.parametrize(
    "row",
    [row for row in TABLE if row.host_bytes],
    ids=lambda row: f"{row.point.shape}-{row.point.precision}",
)
def test_the_host_measured_what_is_predicted(row: Measured) -> None:
    found = memory_table.predicted(row.point)
    offloaded = next(part.bytes for part in found.host_parts if part.name == "offloaded")
    # Of rows of many lengths one batch may need a larger block; loading pinned up to 128 MiB in four processes of 60.
    more = 160 * MIB if row.point.rows == "mixed" else 128 * MIB
    assert -MIB <= row.offloaded_bytes - offloaded <= more + MIB
    if row.point.method != "full":
        assert found.host_bytes == pytest.approx(row.host_bytes, rel=0.07)
    else:  # measured without the probe, which puts every trained weight aside
        assert found.host_bytes > row.host_bytes


def test_the_grid_measures_alone_what_leaves_something_behind() -> None:
    """Full fine-tuning leaves a setting of Unsloth's in its process, and packed rows fragments of the allocator."""
    points = [point for part in memory_grid.PARTS.values() for point in part()]
    for point in points:
        together = [other for other in points if other.key == point.key]
        if point.packing or point.method != "lora" or point.precision in ("8bit", "32bit"):
            assert {memory_table.point_key(other) for other in together} == {memory_table.point_key(point)}
        assert not (point.packing and shapes.SHAPES[point.shape]["model_type"] in UNPACKED)
    assert {row.point for row in TABLE} <= {memory_table.point_key(point) for point in points}
    assert {point.shape for point in points} == set(shapes.SHAPES)
    assert {point.method for point in points} == {"lora", "dora", "full"}
    assert {point.rows for point in points if point.packing} == {"short", "mixed"}
