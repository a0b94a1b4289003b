"""The export step without torch: sizes against known files, and commands that a shell takes as they are."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import get_args

import pytest

from finetui.core import export, export_budget
from finetui.core.gguf_size import Shape, gguf_bytes
from finetui.core.model import DEMO_FACTS, ModelFacts
from finetui.core.proof import LIMITS, Heard, Reference, Weights, gpu_room_bytes, judge
from finetui.core.quantizations import QUANTIZATIONS
from finetui.core.recipe import TARGET_MODULES, ExportFormat, ExportSection, LoraSection, Recipe
from finetui.core.system import Machine

GIB = 1024**3

LLAMA_8B = ModelFacts(
    source="meta-llama/Llama-3.1-8B-Instruct",
    kind="hub",
    title="Llama-3.1-8B-Instruct",
    parameters=8_030_261_248,
    hidden_size=4096,
    intermediate_size=14336,
    layers=32,
    heads=32,
    kv_heads=8,
    vocabulary=128_256,
    tied_embeddings=False,
)


def test_every_format_of_a_recipe_is_described() -> None:
    assert set(export.FORMATS) == set(get_args(ExportFormat))
    for format, info in export.FORMATS.items():
        assert info.format == format
        assert info.title and info.summary
        assert len(info.summary) < 70


@pytest.mark.parametrize(
    ("format", "gib"),
    [
        ("gguf_f16", 14.96),
        ("gguf_q8_0", 7.95),
        ("gguf_q6_k", 6.14),
        ("gguf_q5_k_m", 5.33),
        ("gguf_q4_k_m", 4.58),
        ("gguf_q3_k_m", 3.74),
    ],
)
def test_sizes_of_llama_8b(format: ExportFormat, gib: float) -> None:
    """The sizes that llama.cpp reports for Llama-3.1-8B."""
    guess = export.estimated_bytes(format, LLAMA_8B, LoraSection())
    assert guess == pytest.approx(gib * GIB, rel=0.02)


@pytest.mark.parametrize(
    ("format", "size"),
    [
        ("merged", 270_821_670),
        ("gguf_f16", 270_885_792),
        ("gguf_q8_0", 144_810_912),
        ("gguf_q4_k_m", 105_453_984),
        ("gguf_q5_k_m", 112_100_000),
    ],
)
def test_sizes_of_the_demo(format: ExportFormat, size: int) -> None:
    """Measured on exports of the demo's model."""
    assert export.estimated_bytes(format, DEMO_FACTS, LoraSection()) == pytest.approx(size, rel=0.03)


def test_the_size_in_four_bit() -> None:
    """Llama-3.1-8B as bitsandbytes stores it takes 5.7 GB: tables and output layer stay in 16 bit."""
    guess = export.estimated_bytes("merged_4bit", LLAMA_8B, LoraSection())
    assert guess == pytest.approx(5.7e9, rel=0.02)


def test_the_adapters_size_follows_rank_and_layers() -> None:
    whole = export.estimated_bytes("adapter", DEMO_FACTS, LoraSection(rank=16, target_modules=TARGET_MODULES))
    assert whole == pytest.approx(305_280 * 16 * 4, rel=0.25)
    assert whole is not None
    double = export.estimated_bytes(
        "adapter", DEMO_FACTS, LoraSection(rank=32, target_modules=TARGET_MODULES)
    )
    assert double is not None
    assert double - whole == 305_280 * 16 * 4
    fewer = export.estimated_bytes("adapter", DEMO_FACTS, LoraSection(rank=16, target_modules=("q_proj",)))
    assert fewer is not None
    assert fewer < whole


def test_an_unknown_shape_has_no_size() -> None:
    facts = ModelFacts(source="x/y", kind="hub", title="y")
    assert {export.estimated_bytes(format, facts, LoraSection()) for format in export.FORMATS} == {None}


@pytest.mark.parametrize("format", list(export.FORMATS))
def test_commands_survive_hostile_paths_and_prompts(format: ExportFormat) -> None:
    path = Path("/home/o'neil/$(touch x) `y`; rm -rf ~/m.gguf")
    prompt = 'it\'s "quoted" $HOME\nsecond line'
    for command in export.next_commands(format, path, "kiosk-Helper", "owner/base; ls", prompt):
        words = shlex.split(command.command)
        assert any(str(place) in word for place in (path, path.parent, path.parent.parent) for word in words)
        if "-sys" in words:
            assert prompt in words
        assert "touch" not in words
        assert command.title
    assert export.next_command(format, path, "kiosk-Helper", "owner/base") != ""


