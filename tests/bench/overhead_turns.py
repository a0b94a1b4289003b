"""Several trainings of one recipe in one process, which take turns step by step.

`python -m tests.bench.overhead_turns RECIPE.yaml SIDE …` prints one JSON line: each side's seconds and losses, step by step.
A side is `bare` (as often as wanted), `finetui`, or one of finetui's parts up to which it is held: `reporter`, `ladder`, `machine`.

One side's whole step, from one log of a loss to the next, is timed while the others wait, in an order that changes with
every step. So whatever the machine does meanwhile meets all sides alike, and two bare sides show what is left of it.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from finetui.core import recipe_file
from finetui.core.demo import train_path
from finetui.core.recipe import Recipe
from finetui.core.worker import environment
from finetui.core.worker.demo_model import prepare

PARTS = ("reporter", "ladder", "machine", "finetui")


class Side(threading.Thread):
    """A training that waits after each step until it is let go on."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(daemon=True)
        from transformers import TrainerCallback

        side = self

        class Turn(TrainerCallback):
            """Comes last, so that the callbacks before it are a part of the step."""

            def on_log(
                self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
            ) -> None:
                if "loss" in (logs or {}):
                    side.step_ends(float((logs or {})["loss"]))

        trainer.add_callback(Turn())
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._trainer = trainer
        self._go, self._done = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        self._go.wait()
        try:
            self._trainer.train()
        finally:
            self._done.set()

    def step_ends(self, loss: float) -> None:
        self.losses.append(loss)
        self._go.clear()
        self._done.set()
        self._go.wait()

    def take_step(self) -> None:
        """One step; the first takes with it whatever comes before it."""
        self._done.clear()
        began = time.perf_counter()
        self._go.set()
        self._done.wait()
        self.seconds.append(time.perf_counter() - began)


def through_finetui(recipe: Recipe, level: int) -> Any:
    """The trainer as the worker builds it, with all of `PARTS` up to `level`."""
    from transformers import TrainerCallback

    from finetui.core.worker import machine
    from finetui.core.worker.ladder import Ladder
    from finetui.core.worker.probe import Probe
    from tests.worker.in_process import Trainer

    built = Trainer(recipe)
    trainer = built.trainer
    if level >= PARTS.index("ladder"):
        ladder = Ladder(trainer, recipe, built.run, built.writer).hold()
        if level >= PARTS.index("finetui"):
            Probe(trainer, ladder, built.control, built.writer, always=True).hold()
    if level >= PARTS.index("machine"):
        monitor = machine.Monitor(built.writer, built.run.path).open()

        class Readings(TrainerCallback):
            """As often as the monitor's thread would read the machine in a run by itself, and beside a step as there."""

            def __init__(self) -> None:
                self.began = self.worked = 0.0
                self.pause = machine.SECONDS
                self.thread: threading.Thread | None = None

            def read(self) -> None:
                began = time.monotonic()
                built.writer.emit(monitor.read())
                self.pause = machine.pause(time.monotonic() - began)

            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                self.began = time.monotonic()
                if self.worked >= self.pause:
                    self.worked = 0.0
                    self.thread = threading.Thread(target=self.read)
                    self.thread.start()

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if self.thread is not None:
                    self.thread.join()
                    self.thread = None
                self.worked += time.monotonic() - self.began

        trainer.add_callback(Readings())
    return trainer


def main() -> None:
    path, *names = sys.argv[1:]
    recipe = recipe_file.load(Path(path))
    environment.import_unsloth()
    from . import bare_unsloth

    model, output = prepare(), Path(path).parent
    sides = [
        Side(
            bare_unsloth.trainer(model, train_path(), Path(path), output / f"bare-{number}")
            if name == "bare"
            else through_finetui(recipe, PARTS.index(name))
        )
        for number, name in enumerate(names)
    ]
    order = list(sides)
    for _ in range(recipe.training.max_steps or 0):
        random.Random(len(sides[0].seconds)).shuffle(order)
        for side in order:
            side.take_step()
    found = [{"name": n, "seconds": s.seconds, "losses": s.losses} for n, s in zip(names, sides, strict=True)]
    sys.stdout.write("\n" + json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
