"""What finetui adds to a training step, against the same Unsloth calls in a bare script; on the CPU or the GPU at hand.

The demo's model, rows, settings and seed train three times over in one process: once as the worker does it, with all of its
callbacks and one reading of the machine a second, and twice bare. They take turns step by step (`overhead_turns.py`), so each
step stands beside the same step on the same batch, moments apart. The figure is the median of these ratios.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from finetui.core.demo.recipe import demo_recipe
from finetui.core.recipe import Recipe
from finetui.core.recipe_file import save
from finetui.core.runs.launch import worker_environment
from finetui.core.system import snapshot

from .measure import Result

STEPS = min(59, int(os.environ.get("FINETUI_BENCH_STEPS", "16")))
"""The demo has 59."""
WARM_STEPS = 3


def _recipe() -> Recipe:
    recipe = demo_recipe()
    training = recipe.training.model_copy(
        update={"max_steps": STEPS, "evaluate_every_steps": 0, "save_every_steps": 0, "sample_count": 0}
    )
    dataset = recipe.dataset.model_copy(update={"evaluation_source": None, "evaluation_share": 0.0})
    export = recipe.export.model_copy(update={"formats": ("adapter",), "prove": False})
    return recipe.model_copy(update={"training": training, "dataset": dataset, "export": export})


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = os.environ.get("FINETUI_BENCH_HOME", home)
        path = Path(home) / "recipe.yaml"
        save(_recipe(), path)
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.overhead_turns", str(path), "finetui", "bare", "bare"],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, **worker_environment()},
        )
        ours, bare, again = json.loads(done.stdout.splitlines()[-1])
        times = [side["seconds"][WARM_STEPS:] for side in (ours, bare, again)]
        ratios = [2 * a / (b + c) for a, b, c in zip(*times, strict=True)]
        noise = _mean([c / b for _, b, c in zip(*times, strict=True)])
        gap = max(abs(a - b) for a, b in zip(ours["losses"], bare["losses"], strict=True))
        milliseconds = [statistics.median(of) * 1000 for of in times[:2]]
        detail = (
            f"{STEPS} steps of the demo on {_device()}; a step takes {milliseconds[0]:.0f} ms and {milliseconds[1]:.0f} ms "
            f"bare; two bare ones against each other {noise:.3f} ×; largest loss difference {gap:.4f}"
        )
        return [Result("training overhead", _mean(ratios), 1.02, "×", detail)]


def _mean(ratios: list[float]) -> float:
    cut = len(ratios) // 10
    return statistics.fmean(sorted(ratios)[cut : len(ratios) - cut])


def _device() -> str:
    gpus = snapshot().gpus
    return gpus[0].name if gpus else "the CPU"
