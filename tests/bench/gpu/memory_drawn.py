"""The points that `memory_grid` measures, by part: what the constants of `core/memory.py` are fitted to, and what is only compared."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from .memory_one import Point

_BIG = ("Qwen3-8B", "Mistral-7B", "Llama-3.1-8B", "Qwen2.5-7B")
_MIDDLE = ("Llama-3.2-3B", "Gemma-2-2B", "Qwen3-4B", "SmolLM3-3B", "Phi-4-mini")

_UNPACKED = ("Gemma-2-2B",)
"""Unsloth packs no rows for these."""

_TRACED = (("Llama-3.2-1B", "4bit"), ("Qwen3-8B", "4bit"), ("Gemma-2-2B", "4bit"))
"""Where each allocation of the peak is asked for by name as well: it takes seconds."""


def _most_tokens(name: str) -> int:
    """Tokens of a batch that are trained in a second or two."""
    return 6144 if name in _BIG else 8192 if name in _MIDDLE else 16384


def fit_points() -> Iterator[Point]:
    """The points that the constants of `core/memory.py` are fitted to, the most telling first."""
    names = (
        "Llama-3.2-1B",
        "Qwen2.5-0.5B",
        "Llama-3.2-3B",
        "Qwen3-8B",
        "Gemma-2-2B",
        "Mistral-7B",
        "Qwen3-0.6B",
    )
    for name in names:
        most, four = _most_tokens(name), "4bit"
        whole, both = "16bit", ("16bit", "4bit")
        for precision in both:
            trace = (name, precision) in _TRACED
            yield Point(name, precision, 2048, 2, trace=trace)
            yield Point(name, precision, 1024, 2, checkpointing=False, trace=trace)
        for precision in both:
            yield Point(name, precision, 512, 1, rank=8)
        for precision in both:
            yield Point(name, precision, most // 2, 2)
            if name not in _UNPACKED:
                yield Point(name, precision, 2048, 2, packing=True, rows="short")
        yield Point(name, four, 512, 8, checkpointing=False, rank=32)
        yield Point(name, whole, 512, 4, checkpointing=False, rank=32)
        yield Point(name, whole, 512, most // 512, rank=128, optimizer="adamw_8bit")
        yield Point(name, four, 2048, 1, rank=128)
        yield Point(name, four, 4096, 1, targets="attention")
        yield Point(name, whole, 1024, 1, rank=64, targets="attention", checkpointing=False)
        yield Point(name, four, 2 * most, 1, rank=32)
        yield Point(name, whole, most, 1, rank=64)
        yield Point(name, whole, 1024, 4, rank=16)
        yield Point(name, four, 1024, 8, rank=16)


def other_points() -> Iterator[Point]:
    """Families that Unsloth trains in another way, and things of which one look is enough."""
    for name in ("Gemma-3-1B", "Phi-4-mini", "SmolLM3-3B", "Qwen3-MoE-8L"):
        for precision in ("16bit", "4bit"):
            trace = precision == "4bit" and name != "SmolLM3-3B"
            yield Point(name, precision, 2048, 2, trace=trace)
            yield Point(name, precision, 1024, 2, checkpointing=False, trace=trace)
        for precision in ("16bit", "4bit"):
            yield Point(name, precision, 512, 4, rank=64)
            yield Point(name, precision, 8192, 1)
    for name in ("Llama-3.2-1B", "Qwen3-8B"):
        yield Point(name, "4bit", 2048, 2, card_gib=24.0)
        yield Point(name, "4bit", 1024, 6, card_gib=24.0)
    for name in ("Qwen2.5-0.5B", "Llama-3.2-1B", "Qwen3-1.7B"):
        yield Point(name, "16bit", 1024, 4, method="full")
        yield Point(name, "16bit", 2048, 2, method="full", optimizer="adamw_8bit")
        yield Point(name, "32bit", 512, 2, method="full", checkpointing=False)
        yield Point(name, "4bit", 1024, 4, method="dora")
        yield Point(name, "8bit", 1024, 4)
    yield Point("Llama-3.2-1B", "16bit", 2048, 2, dropout=0.1)
    yield Point("Llama-3.2-1B", "4bit", 2048, 2, dropout=0.1)


def held_out_points() -> Iterator[Point]:
    """Points that nothing is fitted to: other shapes of the same families, and other settings of known ones."""
    draw = random.Random(20)
    others = (
        "Llama-3.1-8B",
        "Qwen3-4B",
        "Qwen3-1.7B",
        "SmolLM2-1.7B",
        "Qwen2.5-1.5B",
        "Qwen2.5-7B",
        "SmolLM2-135M",
    )
    for name in (*others, "Llama-3.2-3B", "Gemma-2-2B"):
        for index in range(12):
            precision = ("16bit", "4bit")[index % 2]
            length = draw.choice((512, 700, 1024, 1500, 2048, 3000, 4096, 6144, 8192, 12288))
            limit, checkpointing = _most_tokens(name), index // 2 not in (2, 5)
            if not checkpointing:
                limit //= 4
                length = min(length, limit)
            batch = max(1, min(32, draw.choice((limit, limit // 2, limit // 4)) // length))
            packing = index // 2 == 3 and name not in _UNPACKED
            yield Point(
                name,
                precision,
                length,
                batch,
                rank=draw.choice((8, 16, 32, 64, 128)),
                checkpointing=checkpointing,
                packing=packing,
                rows="short" if packing else "full",
                optimizer=draw.choice(("adamw_torch", "adamw_torch", "adamw_8bit")),
                targets="attention" if index // 2 == 4 else "all",
                split="held-out",
            )


def mixed_points() -> Iterator[Point]:
    """Packed rows of many lengths, as real ones are; nothing is fitted to them."""
    for name, length, batch in (
        ("Qwen2.5-1.5B", 2048, 4),
        ("Llama-3.1-8B", 4096, 1),
        ("Qwen3-1.7B", 1024, 6),
        ("SmolLM2-135M", 2048, 8),
        ("Llama-3.2-1B", 1024, 3),
        ("SmolLM3-3B", 2048, 2),
    ):
        for precision in ("16bit", "4bit"):
            yield Point(name, precision, length, batch, packing=True, rows="mixed", split="held-out")
    yield Point(
        "Qwen2.5-1.5B", "16bit", 1024, 2, packing=True, rows="mixed", checkpointing=False, split="held-out"
    )
    yield Point(
        "Llama-3.2-1B", "4bit", 2048, 2, packing=True, rows="mixed", targets="attention", split="held-out"
    )


def evaluation_points() -> Iterator[Point]:
    """Batches of held-out rows that are much larger than the training's; nothing is fitted to them."""
    for name, precision, length, batch, evaluated in (
        ("Llama-3.2-1B", "16bit", 1024, 1, 16),
        ("Llama-3.2-1B", "4bit", 2048, 1, 8),
        ("Qwen2.5-0.5B", "16bit", 512, 2, 64),
        ("Qwen3-8B", "4bit", 1024, 1, 16),
        ("SmolLM2-1.7B", "4bit", 512, 1, 32),
        ("Gemma-2-2B", "16bit", 1024, 1, 8),
    ):
        yield Point(name, precision, length, batch, evaluation_batch=evaluated, split="held-out")
    for name in (
        "Llama-3.2-3B",
        "Qwen3-1.7B",
    ):  # rows of many lengths side by side are padded, and need a mask
        yield Point(name, "4bit", 450, 2, evaluation_batch=32, rows="mixed", split="held-out")


