"""Records the runs in `recorded/`: real trainings on a CPU, one of each kind that can be reached there.

`python -m tests.coach.record [NAME …]` trains what is named (or all that this machine can, about half an hour on two cores) and
keeps the events without their texts, packed; names that begin with "gpu-" need a GPU. `python -m tests.coach.record --keep NAME FOLDER` packs a run that exists.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetui.core import recipe_file
from finetui.core.demo import heldout_path, train_path
from finetui.core.demo.recipe import demo_recipe
from finetui.core.recipe import Recipe
from finetui.core.runs import store
from finetui.core.runs.launch import worker_environment
from finetui.core.system import snapshot
from finetui.core.worker.demo_model import prepare

from ..worker import stretched, tiny

FOLDER = Path(__file__).with_name("recorded")
KEPT = ("started", "model", "dataset", "step", "evaluation", "device", "checkpoint", "warning", "ended")
TEXTS = ("name", "host", "what", "why", "fix", "fingerprint", "chat_template", "path", "pid", "create_time")
TINY, WIDE = "tiny", "wide"
WIDER = 4


@dataclass(frozen=True)
class Case:
    """A training to record. `rows` picks of the demo's rows; `training` are fields of that section."""

    training: dict[str, Any]
    rows: Callable[[list[str]], list[str]] = list
    model: str = ""
    """`tiny` for the random model of the tests, `wide` for the demo's made four times as wide, else the demo's."""


def _first(count: int) -> Callable[[list[str]], list[str]]:
    return lambda rows: rows[:count]


def _odd(rows: list[str]) -> list[str]:
    """Every fortieth row is noise that nobody could have expected."""
    noise = "".join(chr(33 + (7 * n * n + 13 * n) % 90) for n in range(120))
    odd = json.dumps(
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": noise}]}
    )
    return [odd if index % 40 == 39 else row for index, row in enumerate(rows)]


DEMO_STEPS = {"batch_size": 4, "evaluate_every_steps": 5, "save_every_steps": 0}
TINY_STEPS = {"batch_size": 8, "evaluate_every_steps": 25, "save_every_steps": 0, "schedule": "constant"}
GPU_STEPS = {"evaluate_every_steps": 0, "save_every_steps": 0, "epochs": 100.0}
CASES = {
    "good-demo": Case({}),
    "good-small-rate": Case(
        {**DEMO_STEPS, "learning_rate": 2e-4, "max_steps": 60, "evaluate_every_steps": 10}
    ),
    "overfitting": Case(
        {**DEMO_STEPS, "learning_rate": 1e-3, "epochs": 18.0, "schedule": "constant"}, _first(16)
    ),
    "too-low": Case({**DEMO_STEPS, "learning_rate": 2e-6, "max_steps": 50}),
    "diverging": Case({**DEMO_STEPS, "learning_rate": 0.1, "warmup_share": 0.0, "max_steps": 40}),
    "too-high": Case({**DEMO_STEPS, "learning_rate": 2e-2, "max_steps": 50}),
    "tiny-good": Case({**TINY_STEPS, "learning_rate": 1e-2, "epochs": 5.0, "schedule": "linear"}, model=TINY),
    "tiny-plateau": Case({**TINY_STEPS, "learning_rate": 2e-2, "epochs": 25.0}, model=TINY),
    "tiny-diverging": Case({**TINY_STEPS, "learning_rate": 0.1, "epochs": 6.0, "batch_size": 2}, model=TINY),
    "tiny-odd-rows": Case({**TINY_STEPS, "learning_rate": 5e-3, "batch_size": 1, "epochs": 1.0}, _odd, TINY),
    "tiny-rate-too-high": Case({**TINY_STEPS, "learning_rate": 2e-2, "epochs": 150.0}, _first(16), TINY),
    "gpu-demo": Case({**GPU_STEPS, "epochs": 6.0}),
    "gpu-one-row": Case({**GPU_STEPS, "batch_size": 1, "max_steps": 200}),
    "gpu-small-batch": Case({**GPU_STEPS, "batch_size": 4, "max_steps": 160}, model=WIDE),
    "gpu-busy": Case(
        {**GPU_STEPS, "learning_rate": 1e-4, "batch_size": 4, "packing": True, "max_steps": 150}, model=WIDE
    ),
    "tiny-too-low": Case({**TINY_STEPS, "learning_rate": 1e-5, "epochs": 5.0}, model=TINY),
}


def recipe_of(case: Case, folder: Path) -> Recipe:
    recipe = demo_recipe()
    rows = folder / "rows.jsonl"
    rows.write_text("\n".join(case.rows(train_path().read_text().splitlines())) + "\n")
    held_out = folder / "held-out.jsonl"
    held_out.write_text(heldout_path().read_text())
    changes: dict[str, Any] = {
        "dataset": recipe.dataset.model_copy(
            update={"source": str(rows), "evaluation_source": str(held_out)}
        ),
        "training": recipe.training.model_copy(update={"sample_count": 0, **case.training}),
        "export": recipe.export.model_copy(update={"formats": ("adapter",), "prove": False}),
    }
    if case.model == TINY:
        model = tiny.make(folder / "model")
        changes["model"] = recipe.model.model_copy(update={"source": str(model), "max_length": 512})
    if case.model == WIDE:
        model = stretched.make(prepare(), folder / "model", WIDER)
        changes["model"] = recipe.model.model_copy(update={"source": str(model), "max_length": 2048})
    return Recipe.model_validate({**recipe.model_dump(), **{k: v.model_dump() for k, v in changes.items()}})


def pack(name: str, events: Path, recipe: Recipe) -> None:
    """Keeps the events of `events` that carry figures, and the recipe's own."""
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if k not in TEXTS} for line in lines if line["kind"] in KEPT]
    for line in kept:
        if line["kind"] == "started":
            line.update(pid=0, create_time=0.0, host="")
        if line["kind"] == "warning":
            line["what"] = ""
        if line["kind"] == "checkpoint":
            line["path"] = f"checkpoints/checkpoint-{line['step']}"
    body = {"lora": recipe.lora.model_dump(), "training": recipe.training.model_dump(), "events": kept}
    FOLDER.mkdir(exist_ok=True)
    packed = gzip.compress(json.dumps(body, separators=(",", ":")).encode(), 9, mtime=0)
    (FOLDER / f"{name}.json.gz").write_bytes(packed)
    print(f"{name}: {len(kept)} events, {len(packed):,} bytes", flush=True)


def train(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_of(CASES[name], Path(folder))
        run = store.create(name)
        recipe_file.save(recipe, run.recipe)
        with run.log.open("ab") as log:
            subprocess.run(
                [sys.executable, "-m", "finetui.core.worker", "train", str(run.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=run.path,
                env=worker_environment(),
                check=False,  # one that diverges may end as failed
            )
        pack(name, run.events, recipe)


def main() -> None:
    if sys.argv[1:2] == ["--keep"]:
        name, folder = sys.argv[2], store.RunFolder(Path(sys.argv[3]))
        pack(name, folder.events, recipe_file.load(folder.recipe))
        return
    for name in sys.argv[1:] or [name for name in CASES if snapshot().has_gpu or not name.startswith("gpu-")]:
        train(name)


if __name__ == "__main__":
    main()
