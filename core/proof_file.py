"""Where proofs stand: the trained model's own answers with the run, the verdict beside the exported files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from . import atomic
from .errors import FinetuiError
from .proof import Proof, Reference
from .runs.chosen import Chosen
from .runs.store import RunFolder

FILE = "proof.json"
"""Stands beside the exported files."""


def reference_file(run: RunFolder, weights: Chosen | None = None) -> Path:
    """Where the trained model's own answers stand: those of what the run ended with, or of a checkpoint's `weights`."""
    return run.path / (
        "reference.json" if weights is None or weights.result else f"reference-{weights.step}.json"
    )


def save_reference(run: RunFolder, reference: Reference, weights: Chosen | None = None) -> None:
    """Keeps the trained model's answers with the run. Raises OSError."""
    text = json.dumps(dataclasses.asdict(reference), ensure_ascii=True)
    atomic.write_text(reference_file(run, weights), text)


def load_reference(run: RunFolder, weights: Chosen | None = None) -> Reference | None:
    """The trained model's answers, or None where the run has none (it is older, or was stopped early)."""
    return _read(reference_file(run, weights), Reference)


def save(folder: Path, proof: Proof) -> None:
    """Keeps the proof beside the exported files. Raises OSError."""
    atomic.write_text(folder / FILE, json.dumps(dataclasses.asdict(proof), indent=1, ensure_ascii=True))


def load(folder: Path) -> Proof | None:
    """The proof that stands in an export's folder, or None."""
    return _read(folder / FILE, Proof)


def _read(file: Path, kind: type[Any]) -> Any:
    try:
        return TypeAdapter(kind).validate_json(file.read_bytes())
    except (OSError, ValidationError, ValueError):
        return None


def no_reference(run: RunFolder) -> FinetuiError:
    """The card for a run without anything to compare with."""
    return FinetuiError(
        "This run has nothing to compare an export with.",
        "It was never asked anything: no row was there to ask, or it ended before its first save.",
        f"Try it by hand: finetui export {run.id} tells the command.",
        code="proof-no-reference",
    )
