"""A script's training: the trainer's settings in the order in which a reader wants them, and its run."""

from __future__ import annotations

from .recipe import Recipe
from .script_text import Cell


def cell(recipe: Recipe, evaluates: bool) -> Cell:
    """The cell that trains `train_set`; where it `evaluates`, on `test_set`."""
    training, two_rates = recipe.training, recipe.training.embedding_learning_rate is not None
    lines: list[str] = []
    if training.packing:
        lines += [
            "# Short rows together in sequences of up to MAX_LENGTH tokens, instead of padding. They do not see each other.",
            'train_set = pack_dataset(train_set, MAX_LENGTH, strategy="bfd")'
            + (".shuffle(seed=SEED)" if recipe.dataset.shuffle else ""),
            "",
        ]
    arguments = [
        f'output_dir="{recipe.name}-checkpoints",',
        f"num_train_epochs={training.epochs!r},  # how many times all rows are seen",
    ]
    if training.max_steps is not None:
        batch = recipe.effective_batch_size
        lines.append(
            f"steps = math.ceil({training.epochs!r} * math.ceil(len(train_set) / {batch}))  # of all epochs"
        )
        arguments.append(f"max_steps=min(steps, {training.max_steps}),")
    arguments += [
        f"per_device_train_batch_size={training.batch_size},",
        f"per_device_eval_batch_size={training.evaluation_batch_size or training.batch_size},",
        f"gradient_accumulation_steps={training.gradient_accumulation_steps},  # batches added up before each update",
        f"learning_rate={training.learning_rate!r},",
        f'lr_scheduler_type="{training.schedule}",',
        f"warmup_steps={training.warmup_share!r},  # below 1, a share of all steps"
        if training.warmup_steps is None
        else f"warmup_steps={training.warmup_steps},",
        f"max_grad_norm={training.max_grad_norm!r},  # longer gradients are shortened to this",
        f"weight_decay={training.weight_decay!r},",
        f'optim="{"adamw_torch_fused" if training.optimizer == "adamw_torch" else training.optimizer}",',
        "seed=SEED,",
        "data_seed=SEED,",
    ]
    if training.schedule == "cosine_with_restarts":
        arguments.append(f'lr_scheduler_kwargs={{"num_cycles": {training.schedule_cycles}}},')
    if training.neftune_noise_alpha is not None:
        arguments.append(f"neftune_noise_alpha={training.neftune_noise_alpha!r},  # noise on the embeddings")
    if training.embedding_learning_rate is not None:
        arguments.append(f"embedding_learning_rate={training.embedding_learning_rate!r},")
    if not recipe.dataset.shuffle:
        arguments.append('train_sampling_strategy="sequential",  # the rows in the order in which they stand')
    arguments += ["bf16=bf16,", "fp16=torch.cuda.is_available() and not bf16,", "max_length=MAX_LENGTH,"]
    if training.packing:
        arguments += ["packing=True,", "eval_packing=False,"]
    if not recipe.lora.gradient_checkpointing:
        arguments.append("gradient_checkpointing=False,  # TRL turns it on otherwise")
    arguments.append('dataset_kwargs={"skip_prepare_dataset": True},  # the rows are tokens already')
    if evaluates and training.evaluate_every_steps:
        arguments += [
            'eval_strategy="steps" if test_set else "no",',
            f"eval_steps={training.evaluate_every_steps},",
            "prediction_loss_only=True,",
        ]
    judged = (
        evaluates
        and training.evaluate_every_steps
        and (training.keep_best or training.early_stopping_patience is not None)
    )
    if judged:
        arguments += ['metric_for_best_model="eval_loss",', "greater_is_better=False,"]
    if judged and training.keep_best:
        arguments += [
            "load_best_model_at_end=True,  # the weights of the lowest held-out loss",
            'save_strategy="steps",',
            f"save_steps={training.evaluate_every_steps},",
            f"save_total_limit={training.checkpoints_kept},",
        ]
    elif training.save_every_steps:
        arguments += [
            'save_strategy="steps",',
            f"save_steps={training.save_every_steps},",
            f"save_total_limit={training.checkpoints_kept},",
        ]
    else:
        arguments.append('save_strategy="no",')
    arguments += ["logging_steps=1,", 'report_to="none",']
    body = "\n        ".join(arguments)
    if "8bit" in training.optimizer:
        words_of_optimizer = " The 8-bit optimizer needs a GPU and bitsandbytes."
    else:
        words_of_optimizer = ""
    lines += [
        "bf16 = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else dtype == torch.bfloat16",
        f"trainer = {'UnslothTrainer' if two_rates else 'SFTTrainer'}(",
        "    model=model,",
        "    processing_class=tokenizer,",
        "    train_dataset=train_set,",
        *(["    eval_dataset=test_set,"] if evaluates else []),
        *(
            [f"    callbacks=[EarlyStoppingCallback({training.early_stopping_patience})],"]
            if judged and training.early_stopping_patience is not None
            else []
        ),
        f"    args={'UnslothTrainingArguments' if two_rates else 'SFTConfig'}(\n        {body}\n    ),",
        ")",
        "trainer.train()",
    ]
    if evaluates:
        lines += ["if test_set:", '    print("held-out loss:", trainer.evaluate()["eval_loss"])']
    lines.append("trainer.save_state()  # every loss, in trainer_state.json")
    words = (
        f"Each update learns from {recipe.effective_batch_size} "
        f"{'row' if recipe.effective_batch_size == 1 else 'rows'}. To go on after a break: "
        "trainer.train(resume_from_checkpoint=True)."
        + words_of_optimizer
        + _words_on_chance(recipe, evaluates)
    )
    return Cell("Training", words, "\n".join(lines))


def _words_on_chance(recipe: Recipe, evaluates: bool) -> str:
    training = recipe.training
    drawn = recipe.lora.dropout or training.neftune_noise_alpha is not None
    if not (drawn and evaluates and training.evaluate_every_steps):
        return ""
    return (
        " Evaluations draw random numbers too, so after the first one dropout and noise fall otherwise than in a run "
        "that does not evaluate: the losses differ in the third digit."
    )
