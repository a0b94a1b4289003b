"""A training whose process is not given the memory that its long rows need: `python -m tests.worker.out_of_memory FOLDER`.

Prints one JSON object. A process of its own, because the limit on its address space is never lifted again, and because it
needs MALLOC_MMAP_THRESHOLD_, so that the C library gives freed blocks back to the system.
"""

from __future__ import annotations

import ctypes
import json
import resource
import sys
from pathlib import Path
from typing import Any

SHORT_STEPS, BATCH = 2, 8
LONG_CHARACTERS = 1500


def write_rows(path: Path) -> Path:
    """Two steps of short rows, then one of long ones, then a short one again."""
    sizes = [20] * (SHORT_STEPS * BATCH) + [LONG_CHARACTERS] * BATCH + [20] * BATCH
    with path.open("w", encoding="utf-8") as file:
        for index, size in enumerate(sizes):
            answer = (f"{index} blue and gold " * (size // 10))[:size]
            said = [{"role": "user", "content": f"{index}?"}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": said}) + "\n")
    return path


def status(name: str) -> int:
    """Bytes of this process's memory, as /proc has them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def main(folder: Path) -> dict[str, Any]:
    from finetui.core.worker import environment

    environment.import_unsloth()
    from finetui.core import recipe_file
    from finetui.core.runs.events import Warned
    from finetui.core.worker import probe, training
    from finetui.core.worker.ladder import Ladder

    from . import harness, tiny
    from .in_process import Trainer

    model, rows = tiny.make(folder / "model"), write_rows(folder / "rows.jsonl")

    def built(**values: Any) -> Trainer:
        common: dict[str, Any] = {
            "max_length": 2048,
            "shuffle": False,
            "evaluation_share": 0.0,
            "max_steps": 4,
            "epochs": 1.0,
            "batch_size": BATCH,
        }
        return Trainer(harness.recipe(model, rows, **(common | values)))

    calm = built(batch_size=1, gradient_accumulation_steps=BATCH)
    training.train(calm.trainer, calm.reporter, calm.reporter._recipe, None)

    # What the long rows take at once, without a limit.
    large = built()
    trainer = large.trainer
    trainer.current_gradient_accumulation_steps = 1
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    batch = probe.longest_batch(trainer, probe.lengths_of(trainer.train_dataset))
    trainer.training_step(trainer.model, batch, None)
    grown = status("VmHWM") - before
    trainer.model.zero_grad()
    del batch

    tight = built()
    recipe = recipe_file.load(tight.run.recipe)
    ladder = Ladder(tight.trainer, recipe, tight.run, tight.writer).hold()
    ctypes.CDLL(None).malloc_trim(0)
    limit = status("VmSize") + int(0.6 * grown)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    training.train(tight.trainer, tight.reporter, recipe, None)
    after = recipe_file.load(tight.run.recipe)
    return {
        "calm": harness.losses(calm.run),
        "tight": harness.losses(tight.run),
        "warned": [[w.code, w.what, w.why, w.fix] for w in harness.events(tight.run, Warned)],
        "batch": after.training.batch_size,
        "accumulation": after.training.gradient_accumulation_steps,
        "checkpointing": after.lora.gradient_checkpointing,
        "rows": ladder.rows,
        "grown": grown,
    }


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(main(Path(sys.argv[1]))) + "\n")
