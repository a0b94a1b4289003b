"""Where a step's overhead comes from: the same training bare, and with each part of finetui added in turn.

`python -m tests.bench.gpu.overhead_parts [--shape SmolLM2-135M] [--steps 40] [--rounds 2]`. All in one process, one after
another and then the other way round; of each only the steps after the first `WARM_STEPS` count. A part's cost is the
difference between its line and the one above it. Two times a step: of the clock, and of this thread's processor. At the end,
how long one reading of the machine takes: the monitor makes one a second, and the driver may make others wait meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = ("bare", "reporter", "ladder", "monitor", "probe")
WARM_STEPS = 5


def trainer_with(part: str, recipe: Any, clock: Any) -> tuple[Any, Callable[[], None]]:
    """A trainer with all of `PARTS` up to `part`, and what ends it."""
    from finetui.core.worker import machine
    from finetui.core.worker.ladder import Ladder
    from finetui.core.worker.probe import Probe
    from tests.worker.in_process import Trainer

    built = Trainer(recipe)
    trainer = built.trainer
    if part == "bare":
        return bare(built, clock), lambda: None
    trainer.add_callback(clock)
    level = PARTS.index(part)
    end: Callable[[], None] = lambda: None  # noqa: E731
    if level >= PARTS.index("ladder"):
        ladder = Ladder(trainer, recipe, built.run, built.writer).hold()
        if level >= PARTS.index("monitor"):
            end = machine.Monitor(built.writer, built.run.path).start().close
        if level >= PARTS.index("probe"):
            Probe(trainer, ladder, built.reporter._requests, built.writer, always=True).hold()
    return trainer, end


def bare(built: Any, clock: Any) -> Any:
    """The same model and rows in TRL's trainer, with nothing of finetui but the clock."""
    from trl import SFTConfig, SFTTrainer

    kept = (
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "max_steps",
        "learning_rate",
        "lr_scheduler_type",
        "warmup_steps",
        "weight_decay",
        "optim",
        "seed",
        "data_seed",
        "max_length",
    )
    return SFTTrainer(
        model=built.loaded.model,
        processing_class=built.loaded.tokenizer,
        train_dataset=built.prepared.train.rows,
        callbacks=[clock],
        args=SFTConfig(
            output_dir=str(built.run.path / "bare"),
            dataset_kwargs={"skip_prepare_dataset": True},
            gradient_checkpointing=False,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            **{name: getattr(built.trainer.args, name) for name in kept},
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="SmolLM2-135M")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="finetui-parts-"))
    os.environ["FINETUI_HOME"] = str(folder / "home")
    from finetui.core.worker import environment

    environment.import_unsloth()
    from transformers import TrainerCallback

    from tests.worker import harness, tiny

    from . import shapes, speed

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.walls: list[float] = []
            self.threads: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.walls.append(time.perf_counter())
            self.threads.append(time.thread_time())

    model = folder / given.shape
    if given.shape == "tiny":
        tiny.make(model)
    else:
        shapes.make(given.shape, model)
    rows = speed.write_rows(folder / "rows.jsonl", given.steps * 8 + 8)
    recipe = harness.recipe(
        model,
        rows,
        max_steps=given.steps,
        batch_size=8,
        max_length=speed.LENGTH,
        gradient_checkpointing=False,
        rank=16,
        evaluation_share=0.0,
        evaluate_every_steps=0,
        save_every_steps=0,
        sample_count=0,
    )
    found: dict[str, list[tuple[float, float]]] = {part: [] for part in PARTS}
    for number in range(given.rounds + 1):  # the first is not counted: kernels are compiled in it
        for part in ("bare",) if number == 0 else PARTS if number % 2 else PARTS[::-1]:
            clock = Clock()
            trainer, end = trainer_with(part, recipe, clock)
            trainer.train()
            end()
            if number:
                found[part].append((milliseconds(clock.walls), milliseconds(clock.threads)))
                print(
                    f"{part:<10}{found[part][-1][0]:8.1f} ms   thread {found[part][-1][1]:8.1f} ms",
                    flush=True,
                )
    print(f"a reading of the machine takes {reading_milliseconds(recipe):.1f} ms")
    base = min(wall for wall, _thread in found["bare"])
    for part, times in found.items():
        wall = min(wall for wall, _thread in times)
        print(f"{part:<10}{wall:8.1f} ms = {wall / base:.3f}×")


def reading_milliseconds(recipe: Any) -> float:
    """The median of ten readings."""
    from finetui.core.worker import machine
    from tests.worker.in_process import Trainer

    built = Trainer(recipe)
    monitor = machine.Monitor(built.writer, built.run.path).start()
    times: list[float] = []
    for _ in range(10):
        began = time.perf_counter()
        monitor.read()
        times.append(1000 * (time.perf_counter() - began))
    monitor.close()
    return statistics.median(times)


def milliseconds(moments: list[float]) -> float:
    """The median span between two moments, in milliseconds, after the warm ones."""
    return 1000 * statistics.median(
        b - a for a, b in zip(moments[WARM_STEPS:], moments[WARM_STEPS + 1 :], strict=False)
    )


if __name__ == "__main__":
    main()
