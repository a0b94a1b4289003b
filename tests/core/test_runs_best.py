"""Going back to a better checkpoint."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from finetui.core import coach, recipe_file
from finetui.core.coach_seen import Action, Seen
from finetui.core.demo.recipe import demo_recipe
from finetui.core.errors import FinetuiError
from finetui.core.runs import best, checkpoints, store
from finetui.core.runs.curves import Curves
from finetui.core.runs.events import Step
from finetui.core.runs.store import RunFolder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    run = store.create("demo")
    recipe_file.save(demo_recipe(), run.recipe)
    for step in (20, 40):
        folder = run.checkpoints / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(f"weights {step}".encode())
        (folder / "adapter_config.json").write_text("{}")
        (folder / "trainer_state.json").write_text("{}")
        (folder / "optimizer.pt").write_bytes(b"x")
        checkpoints.seal(folder)
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").write_bytes(b"weights last")
    (run.adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    return run


def test_the_weights_are_those_of_the_checkpoint(run: RunFolder) -> None:
    assert "step 20" in best.go_back(run, 20)
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == b"weights 20"
    assert sorted(p.name for p in run.adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert "org/base" in (run.adapter / "adapter_config.json").read_text()
    last = run.path / "adapter-last" / "adapter_model.safetensors"
    assert last.read_bytes() == b"weights last"
    best.go_back(run, 40)  # the end's weights stay those of the end
    assert last.read_bytes() == b"weights last"
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == b"weights 40"


def test_a_damaged_checkpoint_changes_nothing(run: RunFolder) -> None:
    (run.checkpoints / "checkpoint-20" / "adapter_model.safetensors").write_bytes(b"weights 2O")
    for step in (20, 30):
        with pytest.raises(FinetuiError) as error:
            best.go_back(run, step)
        assert error.value.code == "checkpoint-damaged"
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == b"weights last"


def test_not_while_a_worker_holds_the_run(run: RunFolder) -> None:
    with run.lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(FinetuiError) as error:
            best.go_back(run, 20)
    assert error.value.code == "run-busy"
    best.go_back(run, 20)


def test_the_coach_names_it_where_there_is_one() -> None:
    curves = Curves()
    curves.begin(0.0)
    for n in range(1, 101):
        curves.add_step(Step(n, 100, n / 50, 2.0 * 0.97**n, 1e-4, 0.5), float(n))
        if n % 20 == 0:
            curves.evaluated(n, {20: 1.0, 40: 0.8, 60: 0.9, 80: 1.0, 100: 1.1}[n])
    recipe = demo_recipe()

    def action(saved: tuple[int, ...], keep: bool = False, live: bool = False) -> Action | None:
        training = recipe.training.model_copy(update={"keep_best": keep})
        seen = Seen(
            curves, 100, recipe.model_copy(update={"training": training}), live=live, checkpoints=saved
        )
        return next(one.action for one in coach.advise(seen) if one.rule == "overfitting")

    back = action((30, 35, 60, 100))
    assert back is not None and (back.act, back.step) == ("best", 35) and "35" in back.words
    for other in (action((10, 60)), action((35,), keep=True), action((35,), live=True)):
        assert other is not None and other.act != "best"
