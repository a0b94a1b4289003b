"""What finetui adds to a training step, against the same Unsloth calls in a bare script; on the CPU or the GPU at hand.

Both train the demo model on the demo's rows with the same settings and seed, each in a process of its own, in
turn, first one, then the other, then the other way round. Both take the same batches in the same order, so each step is
compared with the same step: of both sides its quickest round counts, as other work on the machine only ever adds time,
and the figure is the median of these ratios. A time is the span between two steps' ends: once as finetui's events
report it, once as a bare callback sees it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from finetui.core.demo import train_path
from finetui.core.demo.recipe import demo_recipe
from finetui.core.recipe import Recipe
from finetui.core.recipe_file import save
from finetui.core.runs.launch import worker_environment
from finetui.core.system import snapshot
from finetui.core.worker.demo_model import prepare

from .measure import FINETUI, Result

STEPS = int(os.environ.get("FINETUI_BENCH_STEPS", "16"))
ROUNDS = int(os.environ.get("FINETUI_BENCH_ROUNDS", "2"))
WARM_STEPS = 3


def _recipe() -> Recipe:
    recipe = demo_recipe()
    training = recipe.training.model_copy(
        update={"max_steps": STEPS, "evaluate_every_steps": 0, "save_every_steps": 0, "sample_count": 0}
    )
    dataset = recipe.dataset.model_copy(update={"evaluation_source": None, "evaluation_share": 0.0})
    export = recipe.export.model_copy(update={"formats": ("adapter",), "prove": False})
    return recipe.model_copy(update={"training": training, "dataset": dataset, "export": export})


def _through_finetui(recipe: Path) -> tuple[list[float], list[float]]:
    """Seconds and losses of each step."""
    done = subprocess.run(
        [FINETUI, "train", str(recipe), "--json"], check=True, stdout=subprocess.PIPE, env=os.environ
    )
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    steps = [e for e in events if e.get("kind") == "step"]
    times = [b["ts"] - a["ts"] for a, b in zip(steps, steps[1:], strict=False)]
    return times, [s["loss"] for s in steps]


def _bare(model: Path, recipe: Path) -> tuple[list[float], list[float]]:
    script = Path(__file__).with_name("bare_unsloth.py")
    environment = {**os.environ, **worker_environment()}
    del environment["GOMP_SPINCOUNT"]  # finetui's own choice: what it costs or saves belongs to the figure
    done = subprocess.run(
        [sys.executable, "-P", str(script), str(model), str(train_path()), str(recipe)],
        check=True,
        stdout=subprocess.PIPE,
        env=environment,
    )
    last = json.loads(done.stdout.splitlines()[-1])
    return last["seconds"], last["losses"]


class _Side:
    """What one of the two needed, round by round."""

    def __init__(self) -> None:
        self.rounds: list[list[float]] = []
        self.losses: list[float] = []

    def add(self, seconds: list[float], losses: list[float]) -> None:
        self.rounds.append(seconds[WARM_STEPS:])
        self.losses = losses

    def quickest(self) -> list[float]:
        """Seconds of each step after the warm ones, in its quickest round."""
        return [min(times) for times in zip(*self.rounds, strict=True)]


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = os.environ.get("FINETUI_BENCH_HOME", home)
        path = Path(home) / "recipe.yaml"
        save(_recipe(), path)
        model = prepare()
        ours, theirs = _Side(), _Side()
        _bare(model, path)  # not counted: whoever comes first compiles the GPU's kernels for all that follow
        for number in range(ROUNDS):
            for side in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                side.add(*(_through_finetui(path) if side is ours else _bare(model, path)))
                name, step = "finetui" if side is ours else "bare", statistics.median(side.rounds[-1])
                print(f"round {number + 1}, {name}: {step * 1000:.1f} ms a step", file=sys.stderr, flush=True)
        ratios = [a / b for a, b in zip(ours.quickest(), theirs.quickest(), strict=True)]
        gap = max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True))
        milliseconds = [statistics.median(side.quickest()) * 1000 for side in (ours, theirs)]
        detail = (
            f"{STEPS} steps of the demo, {ROUNDS} rounds, on {_device()}; a step takes {milliseconds[0]:.0f} ms and "
            f"{milliseconds[1]:.0f} ms bare; largest loss difference {gap:.4f}"
        )
        return [Result("training overhead", statistics.median(ratios), 1.02, "×", detail)]


def _device() -> str:
    gpus = snapshot().gpus
    return gpus[0].name if gpus else "the CPU"
