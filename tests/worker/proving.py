"""A run that was trained, exported and proved by a real worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetui.core import proof_file
from finetui.core.proof import Reference
from finetui.core.runs.store import RunFolder

from . import harness


@dataclass(frozen=True)
class Proven:
    run: RunFolder
    base: Path
    reference: Reference


def prove_run(model: Path, rows: Path, formats: Sequence[str], **changes: object) -> Proven:
    """60 steps on the tiny `model`, enough to be sure of some answers."""
    recipe = harness.recipe(
        model,
        rows,
        max_steps=60,
        learning_rate=2e-2,
        evaluation_share=0.2,
        formats=tuple(formats),
        **changes,
    )
    run = harness.trained(recipe)
    reference = proof_file.load_reference(run)
    assert reference is not None
    return Proven(run, model, reference)
