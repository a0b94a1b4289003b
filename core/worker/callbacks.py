"""What happens beside the training loop: reporting, evaluation, checkpoints, requests, and the watch on the loss."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback

from ..recipe import Recipe
from ..runs import checkpoints
from ..runs.best import clearly_above
from ..runs.events import BestKept, Evaluation, Step, Warned
from . import adapter, randomness
from .control import Control, Stopped
from .events import EventWriter
from .samples import Sampler
from .saving import Saving

NAN_STEPS = 3
"""So many steps running without a finite loss end the run: the weights do not come back from NaN."""

ZERO_STEPS = 5

Outcome = Literal["completed", "stop", "stop-now", "nan", "zero"]


class Counter:
    """Counts the tokens of the batches that the trainer really takes. Sums stay on the device until asked for."""

    def __init__(self) -> None:
        self.tokens = self.trained = 0
        self.step_trained = 0
        self.started = time.monotonic()
        self._waiting: list[tuple[Any, Any]] = []

    def watch(self, trainer: Any) -> None:
        """Looks at each update's batches on their way into the trainer."""
        take = trainer.get_batch_samples

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.started = time.monotonic()
            batches, items = take(*args, **kwargs)
            for batch in batches:
                mask = batch.get("attention_mask")
                seen = mask.sum() if mask is not None and mask.dim() == 2 else batch["input_ids"].numel()
                self._waiting.append((seen, (batch["labels"][..., 1:] != -100).sum()))
            return batches, items

        trainer.get_batch_samples = counted

    def settle(self) -> None:
        """Adds up what waits. On a GPU this waits for the step to end, as reading its loss does."""
        self.step_trained = 0
        for seen, trained in self._waiting:
            self.tokens += int(seen)
            self.step_trained += int(trained)
        self.trained += self.step_trained
        self._waiting.clear()


