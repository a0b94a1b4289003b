"""The probe changes nothing of what is learned, and memory that runs out in a run loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetui.core import paths, recipe_file
from finetui.core.errors import FinetuiError
from finetui.core.recipe import Recipe
from finetui.core.runs.event_log import read_all
from finetui.core.runs.events import Evaluation, Probed, Started, Step, Warned
from finetui.tui.commands import exits

from . import harness
from .in_process import Trainer

pytestmark = pytest.mark.usefixtures("unsloth")

VALUES: dict[str, Any] = {
    "batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 4,
    "evaluation_share": 0.2,
    "evaluate_every_steps": 2,
}


class Scarce:
    """Fails as torch's allocator does, by asking it for more than there is, where a layer sees more rows than it may."""

    def __init__(
        self, model: Any, rows: int, *, unless_checkpointed: bool = False, from_call: int = 0
    ) -> None:
        self.rows, self.unless_checkpointed, self.calls = rows, unless_checkpointed, -from_call
        self.layer = next(m for name, m in model.named_modules() if name.endswith("layers.1"))
        self.layer.mlp.register_forward_pre_hook(self._allocate)

    def _allocate(self, _module: Any, inputs: tuple[Any, ...]) -> None:
        import torch

        self.calls += 1
        checkpointed = bool(self.layer.gradient_checkpointing)
        if (
            self.calls > 0
            and inputs[0].shape[0] > self.rows
            and not (self.unless_checkpointed and checkpointed)
        ):
            torch.empty(1 << 50, dtype=torch.uint8)


def trained(
    recipe: Recipe, *, probed: bool = False, ladder: bool = False, scarce: dict[str, Any] | None = None
) -> Trainer:
    """`recipe` trained in this process as the worker does it."""
    from finetui.core.worker import training
    from finetui.core.worker.control import Control
    from finetui.core.worker.ladder import Ladder
    from finetui.core.worker.probe import Done, Probe

    built = Trainer(recipe)
    if scarce is not None:
        Scarce(built.loaded.model, **scarce)
    if ladder or probed:
        held = Ladder(built.trainer, recipe, built.run, built.writer).hold()
        if probed:
            Probe(built.trainer, held, Control(built.run.control), built.writer, always=True).hold()
    try:
        training.train(built.trainer, built.reporter, recipe, None)
    except Done:
        pass
    return built


@pytest.fixture(scope="module")
def plain(tiny_model: Path, tiny_rows: Path) -> Trainer:
    """A run with neither probe nor ladder."""
    return trained(harness.recipe(tiny_model, tiny_rows, **VALUES))


@pytest.fixture(scope="module")
def split(tiny_model: Path, tiny_rows: Path) -> Trainer:
    """The same with one row at once from the beginning."""
    values = VALUES | {"batch_size": 1, "gradient_accumulation_steps": 8}
    return trained(harness.recipe(tiny_model, tiny_rows, **values))


def test_a_probe_changes_no_loss(unsloth: None, tiny_model: Path, tiny_rows: Path) -> None:
    """Dropout draws random numbers, the order of the rows too: all is as it was."""
    recipe = harness.recipe(tiny_model, tiny_rows, **(VALUES | {"dropout": 0.2}))
    without, with_probe = trained(recipe), trained(recipe, probed=True)
    assert harness.losses(with_probe.run) == harness.losses(without.run)
    assert [e.loss for e in harness.events(with_probe.run, Evaluation)] == [
        e.loss for e in harness.events(without.run, Evaluation)
    ]
    (found,) = harness.events(with_probe.run, Probed)
    assert found.device == "cpu"
    assert found.rows == 4
    assert found.longest == with_probe.prepared.train.longest
    assert found.tokens == 4 * found.longest  # padded as the collator pads
    assert 0 < found.measured_bytes < found.limit_bytes
    assert found.predicted_bytes > 0
    assert found.seconds > 0
    assert found.seconds_per_step > 0
    assert found.evaluation_seconds is not None
    assert not found.stepped_down
    assert 0 <= found.compile_seconds < found.probe_seconds
    assert found.cost_seconds >= found.seconds + found.evaluation_seconds


def test_on_a_roomy_cpu_a_run_is_not_probed_and_says_why(plain: Trainer) -> None:
    from finetui.core.worker import probe

    shape = probe.shape_of(plain.trainer.model)
    assert shape is not None
    needed, why = probe.wanted(Recipe(), shape, 50)
    assert not needed
    assert "predicted" in why
    huge = harness.recipe(Path("x"), Path("y"), batch_size=1024, max_length=131_072)
    assert probe.wanted(huge, shape, 131_072) == (True, "")


