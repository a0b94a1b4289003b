"""Every field of the recipe has its effect on the model, the rows and the trainer that Unsloth and TRL build."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from finetui.core import fields as declared
from finetui.core.errors import FinetuiError
from finetui.core.recipe import Recipe
from finetui.core.runs.events import Checkpoint, Evaluation, Step

from . import harness
from .in_process import Trainer

CHANGED: dict[str, Any] = {
    "max_length": 60,
    "row_limit": 21,
    "evaluation_share": 0.2,
    "system_prompt": "Hi.",
    "rank": 8,
    "alpha": 24,
    "target_modules": ("q_proj", "down_proj"),
    "dropout": 0.25,
    "rslora": True,
    "gradient_checkpointing": True,
    "epochs": 3.0,
    "max_steps": None,
    "batch_size": 2,
    "gradient_accumulation_steps": 3,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup_share": 0.3,
    "weight_decay": 0.05,
    "evaluate_every_steps": 4,
    "save_every_steps": 5,
    "keep_best": False,
    "seed": 11,
}


@pytest.fixture(scope="module")
def made_of(tiny_model: Path, tiny_rows: Path) -> Recipe:
    return harness.recipe(tiny_model, tiny_rows, **CHANGED)


@pytest.fixture(scope="module")
def built(unsloth: None, made_of: Recipe) -> Trainer:
    built = Trainer(made_of)
    built.trainer.train()
    return built


SEEN_ELSEWHERE = {
    "test_recipe_effects.py": "model.precision training.optimizer training.packing dataset.train_on",
    "test_fetch.py": "model.revision",
    "test_adapter.py": "model.source model.adapter",
    "test_remote_code.py": "model.remote_code",
    "test_train.py": "training.sample_count",
    "test_export.py": "export.formats",
    "test_importance.py": "export.importance",
    "test_proof.py": "export.prove export.checkpoint",
    "test_loftq.py": "lora.initialization",
    "test_out_of_memory.py": "training.on_out_of_memory",
    "test_lora_effects.py": "lora.method lora.dora lora.modules_to_save training.embedding_learning_rate",
    "test_training_effects.py": "training.schedule_cycles training.warmup_steps training.max_grad_norm "
    "training.neftune_noise_alpha training.evaluation_batch_size training.early_stopping_patience training.keep_best "
    "training.checkpoints_kept training.sample_prompts",
    "test_inspect_batches.py": "dataset.columns dataset.multi_turn dataset.join_rows dataset.deduplicate dataset.long_rows "
    "dataset.shuffle",
    "../core/test_dataset.py": "dataset.source dataset.format dataset.evaluation_source",
    "../core/test_dataset_files.py": "dataset.split dataset.evaluation_split",
    "../core/test_dataset_options.py": "dataset.mix dataset.system_mode",
    "test_peek.py": "dataset.config",
}
"""Where the effect of each field is looked at that is not in CHANGED, by the file of its tests."""


def test_no_field_is_forgotten() -> None:
    """A field that is declared without a test of its effect fails here, and so does one whose test is gone."""
    elsewhere = {path for paths in SEEN_ELSEWHERE.values() for path in paths.split()}
    names = {f.path for f in declared.fields()}
    assert {p for p in names if p.split(".")[1] in CHANGED} | elsewhere == names
    for file, paths in SEEN_ELSEWHERE.items():
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        unseen = [p for p in paths.split() if not re.search(rf"\b{p.split('.')[1]}\b", text)]
        assert not unseen, f"{file} no longer looks at {unseen}"


def test_lora(built: Trainer) -> None:
    model = built.loaded.model
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.use_rslora) == (8, 24, 0.25, True)
    adapted = {name.rsplit(".", 4)[1] for name, _ in model.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "down_proj"}
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == pytest.approx(24 / math.sqrt(8))
    assert model.base_model.model.is_gradient_checkpointing


def test_rows(built: Trainer) -> None:
    facts = built.prepared.ready
    assert facts.rows + facts.evaluation_rows == 21 and facts.evaluation_rows == 4
    assert facts.longest == 60 and facts.cut_rows > 0
    text = built.loaded.tokenizer.decode(built.prepared.train.rows[0]["input_ids"])
    assert text.startswith("<|im_start|>system\nHi.<|im_end|>")


def test_the_loop(built: Trainer) -> None:
    args, state = built.trainer.args, built.trainer.state
    per_epoch = math.ceil(math.ceil(17 / 2) / 3)
    assert state.max_steps == state.global_step == 3 * per_epoch == 9
    assert args.per_device_train_batch_size == 2 and args.gradient_accumulation_steps == 3
    assert (args.seed, args.data_seed) == (11, 11)
    assert max(group["weight_decay"] for group in built.trainer.optimizer.param_groups) == 0.05
    rates = [step.learning_rate for step in harness.events(built.run, Step)]
    warm = math.ceil(0.3 * 9)
    expected = [
        1e-3 * (s / warm if s < warm else 0.5 * (1 + math.cos(math.pi * (s - warm) / (9 - warm))))
        for s in range(9)
    ]
    assert rates == pytest.approx(expected)
    assert [e.step for e in harness.events(built.run, Evaluation)] == [4, 8, 9]
    assert [c.step for c in harness.events(built.run, Checkpoint)] == [5, 9]


def test_a_step_limit_never_trains_longer_than_the_epochs(
    unsloth: None, tiny_model: Path, tiny_rows: Path
) -> None:
    built = Trainer(harness.recipe(tiny_model, tiny_rows, epochs=1.0, max_steps=5000, batch_size=36))
    built.trainer.train()
    assert built.trainer.state.global_step == 1


def test_train_on_everything(unsloth: None, tiny_model: Path, tiny_rows: Path) -> None:
    answers, everything = (
        Trainer(harness.recipe(tiny_model, tiny_rows, train_on=what)).prepared.ready
        for what in ("answers", "everything")
    )
    assert answers.tokens == everything.tokens
    assert (
        everything.trained_tokens == everything.tokens - everything.rows
    )  # the first token of a row has no prediction
    assert answers.trained_tokens < everything.trained_tokens / 4


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"precision": "4bit"}, "precision-4bit"),
        ({"precision": "8bit"}, "precision-8bit"),
        ({"packing": True}, "packing-cpu"),
        ({"optimizer": "adamw_8bit"}, "optimizer-8bit"),
        ({"optimizer": "paged_adamw_8bit"}, "optimizer-8bit"),
        ({"optimizer": "lion_8bit"}, "optimizer-8bit"),
    ],
)
def test_a_cpu_refuses_what_needs_a_gpu(
    unsloth: None, tiny_model: Path, tiny_rows: Path, change: dict[str, Any], code: str
) -> None:
    from finetui.core.worker import model

    with pytest.raises(FinetuiError) as caught:
        model.refuse_impossible(harness.recipe(tiny_model, tiny_rows, **change))
    assert caught.value.code == code and caught.value.fix


def test_packing_that_unsloth_turns_off_is_refused_before_a_step(
    unsloth: None, tiny_model: Path, tiny_rows: Path
) -> None:
    """As it does on a CPU, and for some families: the packed rows would read one another."""
    from finetui.core.worker import training
    from finetui.core.worker.control import Control
    from finetui.core.worker.samples import Sampler

    plain = Trainer(harness.recipe(tiny_model, tiny_rows))
    packing = harness.recipe(tiny_model, tiny_rows, packing=True)
    control = Control(plain.run.control)
    sampler = Sampler(plain.loaded.model, plain.loaded.tokenizer, (), plain.writer, control)
    with pytest.raises(FinetuiError) as caught:
        training.build(
            plain.loaded,
            plain.prepared,
            packing,
            plain.run,
            plain.writer,
            control,
            sampler,
        )
    assert caught.value.code == "packing-model" and caught.value.fix == "Turn Packing off."


def test_packed_rows_keep_their_labels(unsloth: None, tiny_model: Path, tiny_rows: Path) -> None:
    from finetui.core.worker import probe, training

    made_of = harness.recipe(tiny_model, tiny_rows)
    rows = Trainer(made_of).prepared.train.rows
    together = training.packed(rows, made_of)
    assert probe.longest_row(together) == max(len(r["input_ids"]) for r in rows)
    assert 0 < len(together) <= math.ceil(len(rows) / 2)
    assert sorted(n for row in together for n in row["seq_lengths"]) == sorted(
        len(r["input_ids"]) for r in rows
    )
    pieces = []
    for row in together:
        assert len(row["input_ids"]) == len(row["labels"]) <= 128
        at = 0
        for length in row["seq_lengths"]:
            pieces.append((row["input_ids"][at : at + length], row["labels"][at : at + length]))
            at += length
    assert sorted(pieces) == sorted((r["input_ids"], r["labels"]) for r in rows)