def long_points() -> Iterator[Point]:
    """Rows of more than 12,288 tokens; nothing is fitted to them."""
    for name, precision, length, batch in (
        ("Qwen2.5-0.5B", "16bit", 16384, 2),
        ("Llama-3.2-1B", "4bit", 32768, 1),
        ("SmolLM2-1.7B", "16bit", 24576, 1),
        ("Qwen3-4B", "4bit", 32768, 1),
        ("Llama-3.1-8B", "4bit", 16384, 1),
        ("Llama-3.1-8B", "16bit", 32768, 1),
    ):
        yield Point(name, precision, length, batch, split="held-out")


def family_points() -> Iterator[Point]:
    """Families and methods that Unsloth trains in another way, with settings drawn anew; nothing is fitted to them."""
    kept: dict[str, Any] = {"checkpointing": False}
    attention: dict[str, Any] = {"targets": "attention"}
    small: dict[str, Any] = {"optimizer": "adamw_8bit"}
    dora: dict[str, Any] = {"method": "dora", "trace": True}
    given: tuple[tuple[str, str, int, int, int, dict[str, Any]], ...] = (
        ("Gemma-2-2B", "16bit", 4096, 1, 32, {"trace": True}),
        ("Gemma-2-2B", "16bit", 700, 3, 64, small),
        ("Gemma-2-2B", "16bit", 512, 2, 16, kept | {"trace": True}),
        ("Gemma-2-2B", "4bit", 3000, 1, 8, {}),
        ("Gemma-2-2B", "4bit", 1500, 2, 128, attention),
        ("Gemma-2-2B", "4bit", 900, 1, 32, kept),
        ("Mistral-7B", "16bit", 3000, 1, 32, {}),
        ("Mistral-7B", "16bit", 700, 2, 64, kept),
        ("Mistral-7B", "4bit", 4096, 2, 64, small),
        ("Mistral-7B", "4bit", 1500, 1, 128, kept | attention),
        ("Phi-4-mini", "16bit", 3000, 1, 32, {}),
        ("Phi-4-mini", "16bit", 700, 2, 8, kept),
        ("Phi-4-mini", "4bit", 1500, 3, 128, {}),
        ("Phi-4-mini", "4bit", 900, 2, 32, kept | attention),
        ("SmolLM3-3B", "16bit", 3000, 2, 32, {}),
        ("SmolLM3-3B", "4bit", 1500, 1, 64, kept | {"trace": True}),
        ("SmolLM3-3B", "4bit", 6144, 1, 128, attention),
        ("Gemma-3-1B", "16bit", 3000, 2, 32, {}),
        ("Gemma-3-1B", "4bit", 700, 8, 128, {}),
        ("Gemma-3-1B", "4bit", 1500, 2, 16, kept | attention),
        ("Qwen3-MoE-8L", "16bit", 3000, 1, 32, {"trace": True}),
        ("Qwen3-MoE-8L", "16bit", 700, 2, 8, kept),
        ("Qwen3-MoE-8L", "4bit", 1500, 4, 16, {}),
        ("Qwen3-MoE-8L", "4bit", 4096, 1, 64, attention),
        ("Llama-3.2-1B", "16bit", 1500, 2, 32, dora),
        ("Qwen2.5-1.5B", "4bit", 700, 2, 16, dora | kept),
        ("Llama-3.2-3B", "4bit", 2048, 1, 64, dora),
        ("Qwen2.5-1.5B", "8bit", 1500, 2, 32, {"trace": True}),
        ("SmolLM2-1.7B", "8bit", 2048, 2, 16, {}),
    )
    for name, precision, length, batch, rank, more in given:
        yield Point(name, precision, length, batch, rank=rank, split="held-out", **more)


PARTS = {
    "fit": fit_points,
    "other": other_points,
    "held-out": held_out_points,
    "mixed": mixed_points,
    "evaluation": evaluation_points,
    "long": long_points,
    "families": family_points,
}