def test_half_the_rows_and_the_same_losses(
    plain: Trainer, split: Trainer, tiny_model: Path, tiny_rows: Path
) -> None:
    """Memory runs out in the second batch of the second step: what the first one had added up is done again too."""
    recipe = harness.recipe(tiny_model, tiny_rows, **VALUES)
    built = trained(recipe, ladder=True, scarce={"rows": 1, "from_call": 3})
    expected, found = harness.losses(split.run), harness.losses(built.run)
    assert found[1] == harness.losses(plain.run)[1]  # nothing had happened yet
    assert found == pytest.approx(expected, abs=1e-3)
    warned = [w for w in harness.events(built.run, Warned) if w.code == "memory-smaller-batch"]
    assert [w.what.split(":")[0] for w in warned] == ["Memory ran out at step 2"] * 2
    assert "1 row at once" in warned[1].what
    after = recipe_file.load(built.run.recipe)
    assert (after.training.batch_size, after.training.gradient_accumulation_steps) == (1, 8)
    assert after.effective_batch_size == recipe.effective_batch_size
    assert "memory-smaller-evaluation" in harness.codes(built.run)
    evaluations = [e.loss for e in harness.events(built.run, Evaluation)]
    assert evaluations == pytest.approx([e.loss for e in harness.events(plain.run, Evaluation)], abs=2e-3)


def test_many_batches_of_many_rows_become_more_of_one_row(tiny_model: Path, tiny_rows: Path) -> None:
    """The recipe that the ladder leaves can be read: a resume reads nothing else."""
    values = VALUES | {"batch_size": 8, "gradient_accumulation_steps": 256, "max_steps": 1, "warmup_steps": 0}
    built = trained(
        harness.recipe(tiny_model, tiny_rows, **values), ladder=True, scarce={"rows": 1, "from_call": 1}
    )
    after = recipe_file.load(built.run.recipe).training
    assert (after.batch_size, after.gradient_accumulation_steps) == (1, 2048)


def test_then_checkpointing(split: Trainer, tiny_model: Path, tiny_rows: Path) -> None:
    recipe = harness.recipe(tiny_model, tiny_rows, **VALUES)
    built = trained(recipe, ladder=True, scarce={"rows": 0, "unless_checkpointed": True, "from_call": 2})
    assert harness.losses(built.run) == pytest.approx(harness.losses(split.run), abs=1e-3)
    assert recipe_file.load(built.run.recipe).lora.gradient_checkpointing
    codes = harness.codes(built.run)
    assert codes.index("memory-checkpointing") > codes.index("memory-smaller-batch")
    assert all(w.what and w.why and w.fix for w in harness.events(built.run, Warned))


def test_what_the_recipe_says_decides_where_the_ladder_ends(tiny_model: Path, tiny_rows: Path) -> None:
    def of(words: str) -> Recipe:
        return harness.recipe(tiny_model, tiny_rows, **(VALUES | {"on_out_of_memory": words, "max_steps": 2}))

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        trained(of("stop"), ladder=True, scarce={"rows": 1})
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        trained(of("smaller"), ladder=True, scarce={"rows": 0})
    with pytest.raises(FinetuiError) as caught:  # the probe finds it before the first step
        trained(of("smaller"), probed=True, scarce={"rows": 0})
    assert caught.value.code == "host-memory"
    assert "before the first step" in caught.value.why
    skipped = trained(of("skip"), ladder=True, scarce={"rows": 0, "from_call": 2})
    assert len(harness.losses(skipped.run)) == 2
    assert "rows-left-out" in harness.codes(skipped.run)


def test_a_probe_steps_down_before_the_run_begins(split: Trainer, tiny_model: Path, tiny_rows: Path) -> None:
    recipe = harness.recipe(tiny_model, tiny_rows, **VALUES)
    built = trained(recipe, probed=True, scarce={"rows": 2})
    (found,) = harness.events(built.run, Probed)
    assert found.stepped_down
    assert recipe_file.load(built.run.recipe).training.batch_size == 2
    assert harness.losses(built.run) == pytest.approx(harness.losses(split.run), abs=1e-3)


