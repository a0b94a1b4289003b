"""`finetui export` with real workers: several runs at once, and the weights of a checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finetui.core import paths, recipe_file
from finetui.core.runs import checkpoints
from finetui.core.runs.event_log import Record, encode
from finetui.core.runs.events import Ended, Started
from finetui.core.worker import tensors

from . import harness
from .exporting import Tuned, make_run


def command(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "finetui.tui", "export", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=harness.PATIENCE,
        check=False,
        env={**os.environ, **more},
    )


def run_named(name: str, base: Path, seed: int) -> Tuned:
    paths.runs().mkdir(parents=True, exist_ok=True)
    made = make_run(paths.runs() / f"20260101-000000-{name}", base, name, seed=seed)
    recipe_file.save(made.recipe, made.run.recipe)
    told = (Started("train", 2**22 + 1, 1.0, "here", name), Ended("train", "completed"))
    made.run.events.write_bytes(b"".join(encode(Record(i, 1.0, e)) for i, e in enumerate(told, 1)))
    return made


def test_several_runs_and_a_checkpoint_of_one(tiny_model: Path) -> None:
    first, second = run_named("first", tiny_model, 1), run_named("second", tiny_model, 2)
    (second.run.exports / "merged").mkdir()
    said = command("first", "second", "--format", "merged")
    assert said.returncode != 0 and "Traceback" not in said.stderr, said
    found = tensors.merged(first.run.exports / "merged", tiny_model, first.run.adapter)
    assert found.learned == pytest.approx(1, abs=0.05), said
    assert "Merged, 16-bit (made by an older finetui)" in said.stderr
    assert list((second.run.exports / "merged").iterdir()) == []

    other = run_named("third", tiny_model, 3)
    folder = second.run.checkpoints / "checkpoint-4"
    folder.parent.mkdir()
    other.run.adapter.rename(folder)
    checkpoints.seal(folder)
    said = command("second", "--format", "merged,adapter", "--replace", "--checkpoint", "4", "--json")
    assert said.returncode == 0, said
    told = [json.loads(line) for line in said.stdout.splitlines()]
    assert {e["format"]: e["step"] for e in told if e["kind"] == "export"} == {"merged": 4, "adapter": 4}
    found = tensors.merged(second.run.exports / "merged", tiny_model, folder)
    assert found.learned == pytest.approx(1, abs=0.05)
    weights = load_file(second.run.exports / "adapter" / "adapter_model.safetensors")
    assert weights.keys() == load_file(folder / "adapter_model.safetensors").keys()
    assert not (second.run.exports / "adapter" / checkpoints.SEAL).exists()