def test_gguf_commands_name_the_file_and_the_modelfile() -> None:
    ollama, llama_cpp, server = export.next_commands(
        "gguf_q8_0", Path("/runs/r/exports/gguf_q8_0/Bot-Q8_0.gguf"), "Bot", "b"
    )
    assert ollama.command == "ollama create bot -f /runs/r/exports/gguf_q8_0/Modelfile && ollama run bot"
    assert llama_cpp.command == "llama-cli -m /runs/r/exports/gguf_q8_0/Bot-Q8_0.gguf -cnv"
    assert server.command == "llama-server -m /runs/r/exports/gguf_q8_0/Bot-Q8_0.gguf --alias Bot"


def test_vllm_is_told_that_the_weights_are_packed() -> None:
    ask, vllm = export.next_commands("merged_4bit", Path("/r/exports/merged_4bit"), "Bot", "b")
    assert ask.command.endswith("/r/exports/merged_4bit/ask.py 'Hello!'")
    assert (
        vllm.command
        == "vllm serve /r/exports/merged_4bit --served-model-name Bot --quantization bitsandbytes"
    )


def test_an_adapter_for_llama_cpp_is_used_over_a_gguf_of_the_base() -> None:
    server, chat, ollama = export.next_commands(
        "adapter_gguf", Path("/r/exports/adapter_gguf"), "Bot", "b", "Be brief."
    )
    assert (
        server.command == "llama-server -m BASE.gguf --lora /r/exports/adapter_gguf/Bot-lora.gguf --alias Bot"
    )
    assert chat.command.endswith("Bot-lora.gguf -cnv -sys 'Be brief.'")
    assert ollama.command == "finetui ollama /r --base BASE.gguf && ollama run bot"


@pytest.mark.parametrize(("begins", "said"), [(False, "false"), (True, "true")])
def test_llama_cpp_is_told_how_a_question_begins_where_the_base_has_it_otherwise(
    begins: bool, said: str
) -> None:
    folder = Path("/r/exports/adapter_gguf")
    server, chat, whole = export.next_commands("adapter_gguf", folder, "Bot", "b", begins=begins)
    for way in (server, chat):
        assert f" --override-kv tokenizer.ggml.add_bos_token=bool:{said} " in way.command
    assert whole.command == "finetui export /r --format gguf_q8_0", "Ollama takes no such setting"


def test_vllm_is_told_of_a_rank_that_it_would_refuse() -> None:
    def serving(lora: LoraSection) -> str:
        return export.next_commands("adapter", Path("/a"), "Bot", "owner/base", lora=lora)[1].command

    assert serving(LoraSection(rank=16)) == "vllm serve owner/base --enable-lora --lora-modules Bot=/a"
    assert serving(LoraSection(rank=24)).endswith("--max-lora-rank 32")
    assert serving(LoraSection(rank=64)).endswith("--max-lora-rank 64")
    loftq = LoraSection(rank=16, initialization="loftq")
    assert serving(loftq).endswith("--max-lora-rank 32"), "it leaves at twice the rank"


@pytest.mark.parametrize("lora", [LoraSection(dora=True), LoraSection(modules_to_save=("lm_head",))])
def test_vllm_is_given_no_adapter_that_it_refuses(lora: LoraSection) -> None:
    _ask, way = export.next_commands("adapter", Path("/r/exports/adapter"), "Bot", "b", lora=lora)
    assert way.command == "finetui export /r --format merged" and "vLLM takes no adapter with" in way.title


GQA = Shape(1024, 2816, 9, 1024, 256, 264, False)
"""Rows of a multiple of 256 weights, and four query heads to a pair of keys and values."""


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Q8_0", 108_454_816),
        ("Q5_1", 76_601_824),
        ("Q5_K_M", 72_333_280),
        ("Q5_K_S", 70_244_320),
        ("Q4_1", 63_886_816),
        ("IQ4_NL", 58_184_672),
        ("Q4_K_S", 58_020_832),
        ("Q4_0", 57_529_312),
        ("IQ4_XS", 55_169_760),
        ("Q3_K_L", 53_751_712),
        ("Q3_K_M", 49_098_656),
        ("IQ3_M", 45_969_312),
        ("IQ3_S", 44_332_960),
        ("Q3_K_S", 44_019_616),
        ("Q2_K", 37_835_872),
        ("IQ3_XS", 42_157_984),
        ("IQ3_XXS", 39_357_280),
        ("Q2_K_S", 34_917_472),
        ("IQ2_M", 34_806_624),
        ("IQ2_S", 32_095_072),
        ("IQ2_XS", 30_447_648),
        ("IQ2_XXS", 27_441_184),
        ("IQ1_M", 24_051_744),
        ("IQ1_S", 22_018_080),
    ],
)
def test_sizes_are_those_that_the_quantizer_makes(name: str, size: int) -> None:
    """Measured on files that llama.cpp's quantizer made of a random model of that shape."""
    assert gguf_bytes(name, GQA) == pytest.approx(size, rel=0.001)


