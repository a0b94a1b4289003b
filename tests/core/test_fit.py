"""Settings chosen for a machine: they fit, learn the same, are the fastest there are, and say why."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetui.core import fit, memory, model_fit, pace
from finetui.core.dataset_ledger import Histogram, Ledger, Quantiles
from finetui.core.errors import FinetuiError
from finetui.core.lengths import Lengths
from finetui.core.memory_shape import Shape, from_config
from finetui.core.pace import Measured
from finetui.core.recipe import LoraSection, ModelSection, Recipe, TrainingSection
from finetui.core.system import Gpu, Machine
from tests.bench.gpu.shapes import SHAPES

GIB = 1 << 30
CPU = Machine(2, None, 24 * GIB, 20 * GIB, None)
SHORT = Lengths.about(170, 2048, 2000, 100)
"""Rows as people have them: lognormal, about 170 tokens."""


def card(gib: float, name: str = "NVIDIA H100 80GB HBM3") -> Machine:
    return Machine(16, None, 128 * GIB, 100 * GIB, None, (Gpu(0, name, int(gib * GIB), 0),))


def shape(name: str) -> Shape:
    found = from_config(SHAPES[name])
    assert found is not None
    return found


LLAMA_8B, LLAMA_1B = shape("Llama-3.1-8B"), shape("Llama-3.2-1B")


def recipe(
    batch: int = 2,
    accumulation: int = 4,
    *,
    precision: str = "4bit",
    packing: bool = False,
    checkpointing: bool = True,
    length: int = 2048,
) -> Recipe:
    return Recipe(
        model=ModelSection.model_validate({"source": "x", "precision": precision, "max_length": length}),
        lora=LoraSection(gradient_checkpointing=checkpointing),
        training=TrainingSection(batch_size=batch, gradient_accumulation_steps=accumulation, packing=packing),
    )


@pytest.mark.parametrize(
    ("of", "precision", "batch", "accumulation", "packing", "lengths", "measured"),
    [
        (LLAMA_8B, "4bit", 2, 4, False, SHORT, 676),
        (LLAMA_8B, "4bit", 8, 1, False, SHORT, 1620),
        (LLAMA_8B, "4bit", 32, 1, False, SHORT, 2744),
        (LLAMA_8B, "4bit", 2, 1, True, SHORT, 3146),
        (LLAMA_8B, "4bit", 8, 1, True, SHORT, 5491),
        (LLAMA_1B, "16bit", 2, 4, False, SHORT, 1237),
        (LLAMA_1B, "16bit", 8, 1, True, SHORT, 11496),
        (LLAMA_8B, "4bit", 2, 4, False, Lengths.full(2048, 500), 9332),
        (LLAMA_1B, "16bit", 2, 4, False, Lengths.full(2048, 500), 25239),
    ],
)
def test_the_pace_on_an_h100_is_near_what_was_measured(
    of: Shape, precision: str, batch: int, accumulation: int, packing: bool, lengths: Lengths, measured: int
) -> None:
    asked = recipe(batch, accumulation, precision=precision, packing=packing)
    found = pace.predict(asked, of, card(80), lengths).tokens_per_second
    assert found == pytest.approx(measured, rel=0.25)


def test_lengths_of_a_ledger() -> None:
    ledger = Ledger(
        train_rows=100,
        evaluation_rows=7,
        tokens=12_345,
        max_length=512,
        quantiles=Quantiles(most=700),
        histogram=Histogram((0, 100, 200, 700), (50, 40, 10)),
    )
    found = Lengths.from_ledger(ledger, 512)
    assert found.mean == pytest.approx(123.45, rel=0.02)  # the ledger's own, though the histogram is coarse
    assert (found.longest, found.rows, found.evaluation_rows, found.measured) == (512, 100, 7, True)
    assert Lengths.from_ledger(ledger, 128).longest == 128
    assert found.padded(1) == pytest.approx(found.mean)
    assert found.mean < found.padded(4) < found.padded(64) <= 512
    assert Lengths.full(100).padded(8) == 100
    assert Lengths.full(100).rows_per_sequence(1000) == pytest.approx(9.7)
    assert Lengths.full(600).rows_per_sequence(1000) == 1  # two of them do not share a sequence


def test_time_follows_what_was_measured() -> None:
    """A prediction is a range, a GPU is faster, and a measurement narrows the range around itself."""
    asked = recipe(8, 1, precision="16bit")
    slow, fast = (pace.predict(asked, LLAMA_1B, machine, SHORT) for machine in (CPU, card(80)))
    assert 0 < slow.low < slow.seconds < slow.high
    assert fast.high < slow.low
    twice = pace.predict(asked, LLAMA_1B, card(80), SHORT, Measured(ratio=2.0))
    assert twice.measured
    assert not fast.measured
    assert twice.seconds_per_step == pytest.approx(2 * fast.seconds_per_step, rel=0.05)
    assert twice.high / twice.low < fast.high / fast.low
    own = pace.predict(asked, LLAMA_1B, card(80), SHORT, Measured(seconds_per_step=3.0))
    assert own.seconds_per_step == 3.0
    assert own.steps == 250
    assert own.seconds == pytest.approx(250 * 3 + own.evaluation_seconds + own.sample_seconds)
    assert own.evaluation_seconds > 0
    packed = pace.predict(recipe(8, 1, packing=True), LLAMA_1B, card(80), SHORT)
    assert packed.steps < own.steps / 5
    assert packed.padding_share == 0 < fast.padding_share


def test_time_of_full_fine_tuning_and_of_larger_held_out_batches() -> None:
    """Every weight takes a gradient, and an update that on a CPU takes longer than the batch's share of one row."""
    asked = recipe(8, 1, precision="32bit")
    whole = asked.model_copy(update={"lora": asked.lora.model_copy(update={"method": "full"})})
    for machine in (CPU, card(80)):
        lora, full = (pace.predict(made, LLAMA_1B, machine, SHORT) for made in (asked, whole))
        assert 1.15 < full.seconds_per_step / lora.seconds_per_step < 3
        assert pace.update_seconds(whole, LLAMA_1B, machine) > 50 * pace.update_seconds(
            asked, LLAMA_1B, machine
        )
    training = asked.training.model_copy(update={"evaluation_batch_size": 32})
    wider = pace.predict(asked.model_copy(update={"training": training}), LLAMA_1B, card(80), SHORT)
    assert wider.evaluation_seconds < pace.predict(asked, LLAMA_1B, card(80), SHORT).evaluation_seconds


