"""The export step: the formats, their sizes, and what to do with each next. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .model import ModelFacts
from .recipe import ExportFormat, LoraSection


@dataclass(frozen=True)
class FormatInfo:
    """One export format for people. `needs_llama_cpp`: made with llama.cpp's compiled quantizer."""

    format: ExportFormat
    title: str
    summary: str
    bits_per_weight: float | None
    needs_llama_cpp: bool = False


FORMATS: dict[ExportFormat, FormatInfo] = {}


def estimated_bytes(format: ExportFormat, facts: ModelFacts, lora: LoraSection) -> int | None:
    """About how large the export will be, in bytes; None where the model's shape is not known."""
    raise NotImplementedError


def next_command(format: ExportFormat, path: Path, name: str, base: str) -> str:
    """The exact shell command that uses the export at `path` next (quoted)."""
    raise NotImplementedError
