"""Finished runs as models to go on from: their adapter on its base, or their merged model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class RunModel:
    """What a run that is no longer at work left behind. At least one of `adapter` and `merged` is there."""

    run_id: str
    name: str
    base: str
    """The run's model.source."""
    ended: datetime | None
    """Local time, aware."""
    state: str
    adapter: Path | None
    merged: Path | None
    best_loss: float | None
    """The lowest evaluation loss where there is one, else the last training loss. Nats per token."""


def run_models() -> tuple[RunModel, ...]:
    """The runs that can be gone on from, newest first. Blocking; raises nothing."""
    raise NotImplementedError
