"""Real checkpoints and a real adapter, saved by a process that is killed at each of its operations on files:
`python -m tests.worker.killed_saving RUN`. Prints one JSON object. A process of its own, because it forks after Unsloth's import.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from finetui.core import recipe_file
from finetui.core.runs import checkpoints, chosen
from finetui.core.runs.event_log import read_all
from finetui.core.runs.events import Checkpoint
from finetui.core.runs.store import RunFolder
from tests import killing


def main(path: str) -> dict[str, Any]:
    from finetui.core.worker import environment

    environment.import_unsloth()
    from finetui.core.worker import adapter, training

    from .in_process import Trainer

    run = RunFolder(Path(path))
    recipe = recipe_file.load(run.recipe)
    made = Trainer(recipe, run)
    trainer, reporter = made.trainer, made.reporter
    training.train(trainer, reporter, recipe, None)
    adapter.save(made.loaded.model, made.loaded.tokenizer, recipe, run)
    last = trainer.state.global_step
    told = run.events.stat().st_size
    before = run.path / "before"
    shutil.copytree(run.checkpoints, before)
    found: dict[str, Any] = {"wrong": [], "steps": {}, "last": last}

    # One checkpoint more.

    def save() -> None:
        trainer.state.global_step = last + 1
        trainer._save_checkpoint(trainer.model, None)
        reporter.on_save(trainer.args, trainer.state, None)

    def look(done: bool) -> None:
        chosen, damaged = checkpoints.choose(run.checkpoints)
        step = checkpoints.step_of(chosen) if chosen else -1
        said = any(isinstance(r.event, Checkpoint) and r.event.step == last + 1 for r in read_all(run.events))
        if step != last + 1 and (step != last or said or done):
            found["wrong"].append(f"step {step}, told {said}, done {done}, damaged {damaged}")
        found["steps"][step] = found["steps"].get(step, 0) + 1
        os.truncate(run.events, told)
        shutil.rmtree(run.checkpoints)
        shutil.copytree(before, run.checkpoints)

    found["operations"] = killing.at_every_operation(save, look)
    sizes = {p.stat().st_size for p in (before / f"checkpoint-{last}").rglob("*") if p.is_file()}
    found["sizes"] = killing.at_every_size(save, look, {size // 2 for size in sizes if size > 64})

    # Another adapter in place of the one that stands there.
    import torch

    def weights() -> bytes:
        chosen.settle(run)
        if (
            not (run.adapter / "tokenizer.json").is_file()
            or not (run.adapter / "adapter_config.json").is_file()
        ):
            return b""
        return (run.adapter / adapter.WEIGHTS).read_bytes()

    old = weights()
    for parameter in made.loaded.model.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.add_(1.0)

    def replace() -> None:
        adapter.save(made.loaded.model, made.loaded.tokenizer, recipe, run)

    seen: list[bytes] = []

    def look_at_adapter(done: bool) -> None:
        seen.append(weights())
        if not done and seen[-1] != old:
            shutil.rmtree(run.adapter)
            shutil.copytree(run.path / "kept", run.adapter)

    shutil.copytree(run.adapter, run.path / "kept")
    found["adapter_operations"] = killing.at_every_operation(replace, look_at_adapter)
    found["adapters"] = {
        "old": seen.count(old),
        "new": seen.count(seen[-1]),
        "all": len(seen),
        "changed": seen[-1] != old,
    }
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
