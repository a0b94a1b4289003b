"""What cannot be trained as it is set is said at its field, before anything is loaded."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetui.core import training
from finetui.core.model_facts import ModelFacts
from finetui.core.recipe import SECTIONS, TARGET_MODULES, LoraSection, Recipe
from finetui.core.system import Gpu, Machine

CPU = Machine(2, None, 24 << 30, 20 << 30, None)
GPU = Machine(16, None, 128 << 30, 100 << 30, None, (Gpu(0, "NVIDIA H100 80GB HBM3", 80 << 30, 1 << 30),))
LLAMA = ModelFacts(
    "x", "folder", "Tiny", context_length=2048, modules=(*TARGET_MODULES, "lm_head"), model_type="llama"
)
PHI3 = replace(
    LLAMA, title="Phi", modules=("qkv_proj", "o_proj", "gate_up_proj", "down_proj"), model_type="phi3"
)
MOE = replace(
    LLAMA, title="Moe", modules=(*TARGET_MODULES[:4], "gate_up_proj", "down_proj"), model_type="qwen3_moe"
)


def recipe(**changes: Any) -> Recipe:
    values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for name, value in changes.items():
        section = next(key for key, model in SECTIONS.items() if name in model.model_fields)
        values[section][name] = value
    return Recipe.model_validate(values)


def codes(found: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    assert all(error.what and error.why and error.fix for _, error in found)
    return [(path, error.code) for path, error in found]


def test_the_defaults_can_start_everywhere() -> None:
    for machine in (CPU, GPU):
        assert training.problems(Recipe(), machine, LLAMA, 240, 26) == []
    whole = recipe(method="full", precision="32bit", formats=("merged",))
    assert training.problems(whole, CPU, LLAMA, 240, 26) == []


@pytest.mark.parametrize(
    ("changes", "path", "code"),
    [
        ({"precision": "4bit"}, "model.precision", "precision-4bit"),
        ({"precision": "8bit"}, "model.precision", "precision-8bit"),
        ({"packing": True}, "training.packing", "packing-cpu"),
        ({"optimizer": "adamw_8bit"}, "training.optimizer", "optimizer-8bit"),
        ({"optimizer": "paged_adamw_8bit"}, "training.optimizer", "optimizer-8bit"),
        ({"optimizer": "lion_8bit"}, "training.optimizer", "optimizer-8bit"),
    ],
)
def test_a_cpu_is_no_gpu(changes: dict[str, Any], path: str, code: str) -> None:
    assert codes(training.problems(recipe(**changes), CPU)) == [(path, code)]


@pytest.mark.parametrize(
    ("changes", "path", "code"),
    [
        ({"formats": ("adapter_gguf",), "method": "full"}, "export.formats", "export-full"),
        ({"formats": ("adapter_gguf",), "dora": True}, "export.formats", "adapter-gguf"),
        ({"formats": ("adapter_gguf",), "modules_to_save": ("lm_head",)}, "export.formats", "adapter-gguf"),
        ({"precision": "32bit"}, "model.precision", "lora-32bit"),
        ({"method": "full", "formats": ("merged", "adapter")}, "export.formats", "export-full"),
        ({"method": "full", "formats": ("merged",), "adapter": "a"}, "lora.method", "full-adapter"),
        ({"dora": True, "adapter": "a"}, "lora.dora", "adapter-shape"),
        ({"initialization": "loftq"}, "lora.initialization", "loftq-precision"),
        ({"modules_to_save": ("lm_head",), "adapter": "a"}, "lora.modules_to_save", "adapter-shape"),
        ({"embedding_learning_rate": 1e-4}, "training.embedding_learning_rate", "table-rate-unused"),
        ({"schedule": "constant", "warmup_steps": 3}, "training.schedule", "warmup-unused"),
        *(
            ({"early_stopping_patience": 2} | none, "training.early_stopping_patience", "evaluation-none")
            for none in ({"evaluation_share": 0.0}, {"evaluate_every_steps": 0})
        ),
    ],
)
def test_settings_that_do_not_go_together(changes: dict[str, Any], path: str, code: str) -> None:
    assert codes(training.problems(recipe(**changes), CPU)) == [(path, code)]


def test_packed_weights_cannot_be_tuned_whole() -> None:
    for precision in ("4bit", "8bit"):
        asked = recipe(method="full", precision=precision, formats=("merged",))
        assert ("model.precision", "full-packed") in codes(training.problems(asked, GPU))
    stored = replace(LLAMA, quantization="bitsandbytes 4-bit")
    asked = recipe(method="full", formats=("merged",))
    assert codes(training.problems(asked, CPU, stored)) == [("lora.method", "full-packed")]


def test_loftq_repairs_only_what_is_packed_while_loading() -> None:
    def said(facts: ModelFacts = LLAMA, **more: Any) -> list[tuple[str, str]]:
        asked = recipe(**({"initialization": "loftq", "precision": "4bit"} | more))
        found = codes(training.problems(asked, GPU, facts))
        return [one for one in found if one[0] == "lora.initialization"]

    assert said() == []
    assert said(dora=True) == said(adapter="a") == [("lora.initialization", "loftq-start")]
    assert said(precision="8bit") == [("lora.initialization", "loftq-precision")]
    stored = replace(LLAMA, quantization="bitsandbytes 4-bit")
    assert said(stored) == [("lora.initialization", "loftq-packed")]


def test_a_length_past_the_context() -> None:
    assert training.problems(recipe(max_length=2048), CPU, LLAMA) == []
    (found,) = training.problems(recipe(max_length=2049), CPU, LLAMA)
    assert found[0] == "model.max_length" and "2,048" in found[1].fix and "RoPE" in found[1].why


def test_layers_that_the_model_does_not_have() -> None:
    (found,) = training.problems(Recipe(), CPU, PHI3)
    fused = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    assert found[0] == "lora.target_modules" and found[1].fix == f"Set Layers to {', '.join(fused)}."
    assert "it has o_proj, down_proj;" in found[1].why
    for modules in (fused, ("o_proj", "down_proj")):
        assert training.problems(recipe(target_modules=modules), CPU, PHI3) == []
    assert codes(training.problems(recipe(target_modules=fused), CPU, LLAMA)) == [
        ("lora.target_modules", "target-missing")
    ]
    assert training.problems(Recipe(), CPU, MOE) == []
    assert ("export.formats", "export-4bit-model") in codes(
        training.problems(recipe(formats=("merged_4bit",)), CPU, MOE)
    )
    other = replace(LLAMA, modules=("c_attn", "c_proj"), model_type="gpt2")
    assert codes(training.problems(Recipe(), CPU, other)) == [("lora.target_modules", "target-missing")]


def test_dora_takes_no_lengths_of_experts() -> None:
    """PEFT says so only while the adapter is put on."""
    found = training.problems(recipe(dora=True), CPU, MOE)
    assert codes(found) == [("lora.dora", "dora-experts")]
    attention = recipe(dora=True, target_modules=TARGET_MODULES[:4])
    assert training.problems(attention, CPU, MOE) == training.problems(recipe(dora=True), CPU, LLAMA) == []


def test_a_family_that_unsloth_does_not_pack() -> None:
    """It turns packing off by itself, after the rows were put together, and they would read one another."""
    gemma = replace(LLAMA, model_type="gemma2", title="Gemma 2")
    found = training.problems(recipe(packing=True), GPU, gemma)
    assert codes(found) == [("training.packing", "packing-model")] and "Gemma 2" in found[0][1].what
    full = training.problems(recipe(packing=True, method="full"), GPU, gemma)
    assert codes(found)[0] in codes(full)
    assert training.problems(recipe(packing=True), GPU, LLAMA) == []
    assert training.problems(recipe(), GPU, gemma) == []


@pytest.mark.parametrize(
    ("changes", "rows", "expected"),
    [
        ({"batch_size": 9, "epochs": 2.0}, 8, [("training.batch_size", "batch-rows")]),
        ({"batch_size": 8}, 8, [("training.warmup_share", "warmup-only")]),
        ({"batch_size": 8, "warmup_steps": 0}, 8, []),
        ({"batch_size": 8, "warmup_share": 0.0}, 8, []),
        ({"batch_size": 8, "schedule": "constant"}, 8, []),
        ({"max_steps": 1}, 240, [("training.warmup_share", "warmup-only")]),
        (
            {"batch_size": 4, "gradient_accumulation_steps": 3, "epochs": 2.0},
            8,
            [("training.gradient_accumulation_steps", "batch-rows")],
        ),
        ({"warmup_steps": 30}, 240, [("training.warmup_steps", "warmup-long")]),
        ({"warmup_steps": 29}, 240, []),
        ({"warmup_steps": 5, "max_steps": 5}, 240, [("training.warmup_steps", "warmup-long")]),
    ],
)
def test_what_does_not_fit_the_rows(
    changes: dict[str, Any], rows: int, expected: list[tuple[str, str]]
) -> None:
    assert codes(training.problems(recipe(**changes), CPU, LLAMA, rows)) == expected


@pytest.mark.parametrize(
    ("every", "patience", "expected"),
    [
        (30, None, []),
        (29, 1, ["training.early_stopping_patience"]),
        (14, 1, []),  # looks at 14 and 28: one without a better loss stops the run before its step 30
        (15, 1, ["training.early_stopping_patience"]),
        (10_000, 2, ["training.early_stopping_patience"]),
    ],
)
def test_looks_that_come_too_late(every: int, patience: int | None, expected: list[str]) -> None:
    """Over a run of 30 steps."""
    asked = recipe(evaluate_every_steps=every, early_stopping_patience=patience)
    found = training.problems(asked, CPU, LLAMA, 240, 24)
    assert codes(found) == [(path, "evaluation-none") for path in expected]
    for path, error in found:
        most = int(error.fix.split("Evaluate every to ")[1].split(" or less")[0])
        for value, left in ((most, False), (most + 1, True)):
            mended = asked.training.model_copy(update={"evaluate_every_steps": value})
            again = training.problems(asked.model_copy(update={"training": mended}), CPU, LLAMA, 240, 24)
            assert (path in [wrong for wrong, _ in again]) == left
    none = training.problems(recipe(early_stopping_patience=40), CPU, LLAMA, 240, 24)
    assert "Train more steps" in none[0][1].fix


def test_too_few_rows_to_hold_any_out() -> None:
    asked = recipe(early_stopping_patience=1, evaluate_every_steps=1, batch_size=1)
    found = [("training.early_stopping_patience", "evaluation-none")]
    assert codes(training.problems(asked, CPU, LLAMA, 9, 0)) == found
    assert training.problems(asked, CPU, LLAMA, 9, 1) == []


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (("attention",), TARGET_MODULES[:4]),
        (("mlp", "q_proj"), ("q_proj", *TARGET_MODULES[4:])),
        (("all",), TARGET_MODULES),
        (("attention", "mlp"), TARGET_MODULES),
    ],
)
def test_words_stand_for_groups_of_layers(words: tuple[str, ...], modules: tuple[str, ...]) -> None:
    assert LoraSection.model_validate({"target_modules": words}).target_modules == modules


def test_the_plan_counts_the_warm_up_as_the_trainer_does() -> None:
    assert training.plan(recipe(warmup_steps=3), 240).warmup_steps == 3
    assert training.plan(recipe(warmup_share=0.1), 240).warmup_steps == 3
    assert training.plan(recipe(warmup_share=0.1, schedule="constant"), 240).warmup_steps == 0


def test_packing_needs_bitsandbytes_and_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Looked for as Python looks for a package: first there is none, then there is one on the path."""
    wanted = recipe(formats=("merged_4bit",))
    elsewhere = [place for place in sys.path if not (Path(place) / "bitsandbytes").exists()]
    monkeypatch.setattr(sys, "path", elsewhere)
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    [(path, error)] = training.problems(wanted, GPU)
    assert (path, error.code) == ("export.formats", "export-4bit") and "pip install bitsandbytes" in error.fix
    (tmp_path / "bitsandbytes").mkdir()
    (tmp_path / "bitsandbytes" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert training.problems(wanted, GPU) == []
    [(path, error)] = training.problems(wanted, CPU)
    assert (path, error.code) == ("export.formats", "export-4bit") and "NVIDIA GPU" in error.what
