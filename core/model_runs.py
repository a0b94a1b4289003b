"""Finished runs as models to go on from: their adapter on its base, or their merged model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from . import recipe_file
from .errors import FinetuiError
from .runs import care, follow, store
from .runs.chosen import settle
from .text import one_line


@dataclass(frozen=True)
class RunModel:
    """What a run that is no longer at work left behind. At least one of `adapter` and `merged` is there."""

    run_id: str
    name: str
    """Its title, where a person gave it one."""
    base: str
    """The run's model.source."""
    ended: datetime | None
    """Local time, aware."""
    state: str
    adapter: Path | None
    merged: Path | None
    best_loss: float | None
    """The lowest evaluation loss where there is one, else the last training loss. Nats per token."""
    parameters: int | None = None
    """Of its model, the adapter aside; None where the run never loaded it."""


def run_models() -> tuple[RunModel, ...]:
    """The runs that can be gone on from, newest first, without the archived ones. Blocking; raises nothing."""
    found: list[RunModel] = []
    for run in store.all_runs():
        settle(run)
        adapter = run.adapter if (run.adapter / "adapter_model.safetensors").is_file() else None
        merged = run.exports / "merged"
        whole = merged if (merged / "config.json").is_file() else None
        if adapter is None and whole is None:
            continue
        try:
            now = follow.whole_status(run)
            recipe = recipe_file.load(run.recipe)
        except (OSError, FinetuiError):  # a recipe of another version, a folder that vanishes meanwhile
            continue
        told = care.labels(run)
        if now.live or told.archived:
            continue
        best = now.best_evaluation_loss if now.best_evaluation_loss is not None else now.evaluation_loss
        found.append(
            RunModel(
                run_id=run.id,
                name=one_line(told.title or recipe.name, 100),
                base=recipe.model.source,
                ended=datetime.fromtimestamp(now.ended_ts or now.last_ts or 0).astimezone()
                if now.ended_ts or now.last_ts
                else None,
                state=now.standing,
                adapter=adapter,
                merged=whole,
                best_loss=best if best is not None else now.loss,
                parameters=now.model_parameters,
            )
        )
    return tuple(found)