class Reporter(TrainerCallback):
    """Turns the trainer's calls into events, and requests into the trainer's controls."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        writer: EventWriter,
        control: Control,
        sampler: Sampler,
        has_evaluation: bool,
    ) -> None:
        self.outcome: Outcome = "completed"
        self.counter = Counter()
        self.last_step = 0
        self.saving = Saving(folder, writer, recipe.training.checkpoints_kept)
        self.has_evaluation = has_evaluation
        self.pause_due = False
        """A pause begins before the next step, or what ends the run in place of it."""
        self._recipe, self._writer = recipe, writer
        self._requests, self._sampler = control, sampler
        self._sample_due = False
        self._bad = self._zero = 0
        self._predicted = self._batches = 0
        """Of the evaluation under way: batches done, and all of them."""
        self._losses: dict[int, float] = {}
        """The held-out loss by step, where it is a number."""
        self._without_better = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._writer.progress("train", state.global_step, state.max_steps, "steps")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, training = state.global_step, self._recipe.training
        last = step >= state.max_steps
        asked = self._requests.take(ends=not last)  # the last one ends what follows it, step by step
        due = last or (training.evaluate_every_steps > 0 and step % training.evaluate_every_steps == 0)
        control.should_evaluate = self.has_evaluation and (due or "evaluate" in asked)
        self._sample_due = "sample" in asked or ((due or "evaluate" in asked) and not self.has_evaluation)
        if asked & {"pause", "continue"}:
            self.pause_due = "pause" in asked
        control.should_save = (
            last
            or "save" in asked
            or (training.save_every_steps > 0 and step % training.save_every_steps == 0)
        )
        control.should_log = True
        if asked & {"stop", "stop-now"}:
            self.outcome = "stop-now" if "stop-now" in asked else "stop"
            control.should_training_stop = True
            control.should_save = self.outcome == "stop"
            control.should_evaluate = self._sample_due = False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        counter = self.counter
        counter.settle()
        seconds = time.monotonic() - counter.started
        loss, norm = float(logs["loss"]), logs.get("grad_norm")
        self.last_step = state.global_step
        self._writer.emit(
            Step(
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=float(state.epoch or 0.0),
                loss=loss,
                learning_rate=float(logs.get("learning_rate", 0.0)),
                grad_norm=None if norm is None else float(norm),
                tokens=counter.tokens,
                trained_tokens=counter.trained,
                tokens_per_second=counter.step_trained / seconds if seconds > 0 else None,
                seconds=seconds,
            )
        )
        self._watch_loss(loss, norm, control)
        if self._sample_due:
            self._sample_due = False
            self.sample(state.global_step)

    def _watch_loss(self, loss: float, norm: Any, control: Any) -> None:
        finite = math.isfinite(loss) and (norm is None or math.isfinite(float(norm)))
        self._bad = 0 if finite else self._bad + 1
        self._zero = self._zero + 1 if loss == 0.0 else 0
        if not finite or self._zero:
            control.should_save = control.should_evaluate = (
                False  # the last good checkpoint must outlive this
            )
        last = control.should_training_stop
        if self._bad >= NAN_STEPS or (last and not finite):
            self.outcome = "nan"
        elif self._zero >= ZERO_STEPS:
            self.outcome = "zero"
        if self.outcome in ("nan", "zero"):
            control.should_training_stop = True

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        self._predicted, self._batches = self._predicted + 1, len(eval_dataloader or ())
        self._writer.progress("evaluate", self._predicted, self._batches, "batches")
        if self._predicted < self._batches and self._requests.ending():
            raise Stopped

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        self._predicted = 0
        found = metrics or {}
        if "eval_loss" in found:
            self._judge(float(found["eval_loss"]), state, control)
            self._writer.emit(
                Evaluation(
                    state.global_step, float(found["eval_loss"]), float(found.get("eval_runtime", 0.0))
                )
            )
        self.sample(state.global_step)

    def on_cut_evaluation(self, state: Any, control: Any) -> None:
        """Says that the evaluation under way ended with a stop. It has no loss, and the stop is acted on before the next step."""
        last = state.global_step >= state.max_steps
        self._writer.emit(
            Warned(
                "evaluation-cut",
                f"The evaluation after step {state.global_step} was broken off: the run is to stop.",
                f"{self._predicted} of its {self._batches} batches were done; no held-out loss is kept of them.",
                "It is made when the run is resumed." if last else "The next one comes when it is due.",
            )
        )
        self._predicted = 0
        control.should_evaluate = False
        self.pause_due = True

    def sample(self, step: int) -> None:
        """Answers the run's prompts now. A stop or a pause that is asked for meanwhile, or in the evaluation before, is
        acted on before the next step."""
        with randomness.untouched():
            if not self._sampler.write(step) or self._requests.pausing():
                self.pause_due = True

    def _judge(self, loss: float, state: Any, control: Any) -> None:
        """Notes a new low, which is kept on the disk where it is wanted, or counts one more look without."""
        training, step = self._recipe.training, state.global_step
        if (
            self._note(step, loss)
            and training.keep_best
            and training.save_every_steps
            and self._recipe.lora.method == "lora"
        ):
            control.should_save = True
        patience = training.early_stopping_patience
        if patience is None or self._without_better < patience or step >= state.max_steps:
            return
        control.should_save = control.should_training_stop = True
        lowest = min(self._losses, key=lambda at: self._losses[at], default=None)
        best = "none that is a number" if lowest is None else f"{self._losses[lowest]:.4f} at step {lowest:,}"
        self._writer.emit(
            Warned(
                "early-stop",
                f"The training stopped early, after step {step}.",
                f"The held-out loss has not fallen in {patience} evaluations; the lowest was {best}.",
                "More steps would memorise the rows.",
            )
        )

    def _note(self, step: int, loss: float) -> bool:
        """Whether `loss` is lower than all before it."""
        lower = math.isfinite(loss) and loss < min(self._losses.values(), default=math.inf)
        self._without_better = 0 if lower else self._without_better + 1
        if math.isfinite(loss):
            self._losses[step] = loss
        return lower

    def take_best(self, trainer: Any) -> None:
        """Puts the weights of the lowest held-out loss that were kept into the model, where those that it has are clearly
        worse, and lets it answer with them."""
        if not self._recipe.training.keep_best or self.outcome != "completed":
            return
        last, step = int(trainer.state.global_step), self.saving.best(self._losses)
        if step is None or step == last:
            return
        loss, last_loss = self._losses[step], self._losses.get(last)
        if last_loss is not None and not clearly_above(last_loss, loss):
            return
        adapter.load(trainer.model, self.saving.path(step))
        self._writer.emit(BestKept(step, loss, last, last_loss))
        self.sample(step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = int(state.global_step)
        counts = {"tokens": self.counter.tokens, "trained_tokens": self.counter.trained}
        self.saving.seal(step, counts, self._losses if self._recipe.training.keep_best else {})
        if self.outcome == "stop" and not self.saving.whole(step) and not self._requests.terminated:
            # Nothing would keep what was learned since the last checkpoint: it waits for room, or for another word.
            self.outcome = "completed"
            control.should_training_stop = False
            self.pause_due = True
            self.saving.tell_unsaved_stop(step)

    def go_on_from(self, checkpoint: Path) -> None:
        """Takes up the counts where `checkpoint` left them."""
        counts = json.loads((checkpoint / checkpoints.COUNTS).read_bytes())
        self.counter.tokens, self.counter.trained = int(counts["tokens"]), int(counts["trained_tokens"])
        for entry in json.loads((checkpoint / "trainer_state.json").read_bytes()).get("log_history", ()):
            if "eval_loss" in entry:
                self._note(int(entry["step"]), float(entry["eval_loss"]))
