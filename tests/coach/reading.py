"""Reads the recorded runs as the coach sees them, moment by moment."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetui.core.coach_seen import Seen
from finetui.core.demo.recipe import demo_recipe
from finetui.core.recipe import Recipe
from finetui.core.runs import event_log, events
from finetui.core.runs.curves import Curves
from finetui.core.runs.series import Point

FOLDER = Path(__file__).with_name("recorded")
NAMES = sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))


@dataclass
class Recorded:
    """One recorded run: its recipe (of the sections that count) and its events."""

    recipe: Recipe
    events: list[event_log.Record]


def load(name: str) -> Recorded:
    body: dict[str, Any] = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    recipe = demo_recipe()
    made = Recipe.model_validate({**recipe.model_dump(), "lora": body["lora"], "training": body["training"]})
    records = [event_log.decode(json.dumps(line).encode()) for line in body["events"]]
    return Recorded(made, [record for record in records if record is not None])


@dataclass
class Reading:
    """What was seen of a run so far."""

    recipe: Recipe
    curves: Curves = field(default_factory=Curves)
    readings: list[events.Device] = field(default_factory=list)
    memory: list[Point] = field(default_factory=list)
    model: events.ModelReady | None = None
    step: events.Step | None = None

    def seen(self, live: bool = True) -> Seen:
        total = self.step.total_steps if self.step else 0
        held = self.readings[-240:]
        return Seen(
            self.curves,
            total,
            self.recipe,
            model=self.model,
            step=self.step,
            readings=held,
            memory=self.memory,
            live=live,
        )


def moments(name: str) -> Iterator[tuple[int, Seen]]:
    """Each step of the recorded run and what was known then."""
    run = load(name)
    so_far = Reading(run.recipe)
    for record in run.events:
        event = record.event
        if isinstance(event, events.Step):
            so_far.curves.add_step(event, record.ts)
            so_far.step = event
            yield event.step, so_far.seen()
        elif isinstance(event, events.Evaluation):
            so_far.curves.evaluated(event.step, event.loss)
            yield event.step, so_far.seen()
        elif isinstance(event, events.ModelReady):
            so_far.model = event
        elif isinstance(event, events.Device) and so_far.step is not None:
            so_far.readings.append(event)
            if event.run_bytes is not None:
                so_far.memory.append((record.ts, float(event.run_bytes)))