@pytest.mark.parametrize("deadly", ["call", "return"])
def test_a_kill_while_the_smaller_batch_is_written_down_costs_nothing(
    tiny_model: Path, tiny_rows: Path, deadly: str
) -> None:
    """Killed at step 4, before or after the recipe's rewrite; resumed where memory is as scarce as it was."""
    values = VALUES | {"max_steps": 6, "save_every_steps": 2, "evaluate_every_steps": 0}
    recipe = harness.recipe(tiny_model, tiny_rows, **values)
    calm = harness.make_run(recipe)
    assert harness.finish(harness.start("train", calm), calm) == 0

    def scarce(job: str, free_calls: int, deadly: str) -> int:
        words = [sys.executable, "-m", "tests.worker.killed_descending", job, str(run.path), str(free_calls)]
        with run.log.open("ab") as log:
            done = subprocess.run(
                [*words, deadly], stdout=log, stderr=log, timeout=harness.PATIENCE, check=False
            )
        return done.returncode

    run = harness.make_run(recipe)
    assert (
        scarce("train", 3 * 2 * 2 + 2, deadly) == -signal.SIGKILL
    )  # a step takes two batches through two layers
    assert max(harness.losses(run)) == 3 and "memory-smaller-batch" not in harness.codes(run)
    written = recipe_file.load(run.recipe).training
    assert written.batch_size == (4 if deadly == "call" else 2)
    assert written.batch_size * written.gradient_accumulation_steps == recipe.effective_batch_size

    assert scarce("resume", 0, "never") == 0
    assert harness.ended(run).reason == "completed"
    after = recipe_file.load(run.recipe)
    assert after.training.batch_size == 2 and after.effective_batch_size == recipe.effective_batch_size
    assert ("memory-smaller-batch" in harness.codes(run)) == (deadly == "call")
    assert [step.step for step in harness.events(run, Step)] == [1, 2, 3, 3, 4, 5, 6]
    assert harness.losses(run) == pytest.approx(harness.losses(calm), abs=1e-3)
    last = [harness.events(one, Step)[-1] for one in (run, calm)]
    assert last[0].tokens == last[1].tokens and last[0].trained_tokens == last[1].trained_tokens


def test_batches_are_divided_between_rows() -> None:
    import torch

    from finetui.core.worker import parts

    padded = {
        "input_ids": torch.arange(20).reshape(4, 5),
        "attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]),
        "labels": torch.arange(20).reshape(4, 5),
    }
    one, two = parts.divided(padded, 2, 4)
    assert one["input_ids"].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert two["labels"].shape == (2, 5)
    assert len(parts.divided(padded, 4, 4)) == 1
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 0, 1]])
    flat = {
        "input_ids": torch.arange(8)[None],
        "labels": torch.arange(8)[None],
        "position_ids": positions,
        "packed_seq_lengths": torch.tensor([3, 2, 1, 2]),
    }
    first, second = parts.divided(flat, 2, 4)  # padding-free: four rows end to end
    assert first["input_ids"].tolist() == [[0, 1, 2, 3, 4]]
    assert second["packed_seq_lengths"].tolist() == [1, 2]
    halves = parts.divided(flat, 1, 2)  # packed: two sequences with four rows
    assert [part["position_ids"][0, 0].item() for part in halves] == [0, 0]
    assert sum(part["input_ids"].numel() for part in halves) == 8


def test_memory_that_really_runs_out(tmp_path: Path) -> None:
    """In a process whose address space is too small for its longest rows: torch's own allocator says no."""
    environment = dict(os.environ) | {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.worker.out_of_memory", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=harness.PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["warned"], said
    assert {code for code, *_ in said["warned"]} <= {"memory-smaller-batch", "memory-checkpointing"}
    assert said["warned"][0][1].startswith("Memory ran out at step 3")
    assert said["batch"] < 8
    assert said["batch"] * said["accumulation"] == 8
    assert said["batch"] == said["rows"]
    assert said["tight"] == pytest.approx(said["calm"], abs=2e-3)


def test_the_command_probes_in_a_process_of_its_own(
    tiny_model: Path, tiny_rows: Path, tmp_path: Path
) -> None:
    """It says what was found and keeps nothing; where that process is killed, a card says so and the recipe is as it was."""
    file = tmp_path / "recipe.yaml"
    recipe_file.save(harness.recipe(tiny_model, tiny_rows, **VALUES), file)
    before, cache = file.read_bytes(), paths.cache()
    command = [sys.executable, "-m", "finetui.tui", "probe", str(file), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=harness.PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["measured_bytes"] > 0
    assert found["training_seconds"] > 0
    assert found["gap"] == pytest.approx(found["measured_bytes"] / found["predicted_bytes"] - 1)
    assert list(cache.glob("probe-*")) == []

    probing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    harness.until(lambda: [r for f in cache.glob("probe-*/events.jsonl") for r in read_all(f)], probing)
    ((events,)) = cache.glob("probe-*/events.jsonl")
    started = read_all(events)[0].event
    assert isinstance(started, Started)
    os.kill(started.pid, signal.SIGKILL)
    said, _ = probing.communicate(timeout=harness.PATIENCE)
    assert probing.returncode == exits.REFUSED
    card = json.loads(said)["error"]
    assert card["code"] == "host-memory"
    assert "killed" in card["why"]
    assert file.read_bytes() == before
    assert list(cache.glob("probe-*")) == []
