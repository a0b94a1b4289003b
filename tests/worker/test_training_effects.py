"""The training's settings, each seen in what the trainer does with them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from finetui.core.recipe import Recipe
from finetui.core.runs.events import BestKept, Checkpoint, Evaluation, Progress, Sample, Step

from . import harness
from .in_process import Trainer

CHANGED: dict[str, Any] = {
    "schedule": "cosine_with_restarts",
    "schedule_cycles": 2,
    "warmup_steps": 2,
    "warmup_share": 0.4,
    "learning_rate": 1e-3,
    "max_grad_norm": 0.01,
    "optimizer": "adafactor",
    "evaluation_batch_size": 3,
    "evaluate_every_steps": 5,
    "save_every_steps": 2,
    "checkpoints_kept": 3,
    "keep_best": False,
    "max_steps": 10,
    "neftune_noise_alpha": 30.0,
    "sample_prompts": ("Who are you?", "a; b"),
    "system_prompt": "Hi.",
}


@pytest.fixture(scope="module")
def made_of(tiny_model: Path, tiny_rows: Path) -> Recipe:
    return harness.recipe(tiny_model, tiny_rows, **CHANGED)


@pytest.fixture(scope="module")
def norms() -> list[float]:
    return []


@pytest.fixture(scope="module")
def built(unsloth: None, made_of: Recipe, norms: list[float]) -> Trainer:
    import torch
    from transformers import TrainerCallback

    class Norms(TrainerCallback):
        def on_pre_optimizer_step(
            self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
        ) -> None:
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    built = Trainer(made_of)
    built.trainer.add_callback(Norms())
    built.trainer.train()
    return built


def test_the_rate_falls_twice_after_a_warm_up_in_steps(built: Trainer) -> None:
    rates = [step.learning_rate for step in harness.events(built.run, Step)]

    def rate(step: int) -> float:
        if step < 2:
            return 1e-3 * step / 2
        return 1e-3 * 0.5 * (1 + math.cos(math.pi * ((2 * (step - 2) / 8) % 1.0)))

    assert rates == pytest.approx([rate(step) for step in range(10)])


def test_gradients_are_shortened(built: Trainer, norms: list[float]) -> None:
    logged = [step.grad_norm for step in harness.events(built.run, Step)]
    assert len(norms) == 10 and all(norm <= 0.0101 for norm in norms)
    assert all(norm is not None and norm > 0.0101 for norm in logged)


def test_the_optimizer_is_the_one_asked_for(built: Trainer) -> None:
    assert type(built.trainer.optimizer.optimizer).__name__ == "Adafactor"


def test_evaluation_takes_a_batch_of_its_own(built: Trainer) -> None:
    rows = built.prepared.ready.evaluation_rows
    told = [p for p in harness.events(built.run, Progress) if p.stage == "evaluate"]
    assert told and {p.total for p in told} == {math.ceil(rows / 3)}


def test_so_many_checkpoints_are_kept(built: Trainer) -> None:
    assert [c.step for c in harness.events(built.run, Checkpoint)] == [2, 4, 6, 8, 10]
    assert sorted(
        int(p.name.removeprefix("checkpoint-")) for p in built.run.checkpoints.glob("checkpoint-*")
    ) == [
        6,
        8,
        10,
    ]


def test_neftune_shakes_the_training_alone(built: Trainer, made_of: Recipe, unsloth: None) -> None:
    calm_recipe = made_of.model_copy(
        update={"training": made_of.training.model_copy(update={"neftune_noise_alpha": None})}
    )
    calm = Trainer(calm_recipe)
    before = calm.trainer.evaluate()["eval_loss"]
    calm.trainer.args.max_steps = 1
    calm.trainer.train()
    first, still = harness.events(built.run, Step)[0].loss, harness.events(calm.run, Step)[0].loss
    assert abs(first - still) > 1e-3
    noisy = Trainer(made_of)
    assert noisy.trainer.evaluate()["eval_loss"] == pytest.approx(before, abs=1e-6)
    embeddings = built.loaded.model.get_input_embeddings()
    assert not hasattr(embeddings, "neftune_noise_alpha") and not embeddings._forward_hooks


def test_own_prompts_are_asked_first_under_the_trained_system_prompt(built: Trainer, made_of: Recipe) -> None:
    from finetui.core.worker import samples
    from finetui.core.worker.chat import Chat

    chat = Chat(built.loaded.tokenizer, made_of.model.max_length)
    asked = samples.own_prompts(chat, made_of, "Hi.")
    text = built.loaded.tokenizer.decode(asked[0].ids)
    assert text.startswith("<|im_start|>system\nHi.<|im_end|>") and text.endswith("<|im_start|>assistant\n")
    model, tokenizer = built.loaded.model, built.loaded.tokenizer
    assert samples.Sampler(model, tokenizer, asked, built.writer, built.control).write(10)
    written = harness.events(built.run, Sample)
    assert [sample.prompt for sample in written] == ["Who are you?", "a; b"]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [1.0] * 6),
        ("constant_with_warmup", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
        ("inverse_sqrt", [0.0, 0.5, 1.0, (2 / 3) ** 0.5, (2 / 4) ** 0.5, (2 / 5) ** 0.5]),
    ],
)
def test_each_schedule_has_its_curve(
    unsloth: None, tiny_model: Path, tiny_rows: Path, schedule: str, expected: list[float]
) -> None:
    changes = {} if schedule == "constant" else {"warmup_steps": 2}
    built = Trainer(harness.recipe(tiny_model, tiny_rows, schedule=schedule, **changes))
    built.trainer.create_optimizer_and_scheduler(num_training_steps=6)
    curve = built.trainer.lr_scheduler.lr_lambdas[0]
    assert [curve(step) for step in range(6)] == pytest.approx(expected)


@pytest.fixture(scope="module")
def overfitted(unsloth: None, tiny_model: Path, tiny_rows: Path) -> tuple[Trainer, Recipe]:
    from finetui.core.worker import training

    made_of = harness.recipe(
        tiny_model,
        tiny_rows,
        learning_rate=0.1,
        max_steps=30,
        evaluate_every_steps=2,
        save_every_steps=100,
        early_stopping_patience=2,
        checkpoints_kept=1,
    )
    built = Trainer(made_of)
    result = training.train(built.trainer, built.reporter, made_of, None)
    assert result.outcome == "completed"
    return built, made_of


def test_patience_ends_a_run_that_no_longer_learns(overfitted: tuple[Trainer, Recipe]) -> None:
    seen = harness.events(overfitted[0].run, Evaluation)
    best = min(range(len(seen)), key=lambda index: seen[index].loss)
    assert best == len(seen) - 3 and overfitted[0].trainer.state.global_step == seen[-1].step < 30
    assert harness.codes(overfitted[0].run) == ["early-stop"]


def test_the_run_ends_with_its_best_weights(overfitted: tuple[Trainer, Recipe]) -> None:
    built, _ = overfitted
    seen = harness.events(built.run, Evaluation)
    best = min(seen, key=lambda one: one.loss)
    assert best.loss < seen[-1].loss
    assert (built.run.checkpoints / f"checkpoint-{best.step}").is_dir()
    assert built.trainer.evaluate()["eval_loss"] == pytest.approx(best.loss, abs=1e-6)
    last = seen[-1]
    told = harness.events(built.run, BestKept)
    assert told == [BestKept(best.step, best.loss, last.step, last.loss)]
    assert f"step {best.step:,}: the held-out loss was lowest there" in told[0].sentence


def test_what_is_noise_leaves_the_last_weights(unsloth: None, tiny_model: Path, tiny_rows: Path) -> None:
    from finetui.core.worker import training

    made_of = harness.recipe(
        tiny_model,
        tiny_rows,
        learning_rate=1e-7,
        evaluate_every_steps=2,
        save_every_steps=2,
        checkpoints_kept=3,
    )
    built = Trainer(made_of)
    training.train(built.trainer, built.reporter, made_of, None)
    seen = harness.events(built.run, Evaluation)
    assert max(s.loss for s in seen) < 1.01 * min(s.loss for s in seen)
    built.reporter._losses[2] = 0.995 * seen[-1].loss
    built.reporter.take_best(built.trainer)
    assert not harness.events(built.run, BestKept)
    built.reporter._losses[2] = 0.9 * seen[-1].loss
    built.reporter.take_best(built.trainer)
    assert [kept.step for kept in harness.events(built.run, BestKept)] == [2]


def test_a_resumed_run_remembers_its_best(overfitted: tuple[Trainer, Recipe]) -> None:
    from finetui.core.worker import training

    built, made_of = overfitted
    seen = harness.events(built.run, Evaluation)
    best = min(seen, key=lambda one: one.loss)
    again = Trainer(made_of, built.run)
    training.train(again.trainer, again.reporter, made_of, built.run.checkpoints / f"checkpoint-{best.step}")
    assert again.trainer.state.global_step == seen[-1].step
    assert again.trainer.evaluate()["eval_loss"] == pytest.approx(best.loss, abs=1e-6)
