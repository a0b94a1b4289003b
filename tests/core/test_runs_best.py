"""Going back to a better checkpoint."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import pytest

from finetui.core import coach, recipe_file
from finetui.core.coach_seen import Action, Seen
from finetui.core.demo.recipe import demo_recipe
from finetui.core.errors import FinetuiError
from finetui.core.runs import best, care, checkpoints, chosen, event_log, store
from finetui.core.runs.curves import Curves
from finetui.core.runs.events import Ended, Evaluation, Step
from finetui.core.runs.store import RunFolder
from tests import killing
from tests.tui.command_line import finetui


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
        "finetui-step",
    ]
    assert "org/base" in (run.adapter / "adapter_config.json").read_text()
    last = run.path / "adapter-last" / "adapter_model.safetensors"
    assert last.read_bytes() == b"weights last"
    best.go_back(run, 40)  # the end's weights stay those of the end
    assert last.read_bytes() == b"weights last"
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == b"weights 40"


def test_the_command_goes_back_to_the_lowest_held_out_loss_or_to_a_step(run: RunFolder) -> None:
    def weights() -> bytes:
        return (run.adapter / "adapter_model.safetensors").read_bytes()

    said = finetui("back", run.id)
    assert said.returncode == 6 and "20, 40" in said.stderr and weights() == b"weights last"
    losses = [Evaluation(20, 0.4), Evaluation(25, 0.3), Evaluation(40, 0.6)]
    run.events.write_bytes(
        b"".join(event_log.encode(event_log.Record(i, 1.0, e)) for i, e in enumerate(losses, 1))
    )
    said = finetui("back", "last")
    assert said.returncode == 0 and "step 20" in said.stdout and weights() == b"weights 20"
    said = finetui("back", run.id, "--step", "40", "--json")  # which was set aside
    assert json.loads(said.stdout)["step"] == 40 and weights() == b"weights 40"
    assert finetui("back", run.id, "--step", "7").returncode == 6 and weights() == b"weights 40"


def newest(run: RunFolder) -> int:
    found, _ = checkpoints.choose(run.checkpoints)
    return checkpoints.step_of(found) if found else 0


def test_what_goes_on_and_what_is_told_start_from_there(run: RunFolder) -> None:
    """A resume, a retry and a longer training all take the newest whole checkpoint; an export names the step."""
    recipe = recipe_file.load(run.recipe)
    best.go_back(run, 20)
    assert newest(run) == 20
    assert [chosen.choose(run, recipe, what).step for what in ("result", "last")] == [20, 20]
    best.go_back(run, 40)
    assert newest(run) == 40 and chosen.choose(run, recipe, "result").step == 40
    best.go_back(run, 20)
    run.events.write_bytes(event_log.encode(event_log.Record(1, 1.0, Ended("train", "stopped", 1.0))))
    assert run.path / "checkpoints-last" / "checkpoint-40" in care.cleaning(run).remove


def test_the_weights_of_another_end_take_the_place_of_those_of_the_first(run: RunFolder) -> None:
    best.go_back(run, 20)
    new = run.path / chosen.NEW
    new.mkdir()
    (new / "adapter_model.safetensors").write_bytes(b"weights of a second end")
    chosen.replace(run.adapter, new)  # as the worker does where it has trained on
    best.go_back(run, 20)
    last = run.path / "adapter-last" / "adapter_model.safetensors"
    assert last.read_bytes() == b"weights of a second end"


def test_a_death_while_going_back_leaves_whole_weights_and_loses_none(run: RunFolder, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(run.path, kept)
    seen: list[bytes] = []

    def look(done: bool) -> None:
        chosen.settle(run)
        seen.append((run.adapter / "adapter_model.safetensors").read_bytes())
        best.go_back(run, 20)
        assert (run.adapter / "adapter_model.safetensors").read_bytes() == b"weights 20"
        assert (run.path / "adapter-last" / "adapter_model.safetensors").read_bytes() == b"weights last"
        assert newest(run) == 20 and (run.path / "checkpoints-last" / "checkpoint-40").is_dir()
        shutil.rmtree(run.path)
        shutil.copytree(kept, run.path)

    assert killing.at_every_operation(lambda: best.go_back(run, 20), look) > 15
    assert set(seen) == {b"weights last", b"weights 20"}


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

    def action(saved: tuple[int, ...], best_kept: bool = False, live: bool = False) -> Action | None:
        seen = Seen(curves, 100, demo_recipe(), live=live, checkpoints=saved, ended_with_best=best_kept)
        return next(one.action for one in coach.advise(seen) if one.rule == "overfitting")

    back = action((30, 35, 60, 100))
    assert back is not None and (back.act, back.step) == ("best", 35) and "35" in back.words
    for other in (action((10, 60)), action((35,), best_kept=True), action((35,), live=True)):
        assert other is not None and other.act != "best"
