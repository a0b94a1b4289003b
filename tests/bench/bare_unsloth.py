"""The baseline: a recipe trained by Unsloth and TRL called directly, with nothing of finetui but its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


def trainer(model_folder: Path, rows_file: Path, recipe_file: Path, output: Path) -> Any:
    """TRL's trainer for the recipe. Unsloth must have been imported."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from unsloth import FastLanguageModel

    recipe = yaml.safe_load(recipe_file.read_text(encoding="utf-8"))
    lora, training = recipe["lora"], recipe["training"]
    length, system = recipe["model"]["max_length"], recipe["dataset"]["system_prompt"]
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(model_folder), max_seq_length=length, load_in_4bit=recipe["model"]["precision"] == "4bit"
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=lora["target_modules"],
        use_gradient_checkpointing="unsloth" if lora["gradient_checkpointing"] else False,
        random_state=training["seed"],
        max_seq_length=length,
    )
    messages = [json.loads(line)["messages"] for line in rows_file.read_text(encoding="utf-8").splitlines()]
    rows = [tokens_of(tokenizer, [{"role": "system", "content": system}, *row], length) for row in messages]
    return SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=SFTConfig(
            output_dir=str(output),
            per_device_train_batch_size=training["batch_size"],
            gradient_accumulation_steps=training["gradient_accumulation_steps"],
            max_steps=training["max_steps"],
            learning_rate=training["learning_rate"],
            lr_scheduler_type=training["schedule"],
            warmup_steps=training["warmup_share"],
            weight_decay=training["weight_decay"],
            optim="adamw_torch_fused",
            seed=training["seed"],
            data_seed=training["seed"],
            max_length=length,
            dataset_kwargs={"skip_prepare_dataset": True},
            gradient_checkpointing=False,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
        ),
    )


def tokens_of(tokenizer: Any, messages: list[dict[str, str]], length: int) -> dict[str, list[int]]:
    """Input ids, and labels that count only the assistant's answer with its end-of-turn token."""
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    question = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"][:length]
    head = len(tokenizer(question, add_special_tokens=False)["input_ids"])
    tail = len(tokenizer("\n", add_special_tokens=False)["input_ids"]) if whole.endswith("\n") else 0
    end = len(ids) - tail
    return {"input_ids": ids, "labels": [t if head <= i < end else -100 for i, t in enumerate(ids)]}
