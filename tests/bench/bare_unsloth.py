"""The baseline: a recipe trained by Unsloth and TRL called directly, with nothing of finetui but its files.

`python bare_unsloth.py MODEL_FOLDER ROWS.jsonl RECIPE.yaml` prints one JSON line with each step's seconds and loss.
"""

import json
import sys
import time

import unsloth  # noqa: F401  must be first
import yaml
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel

model_folder, rows_file, recipe_file = sys.argv[1:]
with open(recipe_file, encoding="utf-8") as file:
    recipe = yaml.safe_load(file)
lora, training = recipe["lora"], recipe["training"]
length, system = recipe["model"]["max_length"], recipe["dataset"]["system_prompt"]

model, tokenizer = FastLanguageModel.from_pretrained(
    model_folder, max_seq_length=length, load_in_4bit=recipe["model"]["precision"] == "4bit"
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


def tokens_of(messages):
    """Input ids, and labels that count only the assistant's answer with its end-of-turn token."""
    messages = [{"role": "system", "content": system}, *messages]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    question = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"][:length]
    head = len(tokenizer(question, add_special_tokens=False)["input_ids"])
    tail = len(tokenizer("\n", add_special_tokens=False)["input_ids"]) if whole.endswith("\n") else 0
    end = len(ids) - tail
    return {"input_ids": ids, "labels": [t if head <= i < end else -100 for i, t in enumerate(ids)]}


with open(rows_file, encoding="utf-8") as file:
    rows = [tokens_of(json.loads(line)["messages"]) for line in file]

times, losses = [], []


class Clock(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        times.append(time.time())

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            losses.append(logs["loss"])


trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=Dataset.from_list(rows),
    callbacks=[Clock()],
    args=SFTConfig(
        output_dir="/tmp/bare-unsloth-out",
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
trainer.train()
print(json.dumps({"seconds": [b - a for a, b in zip(times, times[1:], strict=False)], "losses": losses}))
