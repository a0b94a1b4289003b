"""The export step without torch: sizes against known files, and commands that a shell takes as they are."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import get_args

import pytest

from finetui.core import export
from finetui.core.model import ModelFacts
from finetui.core.recipe import TARGET_MODULES, ExportFormat, LoraSection

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
DEMO = ModelFacts(
    source="demo",
    kind="demo",
    title="SmolLM2-135M-Instruct",
    parameters=134_515_008,
    hidden_size=576,
    intermediate_size=1536,
    layers=30,
    heads=9,
    kv_heads=3,
    vocabulary=49_152,
    tied_embeddings=True,
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
    assert export.estimated_bytes(format, DEMO, LoraSection()) == pytest.approx(size, rel=0.03)


def test_the_adapters_size_follows_rank_and_layers() -> None:
    whole = export.estimated_bytes("adapter", DEMO, LoraSection(rank=16, target_modules=TARGET_MODULES))
    assert whole == pytest.approx(305_280 * 16 * 4, rel=0.25)
    assert whole is not None
    double = export.estimated_bytes("adapter", DEMO, LoraSection(rank=32, target_modules=TARGET_MODULES))
    assert double is not None
    assert double - whole == 305_280 * 16 * 4
    fewer = export.estimated_bytes("adapter", DEMO, LoraSection(rank=16, target_modules=("q_proj",)))
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
        assert any(str(path) in word or str(path.parent) in word for word in words)
        if "-sys" in words:
            assert prompt in words
        assert "touch" not in words
        assert command.title
    assert export.next_command(format, path, "kiosk-Helper", "owner/base") != ""


def test_gguf_commands_name_the_file_and_the_modelfile() -> None:
    ollama, llama_cpp = export.next_commands(
        "gguf_q8_0", Path("/runs/r/exports/gguf_q8_0/Bot-Q8_0.gguf"), "Bot", "b"
    )
    assert ollama.command == "ollama create bot -f /runs/r/exports/gguf_q8_0/Modelfile && ollama run bot"
    assert llama_cpp.command == "llama-cli -m /runs/r/exports/gguf_q8_0/Bot-Q8_0.gguf -cnv"