def test_every_quantization_says_what_it_costs_and_has_limits_to_prove_it_by() -> None:
    assert set(LIMITS) == set(export.FORMATS)
    for quantization in QUANTIZATIONS.values():
        assert quantization.loss
        unmeasured = ("F16", "F32", "BF16", "IQ1_M", "IQ1_S")
        assert (quantization.perplexity is None) == (quantization.name in unmeasured)


def test_a_budget_counts_what_is_made_on_the_way_once() -> None:
    recipe = Recipe(export=ExportSection(formats=("gguf_q4_k_m", "gguf_q8_0")))
    two = export_budget.of_facts(recipe, DEMO_FACTS, ("gguf_q4_k_m", "gguf_q8_0"))
    one = export_budget.of_facts(recipe, DEMO_FACTS, ("gguf_q8_0",))
    assert (two.shared, one.shared) == (("Merged, 16-bit", "GGUF F16"), ("Merged, 16-bit",))
    there = export_budget.of_facts(recipe, DEMO_FACTS, ("gguf_q4_k_m", "merged"), there=("merged",))
    assert there.shared == ("GGUF F16",) and there.needs[1].disk_bytes == 0
    packed = export_budget.of_facts(recipe, DEMO_FACTS, ("merged_4bit",))
    both = export_budget.of_facts(recipe, DEMO_FACTS, ("merged_4bit", "gguf_q8_0"))
    assert packed.shared == both.shared == ("Merged, 16-bit",)
    assert export_budget.of_facts(recipe, DEMO_FACTS, ("merged_4bit", "merged")).shared_bytes == 0
    assert packed.proof_ram_bytes and one.proof_ram_bytes and packed.proof_ram_bytes > one.proof_ram_bytes / 2
    assert export_budget.of_facts(recipe, DEMO_FACTS, ("adapter",)).shared_bytes == 0
    assert export_budget.of_facts(recipe, None, ("merged",)).disk_bytes is None


def test_the_memory_for_a_matrix_and_for_an_adapters_base_is_counted() -> None:
    def need(format: ExportFormat, importance: bool = False) -> export_budget.Need:
        section = ExportSection(formats=(format,), importance=importance)
        return export_budget.of_facts(Recipe(export=section), LLAMA_8B, (format,)).needs[0]

    model = export.estimated_bytes("gguf_f16", LLAMA_8B, LoraSection())
    assert model is not None
    cases: tuple[tuple[ExportFormat, bool, bool], ...] = (
        ("gguf_iq2_xs", False, True),
        ("gguf_q4_k_m", False, False),
        ("gguf_q4_k_m", True, True),
        ("gguf_q8_0", True, False),
    )
    for format, importance, whole in cases:
        ram = need(format, importance).ram_bytes
        assert ram is not None and (ram > model) == whole, format
    proof = need("adapter").proof_ram_bytes
    assert proof is not None and proof > model, "PEFT loads the base too"


def test_the_memory_of_a_gpu_that_a_proof_takes_is_told_by_format() -> None:
    """Transformers loads what it opens on the GPU, PEFT the base too; llama.cpp opens a GGUF on the CPU."""
    formats: tuple[ExportFormat, ...] = ("adapter", "adapter_gguf", "merged", "merged_4bit", "gguf_q8_0")
    found = export_budget.of_facts(Recipe(), LLAMA_8B, formats)
    adapter, adapter_gguf, merged, packed, gguf = (need.proof_gpu_bytes for need in found.needs)
    model = export.estimated_bytes("merged", LLAMA_8B, LoraSection())
    assert model and merged and adapter and packed and merged == gpu_room_bytes(model)
    assert packed < model < merged < adapter == found.proof_gpu_bytes
    assert adapter_gguf == gguf == 0
    unproved = Recipe(export=ExportSection(prove=False))
    assert export_budget.of_facts(unproved, LLAMA_8B, formats).proof_gpu_bytes == 0
    assert export_budget.of_facts(Recipe(), None, ("merged",)).proof_gpu_bytes is None