def test_time_is_said_more_widely_where_no_speed_was_measured() -> None:
    plain = recipe(precision="16bit")
    full, dora = (plain.lora.model_copy(update=one) for one in ({"method": "full"}, {"dora": True}))
    others = [
        recipe(precision="8bit"),
        *(plain.model_copy(update={"lora": lora}) for lora in (full, dora)),
    ]

    def spread(made: Recipe, machine: Machine, measured: Measured | None = None) -> float:
        found = pace.predict(made, LLAMA_1B, machine, SHORT, measured)
        return (found.high - found.low) / found.seconds

    for made in others:
        assert spread(made, card(80)) > 1.5 * spread(plain, card(80))
        assert spread(made, card(80), Measured(ratio=1.1)) == pytest.approx(
            spread(plain, card(80), Measured(ratio=1.1))
        )
        assert spread(made, CPU) == pytest.approx(spread(plain, CPU), rel=0.05)


def test_short_rows_on_a_small_card() -> None:
    """The case in which copied settings lose most: 8B, short rows, 2 × 16 on a card of 24 GB."""
    found = fit.fit(recipe(2, 16), LLAMA_8B, card(16), SHORT)
    assert found.recipe.training.packing
    assert found.recipe.model.precision == "4bit"  # 16 bit does not fit at all
    assert found.speedup > 4.5
    assert found.pace.rows_per_step == pytest.approx(32, rel=0.3)
    assert found.memory.total_bytes + found.headroom_bytes <= 16 * GIB
    for path in fit.CHOSEN:
        choice = found.choice(path)
        assert choice is not None
        assert choice.because, path
    assert "16 bit" in found.choice("model.precision").because  # type: ignore[union-attr]
    unpacked = fit.fit(recipe(2, 16), LLAMA_8B, card(16), SHORT, {"training.packing"})
    assert not unpacked.recipe.training.packing
    assert unpacked.speedup > 2.2
    assert unpacked.recipe.effective_batch_size == 32
    roomy = fit.fit(recipe(2, 16), LLAMA_8B, card(80), SHORT)
    assert roomy.recipe.model.precision == "16bit"
    assert not roomy.recipe.lora.gradient_checkpointing
    assert dict(roomy.changes)["lora.gradient_checkpointing"] is False


@given(
    gib=st.floats(1.0, 90.0),
    name=st.sampled_from(["Llama-3.1-8B", "Llama-3.2-1B", "Qwen2.5-0.5B", "Gemma-2-2B"]),
    batch=st.integers(1, 12),
    accumulation=st.integers(1, 12),
    mean=st.floats(20, 4000),
    pinned=st.sets(st.sampled_from(fit.CHOSEN), max_size=3),
    gpu=st.booleans(),
)
def test_whatever_is_chosen_fits_and_learns_the_same(
    gib: float, name: str, batch: int, accumulation: int, mean: float, pinned: set[str], gpu: bool
) -> None:
    asked = recipe(batch, accumulation, precision="4bit" if gpu else "16bit")
    machine = card(gib) if gpu else Machine(4, None, int(gib * GIB), int(gib * GIB), None)
    lengths = Lengths.about(mean, 2048, 1000)
    try:
        found = fit.fit(asked, shape(name), machine, lengths, pinned)
    except FinetuiError as error:
        assert error.code == "fit-none"
        assert "GiB" in error.what
        return
    assert found.memory.total_bytes + found.headroom_bytes <= machine.free_bytes
    if found.recipe.training.packing:
        rows = found.recipe.effective_batch_size * lengths.rows_per_sequence(2048)
        assert rows == pytest.approx(batch * accumulation, rel=0.5)
    elif not {"training.batch_size", "training.gradient_accumulation_steps"} <= pinned:
        assert found.recipe.effective_batch_size == batch * accumulation
    for path in pinned:
        choice = found.choice(path)
        assert choice is not None
        if path not in ("training.batch_size", "training.gradient_accumulation_steps"):
            assert not choice.changed
    if not gpu:
        assert not found.recipe.training.packing
        assert found.recipe.model.precision == "16bit"


