"""Settings that a CPU cannot have, each to its effect: 4-bit, the 8-bit optimizer, packing; and resuming on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetui.core.runs.events import DatasetReady, ModelReady, Proved, Step
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
    run = harness.trained(harness.recipe(tiny_model, tiny_rows, **values))
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
        run = harness.trained(
            harness.recipe(tiny_model, tiny_rows, packing=packing, epochs=1.0, max_steps=None, max_length=512)
        )
        (model,), (data,) = harness.events(run, ModelReady), harness.events(run, DatasetReady)
        assert model.device == "cuda:0"
        counted[packing] = (harness.events(run, Step)[-1].trained_tokens, data.trained_tokens)
    assert counted[True] == pytest.approx(counted[False], rel=0.02)


LOFTQ = {"precision": "4bit", "initialization": "loftq", "rank": 16, "alpha": 32, "dropout": 0.0}


def test_loftq_begins_nearer_to_the_whole_model_and_leaves_over_it(tiny_model: Path, tiny_rows: Path) -> None:
    from finetui.core.worker import environment

    environment.import_unsloth()
    import torch
    from safetensors.torch import load_file

    from finetui.core.worker import adapter, merge
    from tests.worker.in_process import Trainer

    made_of = harness.recipe(tiny_model, tiny_rows, **LOFTQ)
    built = Trainer(made_of)
    model, folder = built.loaded.model, built.loaded.folder
    whole = Trainer(harness.recipe(tiny_model, tiny_rows)).loaded.model  # its adapter begins at nothing
    ids = torch.randint(0, 200, (4, 32), device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    held = {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" not in name}

    def logits(of: Any) -> torch.Tensor:
        of.eval()
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            return of(input_ids=ids).logits.float()

    wanted, repaired = logits(whole), logits(model)
    with model.disable_adapter():
        packed = logits(model)
    far, near = float((packed - wanted).norm()), float((repaired - wanted).norm())
    print(f"logits from the whole model's: packed {far:.3f}, repaired {near:.3f}")
    assert near < 0.8 * far
    model.train()
    built.trainer.train()
    losses = harness.losses(built.run)
    assert losses[6] < losses[1]
    for name, parameter in model.named_parameters():
        assert name not in held or torch.equal(parameter, held[name]), name  # the base is what it was
    trained = {n: p.detach().float().cpu() for n, p in model.named_parameters() if "lora_" in n}
    start = load_file(str(built.run.start))
    adapter.save(model, built.loaded.tokenizer, made_of, built.run)
    merge.merge(folder, built.run.adapter, built.run.path / "merged")
    merged = load_file(str(built.run.path / "merged" / "model.safetensors"))
    before = load_file(str(folder / "model.safetensors"))
    moved = 0
    for name, weight in before.items():
        side = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        if f"{side}A.weight" not in start:
            continue
        b, a = (trained[f"{side}{s}.default.weight"] for s in "BA")
        learned = 2.0 * (b @ a - start[f"{side}B.weight"] @ start[f"{side}A.weight"])
        assert torch.allclose(merged[name].float(), weight.float() + learned, rtol=2e-2, atol=2e-3), name
        moved += bool(learned.abs().max() > 0)
    assert moved == 7 * whole.config.num_hidden_layers


def test_a_loftq_run_stops_goes_on_and_its_exports_are_proven(tiny_model: Path, tiny_rows: Path) -> None:
    values = LOFTQ | {"max_steps": 8, "save_every_steps": 4, "formats": ("adapter", "merged")}
    whole = harness.make_run(harness.recipe(tiny_model, tiny_rows, **values))
    assert harness.finish(harness.start("train", whole), whole) == 0, whole.log.read_text()[-3000:]
    proofs = harness.events(whole, Proved)
    assert {proof.format for proof in proofs} == {"adapter", "merged"}
    assert all("weights" not in sentence.lower() for proof in proofs for sentence in proof.failed), proofs
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


def test_a_loftq_script_learns_the_same(tiny_model: Path, tiny_rows: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    from tests.worker.test_script import losses_of_script

    recipe = harness.recipe(tiny_model, tiny_rows, **LOFTQ)
    run = harness.trained(recipe)
    found = losses_of_script(recipe, tmp_path)
    for step, loss in harness.losses(run).items():
        assert found[step] == pytest.approx(loss, rel=2e-3, abs=2e-3), step
    here = load_file(str(run.adapter / "adapter_model.safetensors"))
    there = load_file(str(tmp_path / f"{recipe.name}-adapter" / "adapter_model.safetensors"))
    assert {name: part.shape for name, part in here.items()} == {n: p.shape for n, p in there.items()}
    assert all(abs(here[name] - there[name]).max() < 0.02 for name in here)
