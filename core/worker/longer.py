"""The learning rate of a training that goes on after its end: its schedule runs anew over the steps that were added."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from ..recipe import Recipe
from ..runs import lineage
from ..runs.store import RunFolder


class _Rate(TrainerCallback):
    """Sets the rate of the first step: a checkpoint brings that of the old schedule's end, and the old peak with it."""

    def __init__(self, peak: float) -> None:
        self._peak = peak

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        optimizer, scheduler = kwargs["optimizer"], kwargs["lr_scheduler"]
        old = max(scheduler.base_lrs) or self._peak
        scheduler.base_lrs = [self._peak * base / old for base in scheduler.base_lrs]
        rates = [
            base * shape(scheduler.last_epoch)
            for base, shape in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
        for group, base, rate in zip(optimizer.param_groups, scheduler.base_lrs, rates, strict=True):
            group["initial_lr"], group["lr"] = base, rate
        scheduler._last_lr = rates


def restart(trainer: Any, recipe: Recipe, run: RunFolder) -> None:
    """Lets `trainer`, where `run` is one trained longer, run its schedule (warm-up and all) from the step that it goes on
    after to the end. A warm restart, as in Loshchilov and Hutter 2017 (arXiv 1608.03983). Does nothing otherwise."""
    of = lineage.origin(run)
    if of is None or of.how != "longer":
        return
    begin, make = of.step, trainer.create_scheduler

    def create(num_training_steps: int, optimizer: Any = None) -> Any:
        fresh = trainer.lr_scheduler is None
        scheduler = make(max(1, num_training_steps - begin), optimizer)
        if fresh and hasattr(scheduler, "lr_lambdas"):
            scheduler.lr_lambdas = [
                lambda step, shape=shape: shape(max(0, step - begin)) for shape in scheduler.lr_lambdas
            ]
        return scheduler

    trainer.create_scheduler = create
    trainer.add_callback(_Rate(recipe.training.learning_rate))