@pytest.mark.parametrize("gib", [10, 12, 20, 40, 80])
def test_nothing_that_fits_is_faster(gib: int) -> None:
    """Against every combination, tried one by one."""
    found = fit.fit(recipe(2, 16), LLAMA_8B, card(gib), SHORT)
    best = None
    for packing, checkpointing, batch in itertools.product(
        (False, True), (False, True), (1, 2, 3, 4, 8, 16, 32)
    ):
        if packing and batch > 3:
            continue
        other = recipe(
            batch,
            1 if packing and batch == 3 else max(1, (3 if packing else 32) // batch),
            precision=found.recipe.model.precision,
            packing=packing,
            checkpointing=checkpointing,
        )
        needed = memory.estimate_shape(
            other, LLAMA_8B, card_bytes=gib * GIB, longest_tokens=SHORT.longest
        ).total_bytes
        if needed * 1.05 + 192 * 2**20 > gib * GIB:
            continue
        speed = pace.predict(other, LLAMA_8B, card(gib), SHORT).seconds_per_row
        best = speed if best is None else min(best, speed)
    assert best is not None
    assert found.pace.seconds_per_row <= best * 1.05


def test_what_is_right_already_stays() -> None:
    first = fit.fit(recipe(2, 16), LLAMA_8B, card(24), SHORT)
    again = fit.fit(first.recipe, LLAMA_8B, card(24), SHORT)
    assert again.changes == ()
    assert again.speedup == pytest.approx(1)
    assert all(choice.costs == "" for choice in again.choices)


def test_where_nothing_fits_the_nearest_way_is_named_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSLOTH_CPU_BF16", "1")
    with pytest.raises(FinetuiError) as caught:
        fit.fit(recipe(1, 8, length=32_768), LLAMA_8B, card(8.5))
    assert caught.value.code == "fit-none"
    assert "8.5 GiB" in caught.value.what
    assert "sequence length of" in caught.value.fix
    assert "32,768" in caught.value.fix
    with pytest.raises(FinetuiError) as caught:
        fit.fit(recipe(8, 1, precision="16bit"), LLAMA_8B, card(12), SHORT, {"model.precision"})
    assert "model.precision = 4bit" in caught.value.fix
    with pytest.raises(FinetuiError) as caught:
        fit.fit(recipe(8, 1, precision="16bit"), model_fit.stand_in(8_000_000_000), CPU)
    assert "host" in caught.value.what
    assert "4 B weights" in caught.value.fix


def test_held_out_rows_that_do_not_fit_side_by_side_are_named() -> None:
    asked = recipe(length=4096)
    assert fit.fit(asked, LLAMA_8B, card(16)).recipe.training.batch_size
    many = asked.training.model_copy(update={"evaluation_batch_size": 64})
    with pytest.raises(FinetuiError) as caught:
        fit.fit(asked.model_copy(update={"training": many}), LLAMA_8B, card(16))
    assert caught.value.code == "fit-none" and "empty Held-out batch fits" in caught.value.fix


def test_a_large_effective_batch_goes_through_row_by_row_where_no_more_fits() -> None:
    asked = recipe(8, 256, length=8192)
    found = fit.fit(asked, LLAMA_8B, card(10)).recipe.training
    assert found.batch_size * found.gradient_accumulation_steps == 2048
    assert found.batch_size == 1


def test_a_pin_must_name_a_field_and_be_possible() -> None:
    with pytest.raises(FinetuiError, match="cannot be pinned"):
        fit.fit(recipe(), LLAMA_8B, card(80), SHORT, {"lora.rank"})
    with pytest.raises(FinetuiError, match="4-bit needs an NVIDIA GPU"):
        fit.fit(recipe(precision="4bit"), LLAMA_1B, CPU, SHORT, {"model.precision"})
    gemma = replace(LLAMA_1B, kind="gemma2")
    facts = replace(gemma.facts(), title="Gemma 2")
    with pytest.raises(FinetuiError, match="does not pack rows for Gemma 2"):
        fit.fit(recipe(packing=True), gemma, card(80), SHORT, {"training.packing"}, facts=facts)
    assert not fit.fit(recipe(packing=True), gemma, card(80), SHORT, facts=facts).recipe.training.packing


def test_another_card_is_empty_and_of_the_same_make() -> None:
    busy = card(80)
    other = fit.for_card(busy, 24 * GIB)
    assert other.free_bytes == other.total_bytes == 24 * GIB
    assert other.gpus[0].name == busy.gpus[0].name
    assert fit.for_card(CPU, 24 * GIB).has_gpu
