"""The plain script of a recipe learns what the worker learns: the same losses, step by step, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetui.core import script, script_look
from finetui.core.recipe import Recipe

from . import harness


def losses_of_script(recipe: Recipe, folder: Path) -> dict[int, float]:
    made = script.make(recipe, script_look.look(recipe.dataset))
    assert "finetui" not in made.text.replace(recipe.model.source, "").replace(recipe.dataset.source, "")
    target = folder / made.file_name
    target.write_text(made.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, target.name], cwd=folder, capture_output=True, text=True, timeout=harness.PATIENCE
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (state,) = folder.glob("*/trainer_state.json")
    history = json.loads(state.read_bytes())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


def talks(folder: Path) -> Path:
    """Talks of two answers in ShareGPT's form with system prompts, copies, blanks and rows that cannot be used."""
    rows: list[object] = []
    for index in range(24):
        said = [
            ("human", f"What is {index}?"),
            ("gpt", f"It is {index} ü."),
            ("human", "And next?"),
            ("gpt", f"{index + 1}."),
        ]
        if index % 3 == 0:
            said.insert(0, ("system", "Be brief."))
        rows.append({"conversations": [{"from": who, "value": text} for who, text in said]})
    rows += [rows[0], {"conversations": [{"from": "human", "value": "Nobody answers."}]}]
    path = folder / "talks.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def pairs(folder: Path) -> Path:
    path = folder / "pairs.csv"
    path.write_text(
        "Question;Answer\n" + "".join(f'"What, {i % 20}?";"Say ""{i}"""\n' for i in range(30)),
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("case", ["plain", "talks", "pairs", "full", "more"])
def test_the_losses_are_the_workers(case: str, tiny_model: Path, tiny_rows: Path, tmp_path: Path) -> None:
    changes: dict[str, object] = {
        "plain": {"dropout": 0.1, "gradient_accumulation_steps": 2},
        "talks": {
            "system_prompt": 'It\'s "so".',
            "deduplicate": True,
            "multi_turn": "split",
            "row_limit": 20,
        },
        "pairs": {
            "join_rows": 2,
            "shuffle": False,
            "train_on": "everything",
            "rslora": True,
            "schedule": "cosine",
            "evaluate_every_steps": 3,
        },
        "full": {
            "method": "full",
            "precision": "32bit",
            "formats": ("merged",),
            "prove": False,
            "max_grad_norm": 0.5,
            "warmup_steps": 2,
        },
        "more": {
            "dora": True,
            "neftune_noise_alpha": 5.0,
            "schedule": "cosine_with_restarts",
            "schedule_cycles": 2,
            "optimizer": "adafactor",
        },
    }[case]
    rows = talks(tmp_path) if case == "talks" else pairs(tmp_path) if case == "pairs" else tiny_rows
    recipe = harness.recipe(tiny_model, rows, **changes)
    run = harness.trained(recipe)
    expected = harness.losses(run)
    found = losses_of_script(recipe, tmp_path)
    assert len(expected) == 6 and found == expected
