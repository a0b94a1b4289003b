"""Speed side by side on one GPU: copied notebook settings, what `fit` chooses without and with packing, and the best there is.

`python -m tests.bench.gpu.speed [--shape Llama-3.1-8B] [--effective 32] [--rows 640] [--quick] [--json]`. Same rows, same
effective batch, same seed, one process for each, one after another. A speed is that of the median step, since kernels are
compiled in the first ones and whenever a batch has a new shape. What the probe cost is reported with each of our runs.

Shapes have random weights and rows of about 170 tokens (lognormal); they show speed, and learn nothing. `--shape demo` takes
the demo's model and rows, four times over: there the evaluation's loss says whether all settings, packing too, teach the same.
`--methods` trains a shape in each precision and method instead, and says how far the predicted time of a step is from the measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetui.core import fit, pace, system
from finetui.core.lengths import Lengths
from finetui.core.memory_shape import Shape, from_config
from finetui.core.recipe import (
    DatasetSection,
    ExportSection,
    LoraSection,
    ModelSection,
    Recipe,
    TrainingSection,
)
from finetui.core.system import Machine

from . import shapes

LENGTH, MEAN_TOKENS, SPREAD = 2048, 170, 0.6
WARM_UP_STEPS = 2
DEMO = "demo"
DEMO_LENGTH, DEMO_TOKENS = 512, 91
"""Of a row of the demo, on average."""
DEMO_TRAINING = {"learning_rate": 1e-3, "epochs": 4.0}


@dataclass(frozen=True)
class Outcome:
    """One training. `tokens_per_second` counts tokens of rows, without padding, in the median
    step after the warm-up; `step_seconds` are all of them."""

    name: str
    batch: int
    accumulation: int
    packing: bool
    checkpointing: bool
    precision: str
    tokens_per_second: float
    step_seconds: tuple[float, ...]
    evaluation_loss: float
    predicted_bytes: int
    measured_bytes: int
    probe_seconds: float
    compile_seconds: float
    predicted_seconds: float = 0.0
    """Of a step, before anything was measured."""
    error: str = ""

    @property
    def seconds(self) -> float:
        """Of the median step after the warm-up; 0 where nothing was trained."""
        return statistics.median(self.step_seconds[WARM_UP_STEPS:] or self.step_seconds or (0.0,))


def write_rows(path: Path, count: int) -> Path:
    """Conversations whose lengths, in the tiny tokenizer's single bytes, are lognormal; the same each time."""
    import random

    numbers = random.Random(1)
    middle = math.log(MEAN_TOKENS) - SPREAD**2 / 2
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            size = max(10, min(LENGTH, round(numbers.lognormvariate(middle, SPREAD))) - 60)
            answer = (f"{index} " + "red green blue gold " * (size // 19 + 1))[:size]
            said = [{"role": "user", "content": f"{index}?"}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": said}) + "\n")
    return path


def recipe_of(model: Path, rows: Path, batch: int, accumulation: int) -> Recipe:
    """The notebook's settings: QLoRA, rank 16, checkpointing, no packing."""
    return Recipe(
        name="speed",
        model=ModelSection(source=str(model), precision="4bit", max_length=LENGTH),
        dataset=DatasetSection(source=str(rows), evaluation_share=0.1),
        lora=LoraSection(rank=16, alpha=16),
        training=TrainingSection(
            batch_size=batch,
            gradient_accumulation_steps=accumulation,
            learning_rate=1e-4,
            evaluate_every_steps=0,
            save_every_steps=0,
            sample_count=0,
        ),
        export=ExportSection(formats=("adapter",), prove=False),
    )


def candidates(recipe: Recipe, shape: Shape, lengths: Lengths, quick: bool, machine: Machine) -> list[Recipe]:
    """Every setting that learns the same: the exhaustive search. `quick` leaves out what cannot be near the best."""
    from finetui.core.fit_task import Task
    from finetui.core.fit_task import candidates as all_of

    task = Task(recipe, shape, None, machine, lengths, frozenset(), None)
    found = [
        one for precision in ("16bit", "4bit") for one in all_of(task, precision) if task.fits(one.memory)
    ]
    quickest = min(one.pace.seconds_per_row for one in found)
    return [one.recipe for one in found if not quick or one.pace.seconds_per_row < 1.6 * quickest]


def measure(name: str, recipe: Recipe, predicted_seconds: float = 0.0) -> Outcome:
    """Trains `recipe` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, "--one", name],
        input=recipe.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    training = recipe.training
    common: dict[str, Any] = {
        "name": name,
        "batch": training.batch_size,
        "accumulation": training.gradient_accumulation_steps,
        "packing": training.packing,
        "checkpointing": recipe.lora.gradient_checkpointing,
        "precision": recipe.model.precision,
        "predicted_seconds": predicted_seconds,
    }
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        missing = (
            "tokens_per_second",
            "evaluation_loss",
            "predicted_bytes",
            "measured_bytes",
            "probe_seconds",
            "compile_seconds",
        )
        found = {**dict.fromkeys(missing, 0), "step_seconds": (), "error": done.stderr[-400:]}
    return Outcome(**common, **found)


def one(name: str, recipe: Recipe) -> dict[str, Any]:
    """In the process of its own: the figures of one training. `bare` runs with neither probe nor ladder."""
    from finetui.core.worker import environment

    environment.import_unsloth()
    from finetui.core.runs.events import Evaluation, Probed, Step
    from tests.worker import harness
    from tests.worker.test_out_of_memory import trained

    bare = name == "notebook"
    built = trained(recipe, probed=not bare, ladder=not bare)
    steps = harness.events(built.run, Step)
    totals = [0, *(step.tokens for step in steps)]
    speeds = [
        (after - before) / step.seconds
        for before, after, step in zip(totals, totals[1:], steps, strict=False)
    ]
    probed = harness.events(built.run, Probed)
    return {
        "tokens_per_second": statistics.median(speeds[WARM_UP_STEPS:] or speeds),
        "step_seconds": [round(step.seconds, 3) for step in steps],
        "evaluation_loss": harness.events(built.run, Evaluation)[-1].loss,
        "predicted_bytes": probed[0].predicted_bytes if probed else 0,
        "measured_bytes": probed[0].measured_bytes if probed else 0,
        "probe_seconds": probed[0].probe_seconds if probed else 0.0,
        "compile_seconds": probed[0].compile_seconds if probed else 0.0,
    }


def setting(shape_name: str, effective: int, count: int, folder: Path) -> tuple[Recipe, Shape, Lengths]:
    """The notebook's recipe for a shape, or for the demo; the model's shape, and the lengths of the rows."""
    if shape_name == DEMO:
        from finetui.core.demo import train_path
        from finetui.core.demo.recipe import demo_recipe
        from finetui.core.worker.demo_model import prepare

        model = prepare()
        shape = from_config(json.loads((model / "config.json").read_bytes()))
        recipe = recipe_of(model, train_path(), 2, effective // 2)
        dataset = recipe.dataset.model_copy(update={"system_prompt": demo_recipe().dataset.system_prompt})
        training = recipe.training.model_copy(update=DEMO_TRAINING)
        known = recipe.model.model_copy(update={"max_length": DEMO_LENGTH})
        recipe = recipe.model_copy(update={"model": known, "dataset": dataset, "training": training})
        count, mean = len(train_path().read_bytes().splitlines()), DEMO_TOKENS
    else:
        model, shape = shapes.make(shape_name, folder / shape_name), from_config(shapes.SHAPES[shape_name])
        recipe, mean = (
            recipe_of(model, write_rows(folder / "rows.jsonl", count), 2, effective // 2),
            MEAN_TOKENS,
        )
    assert shape is not None
    return recipe, shape, Lengths.about(mean, recipe.model.max_length, count * 9 // 10, count // 10)


def compare(shape_name: str, effective: int, count: int, quick: bool, machine: Machine) -> list[Outcome]:
    """Notebook, fit without packing, fit, and every other candidate; the last one is the best of them."""
    with tempfile.TemporaryDirectory(prefix="finetui-speed-") as folder:
        os.environ["FINETUI_HOME"] = os.environ.get("FINETUI_BENCH_HOME", f"{folder}/home")
        notebook, shape, lengths = setting(shape_name, effective, count, Path(folder))
        plain = fit.fit(notebook, shape, machine, lengths, {fit.PACKING}).recipe
        packed = fit.fit(notebook, shape, machine, lengths).recipe
        if shape_name == DEMO and not packed.training.packing:  # its rows are about as long as one another
            packed = next(
                one for one in candidates(notebook, shape, lengths, False, machine) if one.training.packing
            )
        known = {"notebook": notebook, "fit without packing": plain, "fit": packed}
        others = [] if shape_name == DEMO else candidates(notebook, shape, lengths, quick, machine)
        known |= {f"search {n}": other for n, other in enumerate(others) if other not in known.values()}
        found = []
        for name, recipe in known.items():
            predicted = pace.predict(recipe, shape, machine, lengths).seconds_per_step
            found.append(measure(name, recipe, predicted))
            print(
                f"{len(found)}/{len(known)} {line(found[-1])}\n    {off(found[-1])}",
                file=sys.stderr,
                flush=True,
            )
        return found


METHODS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("LoRA, 16-bit", {"precision": "16bit"}, {}),
    ("LoRA, 4-bit", {"precision": "4bit"}, {}),
    ("LoRA, 8-bit", {"precision": "8bit"}, {}),
    ("DoRA, 4-bit", {"precision": "4bit"}, {"dora": True}),
    ("DoRA, 16-bit", {"precision": "16bit"}, {"dora": True}),
    ("full, 16-bit", {"precision": "16bit"}, {"method": "full"}),
)
"""By name: what a method changes of the model's section and of the adapter's."""


def methods(shape_name: str, effective: int, count: int, machine: Machine) -> list[Outcome]:
    """Each of METHODS over the same rows, with checkpointing and a batch of 8."""
    with tempfile.TemporaryDirectory(prefix="finetui-speed-") as folder:
        os.environ["FINETUI_HOME"] = f"{folder}/home"
        model = shapes.make(shape_name, Path(folder) / shape_name, zeros=False)
        shape = from_config(shapes.SHAPES[shape_name])
        assert shape is not None
        lengths = Lengths.about(MEAN_TOKENS, LENGTH, count * 9 // 10, count // 10)
        plain = recipe_of(model, write_rows(Path(folder) / "rows.jsonl", count), 8, effective // 8)
        found = []
        for name, of_model, of_lora in METHODS:
            recipe = plain.model_copy(
                update={
                    "model": plain.model.model_copy(update=of_model),
                    "lora": plain.lora.model_copy(update=of_lora),
                    "export": ExportSection(
                        formats=("merged",) if "method" in of_lora else ("adapter",), prove=False
                    ),
                }
            )
            predicted = pace.predict(recipe, shape, machine, lengths).seconds_per_step
            found.append(measure(name, recipe, predicted))
            print(f"{line(found[-1])}\n    {off(found[-1])}", file=sys.stderr, flush=True)
        return found


def off(found: Outcome) -> str:
    """The measured step against the predicted one."""
    ratio = found.seconds / found.predicted_seconds if found.predicted_seconds else 0.0
    return f"a step took {found.seconds:.3f} s, {ratio:.2f} × the {found.predicted_seconds:.3f} s predicted"


def line(found: Outcome) -> str:
    """One training in a line of text."""
    form = (
        f"{found.batch} × {found.accumulation}, {found.precision}, packing {found.packing}, "
        f"checkpointing {found.checkpointing}"
    )
    speed = f"{found.tokens_per_second:9,.0f} tok/s  loss {found.evaluation_loss:.3f}"
    steps = " ".join(f"{seconds:.2f}" for seconds in found.step_seconds)
    return f"{found.name:<22}{speed}  {form}  {found.error}\n    steps of {steps} s"


def goals(found: list[Outcome]) -> dict[str, float]:
    """The figures that there are goals for, as ratios; the evaluation's is the distance from the notebook's loss."""
    notebook, plain, packed = found[:3]
    best = max(one.tokens_per_second for one in found)
    return {
        "without packing, × notebook (goal 2.2)": plain.tokens_per_second / notebook.tokens_per_second,
        "with packing, × notebook (goal 5)": packed.tokens_per_second / notebook.tokens_per_second,
        "fit, share of the best (goal 0.95)": packed.tokens_per_second / best,
        "evaluation loss, off the notebook's (goal 0.01)": abs(
            packed.evaluation_loss / notebook.evaluation_loss - 1
        ),
        "probe seconds beyond compiling (goal 20)": statistics.fmean(
            one.probe_seconds - one.compile_seconds for one in found[1:3]
        ),
        "probe seconds in all": statistics.fmean(one.probe_seconds for one in found[1:3]),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="Llama-3.1-8B", choices=[DEMO, *sorted(shapes.SHAPES)])
    parser.add_argument("--effective", type=int, default=32, help="rows behind an update")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--quick", action="store_true", help="search only near the predicted best")
    parser.add_argument("--methods", action="store_true", help="each precision and method, by itself")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        recipe = Recipe.model_validate_json(sys.stdin.read())
        sys.stdout.write("\n" + json.dumps(one(given.one, recipe)) + "\n")
        return
    machine = system.snapshot()
    if given.methods:
        for outcome in methods(given.shape, given.effective, given.rows, machine):
            print(
                f"{outcome.name:<14}{outcome.tokens_per_second:9,.0f} tok/s  {off(outcome)} {outcome.error}"
            )
        return
    found = compare(given.shape, given.effective, given.rows, given.quick, machine)
    if given.json:
        print(json.dumps({"outcomes": [asdict(o) for o in found], "goals": goals(found)}, indent=2))
        return
    print(machine.gpus[0].name if machine.gpus else "no GPU")
    for outcome in found:
        print(line(outcome))
    for name, value in goals(found).items():
        print(f"{name:<52}{value:8.3f}")


if __name__ == "__main__":
    main()
