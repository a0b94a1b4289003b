"""What is trained, and what leaves: full fine-tuning, DoRA and trained tables, from the loaded model to the proven export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from finetui.core import memory_held, memory_shape
from finetui.core.proof import Proof
from finetui.core.recipe import Recipe
from finetui.core.runs import chosen
from finetui.core.runs.events import Step, Warned
from finetui.core.runs.store import RunFolder

from . import harness, tiny
from .in_process import Trainer


def exports(built: Trainer, made_of: Recipe) -> list[Proof]:
    """What the run learned, saved and exported as the job does it; the proof of each format."""
    from finetui.core import proof_file
    from finetui.core.worker import adapter, export, proof

    adapter.save(built.loaded.model, built.loaded.tokenizer, made_of, built.run)
    prompts: Any = built.prepared.prompts
    reference = proof.ask(built.loaded.model, built.loaded.tokenizer, made_of, prompts, lambda: False)
    assert reference is not None
    proof_file.save_reference(built.run, reference)
    base, warned = built.loaded.folder, []

    def emit(event: Any) -> None:
        if isinstance(event, Warned):
            warned.append(event)

    # Without the model: what is exported comes from the run's folder, file by file.
    done = export.export(None, None, made_of, built.run, made_of.export.formats, emit, base=base)
    assert not warned and len(done) == len(made_of.export.formats)
    return [proof.of_run(built.run, made_of, base, exported.format) for exported in done]


FREE = ("stops", "first token", "same choices")
"""Checks of greedy answers, which a hardly trained random model gives by a hair; the others know no luck."""


def same(proofs: list[Proof]) -> bool:
    failed = [(p.format, c.sentence) for p in proofs for c in p.checks if not c.passed and c.name not in FREE]
    assert not failed, failed
    assert all(p.gap is not None and p.gap < 0.02 for p in proofs), [(p.format, p.gap) for p in proofs]
    assert all("weights" in {c.name for c in p.checks} for p in proofs)
    return bool(proofs)


def predicted(model: Path, made_of: Recipe) -> tuple[int, int, int]:
    """Trained weights, and the bytes of what a checkpoint holds of them and of the optimizer, as predicted."""
    shape = memory_shape.from_config(json.loads((model / "config.json").read_text()))
    assert shape is not None
    held, state = memory_held.gradient_bytes(made_of, shape), memory_held.optimizer_bytes(made_of, shape)
    return shape.trained_weights(made_of.lora), held, state


@pytest.fixture(scope="module")
def tied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with one table for embeddings and output layer."""
    folder = tiny.make(tmp_path_factory.mktemp("tied-model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


FULL: dict[str, Any] = {
    "method": "full",
    "precision": "32bit",
    "learning_rate": 2e-3,
    "save_every_steps": 3,
    "formats": ("merged", "gguf_q8_0"),
}


@pytest.fixture(scope="module")
def full(unsloth: None, tiny_model: Path, tiny_rows: Path) -> tuple[Trainer, Recipe]:
    made_of = harness.recipe(tiny_model, tiny_rows, **FULL)
    return Trainer(made_of), made_of


def test_full_fine_tuning_moves_every_weight(full: tuple[Trainer, Recipe]) -> None:
    import torch

    built, _ = full
    model = built.loaded.model
    weights = dict(model.named_parameters())
    assert not hasattr(model, "peft_config")
    assert all(w.requires_grad and w.dtype == torch.float32 for w in weights.values())
    assert (
        built.loaded.ready.trainable
        == built.loaded.ready.parameters
        == sum(w.numel() for w in weights.values())
    )
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    built.trainer.train()
    assert [name for name, weight in weights.items() if torch.equal(weight, before[name])] == []


def test_full_fine_tuning_resumes_with_the_same_losses(full: tuple[Trainer, Recipe]) -> None:
    from finetui.core.worker import training

    built, made_of = full
    again = Trainer(made_of)
    result = training.train(again.trainer, again.reporter, made_of, built.run.checkpoints / "checkpoint-3")
    assert result.outcome == "completed"
    expected = {s.step: s.loss for s in harness.events(built.run, Step)}
    found = harness.losses(again.run)
    assert sorted(found) == [4, 5, 6] and all(abs(found[s] - expected[s]) < 1e-4 for s in found)


def test_a_fully_tuned_model_leaves_whole_and_proven(full: tuple[Trainer, Recipe]) -> None:
    built, made_of = full
    assert same(exports(built, made_of))
    assert (built.run.model / "config.json").is_file() and not built.run.adapter.exists()
    before = load_file(built.loaded.folder / "model.safetensors")
    after = load_file(built.run.model / "model.safetensors")
    assert any((before[name] != after[name]).any() for name in before)


def test_what_a_full_run_saved_last_can_be_exported(full: tuple[Trainer, Recipe]) -> None:
    from finetui.core.worker import merge

    built, made_of = full
    checkpoint = built.run.checkpoints / "checkpoint-6"
    _weights, held, state = predicted(built.loaded.folder, made_of)
    assert (checkpoint / "model.safetensors").stat().st_size == pytest.approx(held, rel=0.05)
    assert (checkpoint / "optimizer.pt").stat().st_size == pytest.approx(state, rel=0.05)
    cut_short = RunFolder(built.run.path.with_name("cut-short"))
    cut_short.path.mkdir()
    (cut_short.path / "checkpoints").symlink_to(built.run.checkpoints)
    weights = chosen.choose(cut_short, made_of, "result")
    assert (weights.step, weights.result) == (6, False) and "newest checkpoint" in weights.note
    assert merge.is_whole(weights.folder)


def test_phis_matrices_are_adapted_by_their_own_names(
    unsloth: None, tiny_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsloth leaves q, k, v and gate, up in one matrix each; the adapter is of the predicted size, learns and merges."""
    from ..bench.gpu import shapes

    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    monkeypatch.setitem(shapes.SHAPES, "Phi-4-mini", shapes.SHAPES["Phi-4-mini"] | small | heads)
    folder = shapes.make("Phi-4-mini", tmp_path / "phi", zeros=False)
    modules = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    made_of = harness.recipe(
        folder, tiny_rows, target_modules=modules, learning_rate=2e-2, formats=("merged",)
    )
    built = Trainer(made_of)
    adapted = {
        name.rpartition(".lora_A")[0].rpartition(".")[2]
        for name, weight in built.loaded.model.named_parameters()
        if "lora_A" in name and weight.requires_grad
    }
    assert adapted == set(modules)
    assert built.loaded.ready.trainable == predicted(folder, made_of)[0]
    built.trainer.train()
    learned = [weight for name, weight in built.loaded.model.named_parameters() if "lora_B" in name]
    assert len(learned) == 8 and all(bool(weight.abs().sum() > 0) for weight in learned)
    assert same(exports(built, made_of))


def test_dora_trains_the_lengths_and_merges_with_them(
    unsloth: None, tiny_model: Path, tiny_rows: Path
) -> None:
    import torch

    made_of = harness.recipe(
        tiny_model,
        tiny_rows,
        dora=True,
        learning_rate=2e-2,
        target_modules=("q_proj", "down_proj"),
        formats=("merged",),
    )
    built = Trainer(made_of)
    model = built.loaded.model
    assert model.peft_config["default"].use_dora
    lengths = {n: p for n, p in model.named_parameters() if "lora_magnitude_vector" in n}
    assert built.loaded.ready.trainable == predicted(tiny_model, made_of)[0]
    assert len(lengths) == 2 * tiny.LAYERS and all(p.requires_grad for p in lengths.values())
    before = {name: length.detach().clone() for name, length in lengths.items()}
    built.trainer.train()
    assert not any(torch.equal(length, before[name]) for name, length in lengths.items())
    assert same(exports(built, made_of))


def test_tables_train_at_their_own_rate_and_part_where_they_were_tied(
    unsloth: None, tied_model: Path, tiny_rows: Path
) -> None:
    import torch

    made_of = harness.recipe(
        tied_model,
        tiny_rows,
        modules_to_save=("embed_tokens",),
        embedding_learning_rate=2e-3,
        learning_rate=1e-2,
        formats=("adapter", "merged", "gguf_f16"),
    )
    built = Trainer(made_of)
    model = built.loaded.model
    table = model.get_input_embeddings().modules_to_save["default"].weight
    original = model.get_input_embeddings().original_module.weight
    assert (
        table.requires_grad
        and not original.requires_grad
        and not model.get_output_embeddings().weight.requires_grad
    )
    assert built.loaded.ready.trainable == predicted(tied_model, made_of)[0]
    before = table.detach().clone()
    built.trainer.train()
    assert not torch.equal(table, before) and torch.equal(original, before)
    by_rate = {g["initial_lr"]: {id(p) for p in g["params"]} for g in built.trainer.optimizer.param_groups}
    assert set(by_rate) == {1e-2, 2e-3} and by_rate[2e-3] == {id(table)}
    assert same(exports(built, made_of))
    merged = load_file_as_torch(built.run.exports / "merged" / "model.safetensors")
    assert torch.equal(merged["model.embed_tokens.weight"], table.to(torch.bfloat16))
    assert torch.equal(merged["lm_head.weight"], original.to(torch.bfloat16))


def load_file_as_torch(file: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(str(file))


def test_the_output_layer_trains_too(unsloth: None, tiny_model: Path, tiny_rows: Path) -> None:
    import torch

    from finetui.core.worker import adapter

    made_of = harness.recipe(tiny_model, tiny_rows, modules_to_save=("lm_head",), max_steps=2)
    built = Trainer(made_of)
    head = built.loaded.model.get_output_embeddings().modules_to_save["default"].weight
    before = head.detach().clone()
    built.trainer.train()
    after = head.detach().clone()
    assert not torch.equal(before, after)
    folder = adapter.save(built.loaded.model, built.loaded.tokenizer, made_of, built.run)
    with torch.no_grad():
        head.zero_()
    adapter.load(built.loaded.model, folder)
    assert torch.equal(head, after)
