"""The training step against TRL and Unsloth: the trainer as the recipe asks, and its run to an end."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import refusals
from .. import training as training_step
from ..recipe import Recipe
from ..runs import checkpoints
from ..runs.store import RunFolder
from . import adapter, between, failures, loftq
from .callbacks import Outcome, Reporter
from .control import Control, Left
from .dataset import Prepared
from .events import EventWriter
from .model import Loaded
from .samples import Sampler


@dataclass(frozen=True)
class Result:
    """How the loop ended, and after which step."""

    outcome: Outcome
    step: int


def arguments(recipe: Recipe, folder: Path, dtype: str) -> Any:
    """The recipe's training section as TRL's SFTConfig. Evaluation and checkpoints are timed by our callback."""
    import torch
    from trl import SFTConfig
    from unsloth import UnslothTrainingArguments

    training = recipe.training
    gpu = torch.cuda.is_available()
    bf16 = torch.cuda.is_bf16_supported() if gpu else dtype == "bfloat16"
    fast_adamw = "adamw_torch_fused"  # the same arithmetic in fewer kernels
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "num_train_epochs": training.epochs,
        "per_device_train_batch_size": training.batch_size,
        "per_device_eval_batch_size": training.evaluation_batch_size or training.batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.schedule,
        "lr_scheduler_kwargs": {"num_cycles": training.schedule_cycles}
        if training.schedule == "cosine_with_restarts"
        else None,
        # Below 1 it is a share, rounded up to whole steps.
        "warmup_steps": training.warmup_share if training.warmup_steps is None else training.warmup_steps,
        "max_grad_norm": training.max_grad_norm,
        "neftune_noise_alpha": training.neftune_noise_alpha,
        "weight_decay": training.weight_decay,
        "optim": fast_adamw if training.optimizer == "adamw_torch" else training.optimizer,
        "seed": training.seed,
        "data_seed": training.seed,
        "train_sampling_strategy": "random" if recipe.dataset.shuffle else "sequential",
        "bf16": bf16,
        "fp16": gpu and not bf16,
        "max_length": recipe.model.max_length,
        "packing": training.packing,
        "eval_packing": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},  # the rows are tokenized, labelled, cut and packed
        "eval_strategy": "no",
        "save_strategy": "no",
        "save_total_limit": None,  # the trainer would clear away the old ones before the new one is sealed
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "prediction_loss_only": True,
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
    }
    if not recipe.lora.gradient_checkpointing:
        settings["gradient_checkpointing"] = False  # TRL turns it on by itself
    if training.embedding_learning_rate is None:
        return SFTConfig(**settings)
    return UnslothTrainingArguments(embedding_learning_rate=training.embedding_learning_rate, **settings)


def packed(rows: Any, recipe: Recipe) -> Any:
    """`rows` put together into sequences of up to the sequence length, best fit first, labels and all.

    A column `seq_lengths` keeps them apart: the trainer's collator numbers the positions of each row from 0, and
    Unsloth's attention does not look across.
    """
    from trl import pack_dataset

    together = pack_dataset(rows, recipe.model.max_length, strategy="bfd")
    return together.shuffle(seed=recipe.training.seed) if recipe.dataset.shuffle else together


def build(
    loaded: Loaded,
    prepared: Prepared,
    recipe: Recipe,
    run: RunFolder,
    writer: EventWriter,
    control: Control,
    sampler: Sampler,
) -> tuple[Any, Reporter]:
    """The trainer and the callback that reports from it. Raises FinetuiError (loftq-names, packing-model)."""
    from transformers import PrinterCallback
    from trl import SFTTrainer
    from unsloth import UnslothTrainer

    loftq.begin(loaded.model, loaded.folder, recipe, run)
    args = arguments(recipe, run.checkpoints, loaded.ready.dtype.rpartition(" ")[2])
    evaluation = prepared.evaluation.rows if prepared.evaluation else None
    reporter = Reporter(recipe, run.checkpoints, writer, control, sampler, evaluation is not None)
    kind: Any = SFTTrainer if recipe.training.embedding_learning_rate is None else UnslothTrainer
    trainer: Any = kind(
        model=loaded.model,
        args=args,
        train_dataset=packed(prepared.train.rows, recipe) if recipe.training.packing else prepared.train.rows,
        eval_dataset=evaluation,
        processing_class=loaded.tokenizer,
        callbacks=[reporter],
    )
    if (
        recipe.training.packing and not trainer.args.packing
    ):  # Unsloth turns it off without a word that is seen
        raise refusals.not_packed(loaded.base)
    trainer.remove_callback(PrinterCallback)
    if recipe.training.max_steps is not None:  # counted over packed sequences where there are such
        trainer.args.max_steps = training_step.plan(recipe, len(trainer.train_dataset)).steps
    reporter.counter.watch(trainer)
    reporter.saving.guard(trainer)
    between.watch_evaluations(trainer, reporter)
    between.before_batches(trainer, between.Pause(trainer, reporter, writer, control).hold)
    return trainer, reporter


def train(trainer: Any, reporter: Reporter, recipe: Recipe, resume_from: Path | None) -> Result:
    """Runs the loop to its end. Raises FinetuiError (loss-nan, loss-zero) and what the libraries raise."""
    from transformers import TrainerState

    if resume_from is not None:
        planned = training_step.plan(recipe, len(trainer.train_dataset)).steps
        if checkpoints.step_of(resume_from) >= planned:  # the trainer would take a step too many
            adapter.load(trainer.model, resume_from)
            reporter.go_on_from(resume_from)
            state = trainer.state = TrainerState.load_from_json(str(resume_from / "trainer_state.json"))
            known = [told["step"] for told in state.log_history if "eval_loss" in told]
            if reporter.has_evaluation and state.global_step not in known:  # a stop broke its last one off
                trainer.evaluate()
            reporter.take_best(trainer)
            return Result("completed", checkpoints.step_of(resume_from))
        reporter.go_on_from(resume_from)
    with contextlib.suppress(Left):
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    step = int(trainer.state.global_step)
    if reporter.outcome in ("nan", "zero"):
        kept = next(iter(checkpoints.newest_first(Path(trainer.args.output_dir))), None)
        words = (
            f"The checkpoint of step {checkpoints.step_of(kept)} is kept."
            if kept
            else "No checkpoint was made yet."
        )
        if reporter.outcome == "nan":
            raise failures.diverged(step, recipe.training.learning_rate, words)
        raise failures.nothing_to_learn(step, words)
    reporter.take_best(trainer)
    return Result(reporter.outcome, step)
