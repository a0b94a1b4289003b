"""What happens when memory runs out in a run: the step is done again in smaller parts, and nothing is lost.

The weights change only at the end of a step, so a step whose batch did not fit is begun anew: gradients are cleared, the
random numbers set back, and the same rows go through in parts. The loss of an update is a sum over its learned tokens
divided by their number, whatever the parts.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from .. import recipe_file
from ..recipe import Recipe
from ..runs.events import Warned
from ..runs.store import RunFolder
from ..training import smaller_batch
from . import failures, parts, randomness
from .events import EventWriter


class Ladder(TrainerCallback):
    """Watches over one trainer. The rungs: fewer rows side by side, checkpointing, and rows left out where that is allowed.

    `recipe` is the recipe as it is run now.
    """

    def __init__(self, trainer: Any, recipe: Recipe, run: RunFolder, writer: EventWriter) -> None:
        self.recipe = recipe
        self.rows = self._full = recipe.training.batch_size
        """Rows (packed: sequences) that go through the model side by side."""
        self.evaluation_rows = self._full_evaluation = int(trainer.args.per_device_eval_batch_size)
        self.descended = 0
        self._trainer, self._run, self._writer = trainer, run, writer
        self._skips = False
        self._batches: list[Any] = []
        self._index = 0
        self._given = 0.0
        self._random: Any = None

    def hold(self) -> Ladder:
        """Takes its place around the trainer's steps. Does nothing where the recipe says to stop."""
        if self.recipe.training.on_out_of_memory == "stop":
            return self
        trainer = self._trainer
        take, step, predict = trainer.get_batch_samples, trainer.training_step, trainer.prediction_step

        def taken(*args: Any, **kwargs: Any) -> Any:
            batches, items = take(*args, **kwargs)
            self._batches, self._index = batches, 0
            return batches, items

        def stepped(model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            return self._step(step, model, inputs, num_items_in_batch)

        def predicted(model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
            return self._predict(predict, model, inputs, prediction_loss_only, ignore_keys)

        trainer.get_batch_samples, trainer.training_step = taken, stepped
        trainer.prediction_step = predicted
        trainer.add_callback(self)
        callbacks = trainer.callback_handler.callbacks
        callbacks.insert(0, callbacks.pop())
        return self

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """An optimizer makes room for its state at its first step; where that failed, it may try again once the rest is
        free. torch's own do so before they change any weight."""
        if optimizer is None or not type(getattr(optimizer, "optimizer", optimizer)).__module__.startswith(
            "torch."
        ):
            return
        step = optimizer.step

        @functools.wraps(step)  # with the marks that the scheduler has put on it
        def stepped(*args: Any, **kwargs: Any) -> Any:
            why = ""
            try:
                return step(*args, **kwargs)
            except Exception as error:  # the edge of torch's allocator
                if not failures.out_of_memory(error):
                    raise
                why = failures.last_line(error)
            release()
            print(f"finetui: the optimizer found no memory ({why}); it tries again", flush=True)
            return step(*args, **kwargs)

        optimizer.step = stepped

    # Training.

    def _step(self, step: Callable[..., Any], model: Any, inputs: Any, items: Any) -> Any:
        if self._index == 0 or self._index >= len(self._batches):
            self._random, self._given = randomness.states(), 0.0
            if self._index >= len(self._batches):  # not a batch of the loop: the probe's
                self._batches, self._index = [inputs], 0
        self._index += 1
        failed: BaseException | None = None
        loss: Any = None
        try:
            loss = self._through(step, model, inputs, items)
        except Exception as error:  # the edge of torch's allocator
            if not failures.out_of_memory(error):
                raise
            failed = error
        while failed is not None:
            self._descend(_forgotten(failed), model)
            failed = None
            model.zero_grad()
            randomness.restore(self._random)
            try:
                again = [self._through(step, model, one, items) for one in self._batches[: self._index]]
                loss = sum(again[1:], start=again[0]) - self._given
            except Exception as error:  # the edge of torch's allocator
                if not failures.out_of_memory(error):
                    raise
                failed = error
        self._given = self._given + loss
        return loss

    def _through(self, step: Callable[..., Any], model: Any, inputs: Any, items: Any) -> Any:
        """The loss of `inputs`, whose gradients are added up, in as many parts as they need."""
        pieces = parts.divided(inputs, self.rows, self._full)
        trainer = self._trainer
        before = getattr(trainer, "current_gradient_accumulation_steps", 1)
        if items is None:  # then the trainer takes the mean over batches
            trainer.current_gradient_accumulation_steps = before * len(pieces)
        try:
            total: Any = None
            for piece in pieces:
                loss = (
                    self._or_nothing(step, model, piece, items) if self._skips else step(model, piece, items)
                )
                total = loss if total is None else total + loss
            return total
        finally:
            trainer.current_gradient_accumulation_steps = before

    def _or_nothing(self, step: Callable[..., Any], model: Any, piece: Any, items: Any) -> Any:
        """The loss of `piece`, or 0 where even that does not fit: its rows are then left out of the step."""
        import torch

        trained = [p for p in model.parameters() if p.requires_grad]
        gradients = [None if p.grad is None else p.grad.to("cpu", copy=True) for p in trained]
        try:
            return step(model, dict(piece), items)
        except Exception as error:  # the edge of torch's allocator
            if not failures.out_of_memory(error):
                raise
        release()
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        tokens = int(piece["input_ids"].numel())
        self._warn(
            "rows-left-out",
            f"Rows of {tokens:,} tokens were left out of step {self._now()}.",
            "Memory ran out over them even one by one, and the recipe allows to leave such rows out.",
            "A shorter sequence length, 4-bit precision or a smaller model would take them in.",
        )
        return torch.zeros((), device=trained[0].device)

    def _descend(self, error: BaseException, model: Any) -> None:
        """Goes one rung down and says so; raises `error` where there is none."""
        release()
        training, step = self.recipe.training, self._now()
        smaller = smaller_batch(self.rows)
        unit = "sequences" if training.packing else "rows"
        if smaller < self.rows:
            before, self.rows = self.rows, smaller
            factor = self._full // smaller
            self._keep(
                batch_size=smaller,
                gradient_accumulation_steps=self._accumulation() * factor,
            )
            self._warn(
                "memory-smaller-batch",
                f"Memory ran out at step {step}: {_count(smaller, unit)} at once from now on, in place of {before}.",
                f"{failures.last_line(error)}",
                f"The step was done again and nothing is lost. The effective batch stays {self.recipe.effective_batch_size}, "
                "so what is learned is the same; a step takes a little longer.",
            )
        elif not self.recipe.lora.gradient_checkpointing:
            turn_on_checkpointing(model, self.recipe)
            self._keep_checkpointing()
            self._warn(
                "memory-checkpointing",
                f"Memory ran out at step {step} with {_count(self.rows, unit)} at once: checkpointing is on from now on.",
                f"{failures.last_line(error)}",
                "The step was done again and nothing is lost. What is learned is the same; a step takes about a third longer.",
            )
        elif training.on_out_of_memory == "skip" and not self._skips:
            self._skips = True
        else:
            raise error
        self.descended += 1

    def _accumulation(self) -> int:
        return int(self._trainer.args.gradient_accumulation_steps)

    def _now(self) -> int:
        return int(self._trainer.state.global_step) + 1

    def _keep(self, **values: Any) -> None:
        training = self.recipe.training.model_copy(update=values)
        self._save(self.recipe.model_copy(update={"training": training}))

    def _keep_checkpointing(self) -> None:
        lora = self.recipe.lora.model_copy(update={"gradient_checkpointing": True})
        self._save(self.recipe.model_copy(update={"lora": lora}))

    def _save(self, recipe: Recipe) -> None:
        self.recipe = recipe
        try:
            recipe_file.save(recipe, self._run.recipe)
        except OSError as error:
            print(f"finetui: the recipe could not be written: {error}", flush=True)

    def _warn(self, code: str, what: str, why: str, fix: str) -> None:
        self._writer.emit(Warned(code, what, why, fix))

    # Evaluation.

    def _predict(
        self, predict: Callable[..., Any], model: Any, inputs: Any, loss_only: bool, ignore_keys: Any
    ) -> Any:
        while True:
            failed = None
            try:
                pieces = parts.divided(inputs, self.evaluation_rows, self._full_evaluation)
                if len(pieces) == 1 or not loss_only:
                    return predict(model, dict(inputs), loss_only, ignore_keys)
                counts = [int((piece["labels"][..., 1:] != -100).sum()) for piece in pieces]
                losses = [predict(model, piece, loss_only, ignore_keys)[0] for piece in pieces]
                weighed = [loss * count for loss, count in zip(losses, counts, strict=True) if count]
                return sum(weighed[1:], start=weighed[0]) / max(1, sum(counts)), None, None
            except Exception as error:  # the edge of torch's allocator
                if not failures.out_of_memory(error):
                    raise
                failed = error
            release()
            smaller = smaller_batch(self.evaluation_rows)
            if smaller == self.evaluation_rows or not loss_only:
                raise _forgotten(failed)
            self.evaluation_rows = smaller
            self.descended += 1
            self._warn(
                "memory-smaller-evaluation",
                f"Memory ran out in an evaluation: {_count(smaller, 'rows')} at once from now on.",
                failures.last_line(failed),
                "It was done again in parts; its loss is the same.",
            )


def _count(number: int, unit: str) -> str:
    return f"{number} {unit.removesuffix('s') if number == 1 else unit}"


def _forgotten(error: BaseException) -> BaseException:
    """`error` without the frames that hold on to what did not fit."""
    error.__traceback__ = None
    error.__context__ = error.__cause__ = None
    return error


def release() -> None:
    """Gives back what a step that failed left behind: garbage, the allocator's cache, Unsloth's half-filled buffers."""
    import torch

    gc.collect()
    if not torch.cuda.is_available():
        return
    import torch.utils.checkpoint as plain
    import unsloth_zoo.gradient_checkpointing as checkpointing

    if plain.CheckpointFunction.__name__ == "UnslothCheckpointFunction":
        checkpointing.reset_unsloth_gradient_checkpointing_buffers()
    torch.cuda.empty_cache()


def turn_on_checkpointing(model: Any, recipe: Recipe) -> None:
    """Gradient checkpointing as Unsloth has it, on a model that was made ready without."""
    import torch
    from unsloth import FastLanguageModel
    from unsloth_zoo.gradient_checkpointing import patch_unsloth_smart_gradient_checkpointing

    if torch.cuda.is_available():
        patch_unsloth_smart_gradient_checkpointing(dtype=model.dtype)
    inner = model
    while inner is not None:
        inner._unsloth_gradient_checkpointing = "unsloth"
        inner = inner.__dict__.get("_modules", {}).get("base_model")
    if hasattr(model, "enable_input_require_grads"):
        model.enable_input_require_grads()
    unsloth: Any = FastLanguageModel
    unsloth.for_training(model, use_gradient_checkpointing="unsloth")
