"""Speed side by side on one GPU: copied notebook settings, what `fit` chooses without and with packing, and the best there is.

`python -m tests.bench.gpu.speed [--shape Llama-3.1-8B] [--effective 32] [--rows 640] [--quick] [--json]`. Same rows (lognormal,
about 170 tokens), same effective batch, same seed, one process for each, one after another. The first steps of each are
left out, since kernels are compiled in them. What the probe cost is reported with each of our runs.
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

from finetui.core import fit, system
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


@dataclass(frozen=True)
class Outcome:
    """One training. `tokens_per_second` counts tokens of rows, without padding, over the steps after the warm-up."""

    name: str
    batch: int
    accumulation: int
    packing: bool
    checkpointing: bool
    precision: str
    tokens_per_second: float
    evaluation_loss: float
    predicted_bytes: int
    measured_bytes: int
    probe_seconds: float
    compile_seconds: float
    error: str = ""


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


def candidates(recipe: Recipe, shape: Shape, lengths: Lengths, quick: bool) -> list[Recipe]:
    """Every setting that learns the same: the exhaustive search. `quick` leaves out what cannot be near the best."""
    from finetui.core.fit_task import Task
    from finetui.core.fit_task import candidates as all_of

    task = Task(recipe, shape, None, system.snapshot(), lengths, frozenset(), None)
    found = [
        one for precision in ("16bit", "4bit") for one in all_of(task, precision) if task.fits(one.memory)
    ]
    quickest = min(one.pace.seconds_per_row for one in found)
    return [one.recipe for one in found if not quick or one.pace.seconds_per_row < 1.6 * quickest]


def measure(name: str, recipe: Recipe) -> Outcome:
    """Trains `recipe` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, "--one", name],
        input=recipe.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) | {"FINETUI_HOME": str(Path(recipe.dataset.source).parent / "home")},
    )
    training = recipe.training
    common: dict[str, Any] = {
        "name": name,
        "batch": training.batch_size,
        "accumulation": training.gradient_accumulation_steps,
        "packing": training.packing,
        "checkpointing": recipe.lora.gradient_checkpointing,
        "precision": recipe.model.precision,
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
        found = {**dict.fromkeys(missing, 0), "error": done.stderr[-400:]}
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
    late = steps[WARM_UP_STEPS:] or steps
    before = steps[WARM_UP_STEPS - 1].tokens if len(steps) > WARM_UP_STEPS else 0
    probed = harness.events(built.run, Probed)
    return {
        "tokens_per_second": (late[-1].tokens - before) / sum(step.seconds for step in late),
        "evaluation_loss": harness.events(built.run, Evaluation)[-1].loss,
        "predicted_bytes": probed[0].predicted_bytes if probed else 0,
        "measured_bytes": probed[0].measured_bytes if probed else 0,
        "probe_seconds": probed[0].probe_seconds if probed else 0.0,
        "compile_seconds": probed[0].compile_seconds if probed else 0.0,
    }


def compare(shape_name: str, effective: int, count: int, quick: bool, machine: Machine) -> list[Outcome]:
    """Notebook, fit without packing, fit, and every other candidate; the last one is the best of them."""
    shape = from_config(shapes.SHAPES[shape_name])
    assert shape is not None
    with tempfile.TemporaryDirectory(prefix="finetui-speed-") as folder:
        model = shapes.make(shape_name, Path(folder) / shape_name)
        rows = write_rows(Path(folder) / "rows.jsonl", count)
        notebook = recipe_of(model, rows, 2, effective // 2)
        lengths = Lengths.about(MEAN_TOKENS, LENGTH, count * 9 // 10, count // 10)
        plain = fit.fit(notebook, shape, machine, lengths, {fit.PACKING}).recipe
        packed = fit.fit(notebook, shape, machine, lengths).recipe
        known = {"notebook": notebook, "fit without packing": plain, "fit": packed}
        others = candidates(notebook, shape, lengths, quick)
        known |= {f"search {n}": other for n, other in enumerate(others) if other not in known.values()}
        found = []
        for name, recipe in known.items():
            found.append(measure(name, recipe))
            print(f"{len(found)}/{len(known)} {line(found[-1])}", file=sys.stderr, flush=True)
        return found


def line(found: Outcome) -> str:
    """One training in a line of text."""
    form = (
        f"{found.batch} × {found.accumulation}, {found.precision}, packing {found.packing}, "
        f"checkpointing {found.checkpointing}"
    )
    speed = f"{found.tokens_per_second:9,.0f} tok/s  loss {found.evaluation_loss:.3f}"
    return f"{found.name:<22}{speed}  {form}  {found.error}"


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
    parser.add_argument("--shape", default="Llama-3.1-8B", choices=sorted(shapes.SHAPES))
    parser.add_argument("--effective", type=int, default=32, help="rows behind an update")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--quick", action="store_true", help="search only near the predicted best")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        recipe = Recipe.model_validate_json(sys.stdin.read())
        sys.stdout.write("\n" + json.dumps(one(given.one, recipe)) + "\n")
        return
    machine = system.snapshot()
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
