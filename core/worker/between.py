"""What happens between two steps: a pause, with everything kept in memory, and what is asked for meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..runs.events import Continued, Paused
from . import randomness
from .control import Control, Left, Stopped
from .events import EventWriter

if TYPE_CHECKING:
    from .callbacks import Reporter

POLL_SECONDS = 0.2


def watch_evaluations(trainer: Any, reporter: Reporter) -> None:
    """Lets evaluations of `trainer` leave the random numbers as they were, and end without figures where a stop is asked for."""
    evaluate = trainer.evaluate

    def evaluated(*args: Any, **kwargs: Any) -> Any:
        with randomness.untouched():
            try:
                return evaluate(*args, **kwargs)
            except Stopped:
                # Accelerate would go on taking its batches for those at work.
                trainer.callback_handler.eval_dataloader.end()
                reporter.on_cut_evaluation(trainer.state, trainer.control)
                return {}

    trainer.evaluate = evaluated


class Pause:
    """Waits between two steps while a pause holds. Saves, evaluates and samples when asked to; a stop ends it."""

    def __init__(self, trainer: Any, reporter: Reporter, writer: EventWriter, control: Control) -> None:
        self._trainer, self._reporter, self._writer, self._control = trainer, reporter, writer, control

    def hold(self) -> None:
        """Returns at once unless a pause is due. Raises Left where the run is to stop, saved if it was to be saved."""
        reporter, trainer = self._reporter, self._trainer
        if not reporter.pause_due or trainer.state.global_step >= trainer.state.max_steps:
            return
        step, began = int(trainer.state.global_step), time.monotonic()
        told = False
        while True:
            if not told and not self._control.ending():
                told = True
                self._writer.emit(Paused(step))
            asked = self._control.take()
            if "evaluate" in asked and reporter.has_evaluation:
                trainer._evaluate(None, None)
            elif asked & {"evaluate", "sample"}:
                reporter.sample(step)
            if "stop-now" in asked:
                reporter.outcome = "stop-now"
                raise Left
            if asked & {"save", "stop"}:
                self._save()
            if "stop" in asked and (reporter.saving.whole(step) or self._control.terminated):
                reporter.outcome = "stop"
                raise Left
            if "stop" in asked:
                reporter.saving.tell_unsaved_stop(step)
            if asked & {"evaluate", "sample", "save"}:
                self._writer.progress("train", step, trainer.state.max_steps, "steps")
            if "continue" in asked:
                reporter.pause_due = False
                self._writer.emit(Continued(step, time.monotonic() - began))
                return
            time.sleep(POLL_SECONDS)

    def _save(self) -> None:
        trainer = self._trainer
        if self._reporter.saving.whole(int(trainer.state.global_step)):
            return
        trainer._save_checkpoint(trainer.model, None)
        trainer.control = trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)


def before_batches(trainer: Any, hold: Callable[[], None]) -> None:
    """Calls `hold` each time before `trainer` takes the batches of a step. Wrap last: nothing is timed while it waits."""
    take = trainer.get_batch_samples

    def held(*args: Any, **kwargs: Any) -> Any:
        hold()
        return take(*args, **kwargs)

    trainer.get_batch_samples = held
