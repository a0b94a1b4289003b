"""Settings that a CPU cannot have, each to its effect: 4-bit, the 8-bit optimizer, packing; and resuming on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetui.core.runs.events import DatasetReady, ModelReady, Step
from tests.worker import harness


def test_4_bit_8_bit_optimizer_and_packing_reach_the_trainer(tiny_model: Path, tiny_rows: Path) -> None:
    from finetui.core.worker import environment

    environment.import_unsloth()
    from tests.worker.in_process import Trainer

    built = Trainer(
        harness.recipe(
            tiny_model, tiny_rows, precision="4bit", optimizer="adamw_8bit", packing=True, max_length=512
        )
    )
    assert built.loaded.model.is_loaded_in_4bit
    assert built.loaded.ready.dtype.startswith("4-bit")
    trainer = built.trainer
    trainer.create_optimizer_and_scheduler(num_training_steps=5)
    inner = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    assert "8bit" in type(inner).__name__.lower() or "bitsandbytes" in type(inner).__module__
    batch = next(iter(trainer.get_train_dataloader()))
    rows = built.prepared.train.count
    assert batch["input_ids"].shape[-1] > built.prepared.train.longest  # several rows in one sequence
    assert (batch["labels"] != -100).any()
    assert (batch["labels"] == -100).any()  # the mask survived packing
    sequences = len(trainer.train_dataset)
    print(f"{rows} rows packed into {sequences} sequences")
    assert sequences < rows


@pytest.mark.parametrize("optimizer", ["paged_adamw_8bit", "lion_8bit", "adafactor"])
def test_8_bit_weights_and_each_optimizer_train(tiny_model: Path, tiny_rows: Path, optimizer: str) -> None:
    from finetui.core.worker import environment

    environment.import_unsloth()
    from tests.worker.in_process import Trainer

    built = Trainer(harness.recipe(tiny_model, tiny_rows, precision="8bit", optimizer=optimizer))
    assert built.loaded.model.is_loaded_in_8bit and built.loaded.ready.dtype.startswith("8-bit")
    built.trainer.train()
    inner = built.trainer.optimizer.optimizer
    expected = {"paged_adamw_8bit": "AdamW", "lion_8bit": "Lion", "adafactor": "Adafactor"}[optimizer]
    assert type(inner).__name__.startswith(expected)
    assert ("bitsandbytes" in type(inner).__module__) == (optimizer != "adafactor")
    losses = harness.losses(built.run)
    assert losses[6] < losses[1]


@pytest.mark.parametrize("precision", ["16bit", "32bit"])
def test_a_whole_model_trains(tiny_model: Path, tiny_rows: Path, precision: str) -> None:
    values = {"method": "full", "precision": precision, "learning_rate": 1e-3, "formats": ("merged",)}
    run = harness.make_run(harness.recipe(tiny_model, tiny_rows, **values))
    assert harness.finish(harness.start("train", run), run) == 0, run.log.read_text()[-3000:]
    (ready,) = harness.events(run, ModelReady)
    assert ready.trainable == ready.parameters and ready.device == "cuda:0"
    assert ready.dtype == ("float32" if precision == "32bit" else "bfloat16")
    losses = harness.losses(run)
    assert losses[6] < losses[1]


@pytest.mark.parametrize("precision", ["16bit", "4bit"])
def test_a_stopped_run_goes_on_as_if_it_had_not(tiny_model: Path, tiny_rows: Path, precision: str) -> None:
    values = {
        "precision": precision,
        "max_steps": 8,
        "save_every_steps": 4,
        "dropout": 0.0,
    }
    whole = harness.make_run(harness.recipe(tiny_model, tiny_rows, **values))
    assert harness.finish(harness.start("train", whole), whole) == 0, whole.log.read_text()[-3000:]
    killed = harness.make_run(harness.recipe(tiny_model, tiny_rows, **values))
    worker = harness.start("train", killed)
    harness.until(lambda: any(s.step >= 5 for s in harness.events(killed, Step)), worker)
    worker.kill()
    worker.wait()
    assert harness.finish(harness.start("resume", killed), killed) == 0, killed.log.read_text()[-3000:]
    expected, found = harness.losses(whole), harness.losses(killed)
    assert set(found) == set(expected)
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=2e-3, abs=2e-3), step


def test_packed_and_plain_see_the_same_tokens(tiny_model: Path, tiny_rows: Path) -> None:
    counted = {}
    for packing in (False, True):
        run = harness.make_run(
            harness.recipe(tiny_model, tiny_rows, packing=packing, epochs=1.0, max_steps=None, max_length=512)
        )
        assert harness.finish(harness.start("train", run), run) == 0, run.log.read_text()[-3000:]
        (model,), (data,) = harness.events(run, ModelReady), harness.events(run, DatasetReady)
        assert model.device == "cuda:0"
        counted[packing] = (harness.events(run, Step)[-1].trained_tokens, data.trained_tokens)
    assert counted[True] == pytest.approx(counted[False], rel=0.02)
