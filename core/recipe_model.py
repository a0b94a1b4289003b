"""The model section of a recipe."""

from __future__ import annotations

from typing import Literal

from .recipe_declare import DEMO, Section, Text, declare


class ModelSection(Section):
    """Which model is tuned, and in which form it is held."""

    source: Text = declare(
        DEMO,
        "Model",
        "demo, a folder with a model, or a hub id such as Qwen/Qwen3-0.6B",
        "The model that you start from. It already speaks; you only teach it a new habit.\n"
        "demo is SmolLM2-135M-Instruct, a small model that trains on a laptop in minutes. Otherwise name a folder "
        "that holds config.json and safetensors, or the owner/name of a model on Hugging Face.\n"
        "Take an instruct model: it knows the turns of a conversation, and a few hundred rows are enough. A base model "
        "that has no chat template cannot learn from conversations.",
        min_length=1,
        max_length=1000,
    )
    revision: Text | None = declare(
        None,
        "Revision",
        "a hub model's branch, tag or commit; empty takes the newest",
        "A model on the hub can change under its name. Pin a commit here and the same recipe trains the same model "
        "next month. Folders and the demo have no revision.",
        advanced=True,
        max_length=200,
    )
    adapter: Text | None = declare(
        None,
        "Adapter",
        "a folder with an adapter to go on training; empty starts a new one",
        "A finished run leaves an adapter. Name its folder here, with its base as the model, and training goes on from "
        "what it has learned, with that adapter's own rank, alpha and layers.",
        advanced=True,
        max_length=1000,
    )
    remote_code: Text | None = declare(
        None,
        "Remote code",
        "the commit whose repository code may run; empty runs none",
        "Some models come with Python files of their own, which would run on this machine with your rights. finetui "
        "runs none unless you read them and name the commit here; another commit is refused again.",
        advanced=True,
        max_length=200,
    )
    precision: Literal["16bit", "4bit", "8bit", "32bit"] = declare(
        "16bit",
        "Precision",
        "how the base model is held: 16-bit; 4-bit (QLoRA) or 8-bit (these need a GPU); 32-bit (full)",
        "4-bit holds the frozen base in a quarter of the memory (QLoRA). It costs a little accuracy and a little "
        "speed, and it needs an NVIDIA GPU with bitsandbytes. 8-bit takes half of the memory, and is the slowest.\n"
        "16-bit is exact and the only form on a CPU. If the model fits in 16-bit, take 16-bit.\n"
        "32-bit is for full fine-tuning: in 16 bit, steps as small as those of a rate of 2e-5 are mostly rounded away.",
    )
    max_length: int = declare(
        512,
        "Sequence length",
        "the longest row that is trained on; what lies past it is cut",
        "How many tokens (pieces of words, about ¾ of a word each) of a row the model sees. Longer rows are cut, and "
        "with the cut the end of the answer is lost.\n"
        "Memory and time grow with it, so take what your longest rows need and no more.",
        unit="tokens",
        ge=16,
        le=131_072,
    )
