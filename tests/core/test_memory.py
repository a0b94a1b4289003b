"""Memory predicted from a config.json, and the command that tells it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetui.core import memory, memory_held, memory_host, memory_layer, memory_loss, recipe_file
from finetui.core.demo.recipe import demo_recipe
from finetui.core.errors import FinetuiError
from finetui.core.memory import GIB, MemoryEstimate
from finetui.core.memory_parts import MIB
from finetui.core.memory_shape import Shape, from_config, from_facts
from finetui.core.model import DEMO_FACTS
from finetui.core.recipe import LoraSection, ModelSection, Recipe, TrainingSection
from finetui.tui.commands.estimate import card_bytes

from ..bench.gpu import shapes


def shape(name: str) -> Shape:
    found = from_config(shapes.SHAPES[name])
    assert found is not None
    return found


def recipe(
    precision: str = "4bit", length: int = 2048, checkpointing: bool = True, rank: int = 16, **training: Any
) -> Recipe:
    return Recipe(
        model=ModelSection.model_validate({"precision": precision, "max_length": length}),
        lora=LoraSection(rank=rank, gradient_checkpointing=checkpointing),
        training=TrainingSection.model_validate({"batch_size": 2} | training),
    )


def predicted(name: str = "Qwen3-8B", card_gib: float = 80, **values: Any) -> MemoryEstimate:
    return memory.estimate_shape(recipe(**values), shape(name), card_bytes=int(card_gib * GIB))


DEMO_PEAK = 3206 * MIB
"""Resident at most in the demo, whose longest row has 110 tokens, on a processor without bfloat16."""


def test_a_processor_without_bfloat16_trains_in_32_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def foreseen(bf16: str) -> int:
        monkeypatch.setenv("UNSLOTH_CPU_BF16", bf16)
        return memory.estimate_host(demo_recipe(), shape("SmolLM2-135M"), longest_tokens=110).total_bytes

    assert foreseen("0") == pytest.approx(1.06 * DEMO_PEAK, rel=0.06)  # never below it
    assert foreseen("1") < 0.7 * foreseen("0")


def test_the_weights_that_a_probe_puts_aside_are_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSLOTH_CPU_BF16", "1")
    whole, small = trained(method="full"), shape("Qwen3-8B")
    found = memory.estimate_shape(whole, small, card_bytes=80 * GIB)
    assert found.host_needed_bytes > memory_host.GPU_LIBRARY_BYTES + 2 * small.parameters
    assert found.host_bytes == found.host_needed_bytes  # more than loading had mapped
    adapter = memory.estimate_shape(trained(), small, card_bytes=80 * GIB)
    assert adapter.host_bytes < found.host_bytes
    without = {part.name: part.bytes for part in memory.estimate_host(whole, small).parts}
    assert without[memory_host.PUT_ASIDE] == without["weights"] == 2 * small.parameters


@given(
    st.sampled_from(sorted(shapes.SHAPES)),
    st.sampled_from(["4bit", "16bit"]),
    st.booleans(),
    st.integers(64, 16_384),
    st.integers(1, 31),
    st.integers(1, 127),
)
def test_more_of_anything_never_takes_less(
    name: str, precision: str, checkpointing: bool, length: int, batch: int, rank: int
) -> None:
    def total(**changed: Any) -> int:
        values: dict[str, Any] = {
            "precision": precision,
            "checkpointing": checkpointing,
            "length": length,
            "batch_size": batch,
            "rank": rank,
        }
        found = predicted(name, **(values | changed))
        assert all(part.bytes >= 0 for part in (*found.parts, *found.host_parts, *found.disk_parts))
        assert found.total_bytes == found.gpu_total_bytes > found.gpu_reserved_bytes
        return found.total_bytes

    # A longer row may need less padding for attention, so that lengths are compared a whole step of it apart.
    # With checkpointing, layer inputs above 2 MiB go to the host: past that size a larger batch may take less of the GPU.
    # So may sequences of 512 and more, and where the loss is computed in chunks, more tokens than fit into one.
    slack = 1.1 if checkpointing else 1.001
    if shape(name).kind in (*memory_layer.OWN_KINDS, "gemma2", "gemma3_text"):
        assert total() <= total(batch_size=batch + 1) * slack
        assert total() <= total(length=length + 256) * slack or length < 512 <= length + 256
    assert total() <= total(rank=rank + 1)
    assert total(optimizer="adamw_8bit") <= total()


def test_what_saves_memory_saves_it() -> None:
    assert predicted(precision="4bit").total_bytes < predicted(precision="16bit").total_bytes
    assert predicted(checkpointing=True).total_bytes < predicted(checkpointing=False).total_bytes
    assert predicted(checkpointing=True).host_needed_bytes > predicted(checkpointing=False).host_needed_bytes
    assert predicted(card_gib=24, length=512).total_bytes <= predicted(length=512).total_bytes


def test_how_sure_it_is() -> None:
    assert predicted("Llama-3.1-8B").confidence == "good"
    for name in ("Phi-4-mini", "SmolLM3-3B", "Gemma-3-1B"):
        assert predicted(name).confidence == "good"
        assert predicted(name, precision="8bit").confidence == "low"
    for name in ("Qwen3-MoE-8L", "Gemma-2-2B"):
        found = predicted(name)
        assert found.confidence == "low"
        assert found.remarks
    llama = shape("Llama-3.2-1B")

    def sure(**values: Any) -> str:
        return memory.estimate_shape(trained(**values), llama).confidence

    assert sure(dora=True) == "low"
    assert sure(precision="4bit", dora=True) == sure(method="full") == sure(precision="8bit") == "fair"
    assert sure(modules_to_save=("lm_head",)) == "low"


def parts_of(name: str, **values: Any) -> dict[str, int]:
    return {part.name: part.bytes for part in predicted(name, **values).parts}


@pytest.mark.parametrize(
    ("name", "tokens", "rows"),
    [
        ("SmolLM3-3B", 2048, 2048),
        ("SmolLM3-3B", 4096, 1024),
        ("Phi-4-mini", 2048, 512),
        ("Phi-4-mini", 8192, 1024),
    ],
)
def test_logits_of_transformers_models_come_in_chunks(name: str, tokens: int, rows: int) -> None:
    """As traced: two buffers of so many rows in 16 bit, one where nothing is trained."""
    small = shape(name)
    assert memory_loss.chunk_rows(tokens, small) == rows
    logits = 2 * rows * small.vocabulary
    assert memory_loss.loss_bytes(recipe(), tokens, small, None) == 2 * logits
    assert memory_loss.loss_bytes(recipe(), tokens, small, None, training=False) == logits


def test_short_sequences_keep_their_checkpoints_on_the_gpu() -> None:
    """Below 512 tokens Unsloth leaves checkpointing to torch, which moves nothing to the host."""
    short, long = (predicted("Llama-3.2-3B", length=length, batch_size=32) for length in (511, 512))
    moved = [
        next(part.bytes for part in found.host_parts if part.name == "offloaded") for found in (short, long)
    ]
    assert moved[0] == 0 < moved[1]
    assert short.gpu_reserved_bytes > long.gpu_reserved_bytes


def test_checkpointing_saves_a_mixture_of_experts_nothing_in_its_first_step() -> None:
    """Traced in six trainings: what each layer kept when it was first tried is there at the first loss."""
    kept, first = (parts_of("Qwen3-MoE-8L", checkpointing=on) for on in (False, True))
    assert first["activations"] == pytest.approx(kept["activations"], rel=0.05)
    assert first["optimizer"] == 0 < kept["optimizer"]


def test_rows_of_one_length_need_no_mask_in_an_evaluation() -> None:
    made, small = recipe("16bit", 16_384), shape("Qwen2.5-0.5B")
    padded, even = (
        memory.estimate_shape(made, small, pads=pads).gpu_reserved_bytes for pads in (True, False)
    )
    assert padded - even > 2 * 16_384**2 * 2  # two bytes for each pair of positions at the least


def test_facts_give_the_same_shape_as_the_config() -> None:
    found, known = from_facts(DEMO_FACTS), shape("SmolLM2-135M")
    assert found is not None
    assert found.parameters == DEMO_FACTS.parameters == known.parameters
    assert (found.embeddings, found.matrices, found.vectors) == (
        known.embeddings,
        known.matrices,
        known.vectors,
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Llama-3.1-8B", 8_030_261_248),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen3-8B", 8_190_735_360),
        ("Mistral-7B", 7_248_023_552),
        ("SmolLM2-1.7B", 1_711_376_384),
        ("Gemma-2-2B", 2_614_341_888),
        ("Phi-4-mini", 3_836_021_760),
        ("SmolLM3-3B", 3_075_098_624),
    ],
)
def test_weights_are_counted_as_their_publishers_count(name: str, parameters: int) -> None:
    assert shape(name).parameters == pytest.approx(parameters, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "size"), [("24GiB", 24 << 30), ("24 gib", 24 << 30), ("80G", 80 << 30), ("24GB", 24 * 10**9)]
)
def test_the_size_of_a_card(text: str, size: int) -> None:
    assert card_bytes(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1GiB", "0", "3 apples", "1e9", "99999999TiB"])
def test_what_is_no_size_of_a_card(text: str) -> None:
    with pytest.raises(FinetuiError) as caught:
        card_bytes(text)
    assert caught.value.code == "usage"


def estimated(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "finetui.tui", "estimate", str(path), *words],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "FINETUI_HOME": str(path.parent / "home"), "COLUMNS": "100"},
    )


def test_the_command_needs_nothing_but_a_config(tmp_path: Path) -> None:
    made = recipe()
    source = str(shapes.config_only("Qwen3-8B", tmp_path / "model"))
    path = tmp_path / "recipe.yaml"
    recipe_file.save(
        made.model_copy(update={"model": made.model.model_copy(update={"source": source})}), path
    )
    told = json.loads(estimated(path, "--json", "--gpu-memory", "6GiB").stdout)
    expected = memory.estimate_shape(made, shape("Qwen3-8B"), card_bytes=6 << 30)
    assert told["gpu_reserved_bytes"] == expected.gpu_reserved_bytes
    assert told["gpu_total_bytes"] == sum(told["parts"].values()) == expected.gpu_total_bytes
    assert told["host_bytes"] == sum(told["host_parts"].values()) == expected.host_bytes
    assert told["disk_bytes"] == sum(told["disk_parts"].values()) > 0
    assert told["fits"] is False
    said = estimated(path, "--gpu-memory", "24GiB")
    assert "it fits" in said.stdout
    assert "Traceback" not in said.stdout + said.stderr


def test_a_config_without_figures_is_said(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    )
    with pytest.raises(FinetuiError) as caught:
        memory.look(str(model))
    assert caught.value.code == "model-broken"


@pytest.mark.parametrize(
    "name", ["hidden_size", "num_hidden_layers", "vocab_size", "num_experts", "sliding_window"]
)
@pytest.mark.parametrize("digits", [9, 30, 400, 5000])
def test_figures_that_no_model_has_are_said(tmp_path: Path, name: str, digits: int) -> None:
    model = shapes.config_only("Qwen3-8B", tmp_path / "model")
    text = json.dumps(json.loads((model / "config.json").read_text()) | {name: 0})
    (model / "config.json").write_text(text.replace(f'"{name}": 0', f'"{name}": 1{"0" * digits}'))
    with pytest.raises(FinetuiError) as caught:
        memory.look(str(model))
    assert caught.value.code == "model-broken"
    assert name in caught.value.why or digits == 5000  # which Python does not read as a number


def test_no_config_is_said(tmp_path: Path) -> None:
    with pytest.raises(FinetuiError):
        memory.look(str(tmp_path))


def trained(**lora: Any) -> Recipe:
    made = recipe(precision=lora.pop("precision", "16bit"), optimizer=lora.pop("optimizer", "adamw_torch"))
    return made.model_copy(update={"lora": made.lora.model_validate(lora)})


def test_packed_rows_are_reckoned_as_unsloth_runs_them() -> None:
    """Its layers are not compiled then, and reuse their buffers; sines and cosines are there for all positions."""
    shapes_of = {name: shape(name) for name in ("Llama-3.2-1B", "Phi-4-mini")}
    parts = {
        (name, packing): {
            part.name: part.bytes for part in predicted(name, length=2048, packing=packing).parts
        }
        for name in shapes_of
        for packing in (False, True)
    }
    llama = shapes_of["Llama-3.2-1B"]
    assert parts["Llama-3.2-1B", True]["activations"] < parts["Llama-3.2-1B", False]["activations"] * 0.8
    tables = [parts["Llama-3.2-1B", packing]["workspace"] for packing in (True, False)]
    assert llama.context_length == 131_072
    assert tables[0] - tables[1] == (131_072 - 32_768) * llama.head * 2 * 2
    assert parts["Phi-4-mini", True] == parts["Phi-4-mini", False]


def test_shorter_rows_in_a_packed_sequence_are_padded_more() -> None:
    made, small = recipe(length=2048, packing=True), shape("Llama-3.2-1B")

    def needed(longest: int) -> int:
        return memory.estimate_shape(made, small, longest_tokens=longest).gpu_reserved_bytes

    assert needed(2048) < needed(180) < needed(20)


def test_held_out_rows_side_by_side_take_memory_too() -> None:
    """Of an 8B at 4,096 tokens: no more than training while few, above it when many; nothing where none are held out."""

    def found(**values: Any) -> MemoryEstimate:
        return predicted("Llama-3.1-8B", length=4096, **({"batch_size": 1} | values))

    few, many = (found(evaluation_batch_size=size).gpu_reserved_bytes for size in (1, 64))
    assert found().gpu_reserved_bytes == few < many
    # One layer's hidden states, gate, up and their product in 16 bit stand side by side at the least.
    tokens, llama = 64 * 4096, shape("Llama-3.1-8B")
    assert many - memory_held.weights_bytes(recipe(), llama) > 2 * tokens * (
        3 * llama.hidden + 3 * llama.inner
    )
    sizes = [found(evaluation_batch_size=size).total_bytes for size in range(1, 65)]
    assert sizes == sorted(sizes)
    none = recipe(length=4096, batch_size=1, evaluation_batch_size=64)
    none = none.model_copy(update={"dataset": none.dataset.model_copy(update={"evaluation_share": 0.0})})
    whole = memory.estimate_shape(none, llama, card_bytes=80 * GIB)
    assert whole.gpu_reserved_bytes == few
    # Packed, the held-out rows stand alone, and are as short as they are.
    packed = recipe(length=4096, batch_size=1, packing=True, evaluation_batch_size=8)
    short, full = (memory.estimate_shape(packed, llama, longest_tokens=n).total_bytes for n in (200, 4096))
    assert short < full


@pytest.mark.parametrize(
    ("rows", "measured"), [(1, 1_803_952_128), (4, 1_887_096_832), (8, 2_711_261_184), (32, 3_202_129_920)]
)
def test_what_an_evaluation_took_on_a_processor(
    rows: int, measured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's model in 16 bit, one training row of 512 tokens and `rows` held-out ones at once: a probe's peak on two
    cores."""
    monkeypatch.setenv("UNSLOTH_CPU_BF16", "1")
    asked = recipe("16bit", 512, checkpointing=False, batch_size=1, evaluation_batch_size=rows)
    found = memory.estimate(asked, DEMO_FACTS, gpu=False)
    assert found is not None
    assert found.total_bytes == pytest.approx(measured, rel=0.08)


def test_what_is_trained_decides() -> None:
    small = shape("Qwen3-8B")
    weights = small.parameters
    whole = trained(method="full")
    assert memory_held.gradient_bytes(whole, small) == 2 * weights
    assert memory_held.optimizer_bytes(whole, small) == 4 * weights
    exact = trained(method="full", precision="32bit")
    assert memory_held.weights_bytes(exact, small) == memory_held.gradient_bytes(exact, small) == 4 * weights
    sizes = [
        memory_held.optimizer_bytes(trained(method="full", optimizer=optimizer), small)
        for optimizer in ("adafactor", "lion_8bit", "adamw_8bit", "adamw_torch")
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == 4
    plain = memory_held.gradient_bytes(trained(), small)
    table = memory_held.gradient_bytes(trained(modules_to_save=("lm_head",)), small)
    assert table == plain + 2 * small.embedding
    assert plain < memory_held.gradient_bytes(trained(dora=True), small) < plain * 1.1
    packed = [memory_held.weights_bytes(recipe(precision=p), small) for p in ("4bit", "8bit", "16bit")]
    assert packed == sorted(packed)
    assert memory.estimate_shape(whole, small).confidence == "fair"