def test_the_disk_for_an_adapters_proof_is_counted_and_said() -> None:
    """Its GGUF of the base is made when the exports stand: too little for it hinders no export."""
    recipe = Recipe(export=ExportSection(formats=("adapter_gguf",)))
    base = export.estimated_bytes("gguf_f16", LLAMA_8B, LoraSection())
    found = export_budget.of_facts(recipe, LLAMA_8B, ("adapter_gguf",))
    assert base is not None and found.disk_bytes is not None and found.disk_bytes < base / 10
    assert found.proof_disk_bytes == found.disk_bytes + base
    said = export_budget.too_little_to_prove(found, base)
    assert "15.0 GiB" in said and "finetui verify" in said
    assert export_budget.too_little_to_prove(found, 2 * base) == ""
    both = export_budget.of_facts(recipe, LLAMA_8B, ("adapter_gguf",), there=("adapter_gguf",))
    unproved = Recipe(export=ExportSection(formats=("adapter_gguf",), prove=False))
    without = export_budget.of_facts(unproved, LLAMA_8B, ("adapter_gguf",))
    other = export_budget.of_facts(recipe, LLAMA_8B, ("merged",))
    assert both.base_bytes == without.base_bytes == other.base_bytes == 0
    assert export_budget.of_facts(recipe, None, ("adapter_gguf",)).proof_disk_bytes is None


def test_a_disk_that_cannot_hold_the_exports_is_said_before_training() -> None:
    machine = Machine(
        cores=2,
        cpu_percent=None,
        memory_total_bytes=GIB,
        memory_available_bytes=GIB,
        disk_free_bytes=200 * 1024**2,
    )
    recipe = Recipe(export=ExportSection(formats=("merged",)))
    [(path, error)] = export_budget.before_training(recipe, machine, DEMO_FACTS)
    assert (path, error.code) == ("export.formats", "no-space") and "Merged, 16-bit" in error.what
    roomy = dataclasses.replace(machine, disk_free_bytes=100 * GIB)
    assert export_budget.before_training(recipe, roomy, DEMO_FACTS) == []
    short = export_budget.memory_before_training(recipe, machine, LLAMA_8B)
    assert short.startswith("Making the exports takes about") and "1.0 GiB is free" in short
    proved = dataclasses.replace(machine, memory_available_bytes=4 * GIB)
    assert export_budget.memory_before_training(recipe, proved, LLAMA_8B).startswith("Proving the exports")
    large = dataclasses.replace(machine, memory_available_bytes=64 * GIB)
    assert export_budget.memory_before_training(recipe, large, LLAMA_8B) == ""


@pytest.mark.parametrize(
    ("format", "share", "passed"),
    [
        ("merged", 1.29, False),
        ("gguf_iq3_xxs", 1.29, True),  # measured on a sound one
        ("gguf_iq2_m", 0.02, False),  # on an unmerged one
        ("gguf_iq2_m", 2.0, False),
    ],
)
def test_a_low_bit_type_may_lean_with_what_was_learned_but_not_leave_it_out(
    format: str, share: float, passed: bool
) -> None:
    heard = Heard(error="not opened", consumer="llama.cpp")
    for precision in ("16bit", "4bit"):
        found = judge(format, Reference((), "", precision, {}), heard, Weights(tensors=1, learned=share))
        assert [check.passed for check in found.checks if check.name == "adapter merged"] == [passed]


@pytest.mark.parametrize(("noise", "passed"), [(0.0, False), (0.05, False), (0.08, True), (0.4, True)])
def test_a_share_that_rounding_hides_is_no_fault(noise: float, passed: bool) -> None:
    """A sound Q3_K_M was found to hold 78 % of a small change, give or take 14 %."""
    heard = Heard(error="not opened", consumer="llama.cpp")
    weights = Weights(tensors=1, learned=0.6, noise=noise)
    found = judge("gguf_q3_k_m", Reference((), "", "16bit", {}), heard, weights)
    [check] = [check for check in found.checks if check.name == "adapter merged"]
    assert check.passed == passed and ("small beside the rounding" in check.sentence) == (noise > 0)
