"""A trainer built in this process by the worker's own code, to be looked into."""

from __future__ import annotations

from typing import Any

from finetui.core.recipe import Recipe
from finetui.core.runs.store import RunFolder

from . import harness


class Trainer:
    """Everything up to the loop: model, dataset, trainer. Import of Unsloth must have happened."""

    def __init__(self, recipe: Recipe, run: RunFolder | None = None) -> None:
        from finetui.core.worker import dataset, model, training
        from finetui.core.worker.control import Control
        from finetui.core.worker.events import EventWriter
        from finetui.core.worker.samples import Sampler

        self.run: RunFolder = run or harness.make_run(recipe)
        self.writer = EventWriter(self.run.events)
        self.control: Any = Control(self.run.control)
        model.refuse_impossible(recipe)
        self.loaded = model.load(recipe, self.writer)
        self.prepared = dataset.prepare(recipe, self.loaded.tokenizer, self.writer, self.control.check)
        sampler = Sampler(self.loaded.model, self.loaded.tokenizer, (), self.writer, self.control)
        trainer, self.reporter = training.build(
            self.loaded, self.prepared, recipe, self.run, self.writer, self.control, sampler
        )
        self.trainer: Any = trainer
