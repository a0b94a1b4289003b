"""The model step against Unsloth: the base model and its tokenizer, as the recipe asks."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import dataset as dataset_step
from .. import model as model_step
from .. import model_adapter, text
from .. import training as training_step
from ..errors import FinetuiError
from ..recipe import DEMO, Recipe
from ..runs.events import ModelReady
from ..system import Gpu, Machine
from . import download, failures, lora
from .child import Check, go_on
from .events import EventWriter


@dataclass(frozen=True)
class Loaded:
    """A model ready to train. `folder` is where its base weights lie; `base` is how the recipe's reader knows it."""

    model: Any
    tokenizer: Any
    folder: Path
    base: str
    ready: ModelReady


def refuse_impossible(
    recipe: Recipe,
    facts: model_step.ModelFacts | None = None,
    rows: int | None = None,
    evaluation_rows: int | None = None,
) -> None:
    """Refuses, before anything is loaded, what this machine cannot do, and what does not fit the model and the rows where
    they are known. Raises FinetuiError.

    What torch can use decides: a GPU that only the driver sees is none.
    """
    import psutil
    import torch

    memory = psutil.virtual_memory()
    gpus = (Gpu(0, torch.cuda.get_device_name()),) if torch.cuda.is_available() else ()
    machine = Machine(os.cpu_count() or 1, None, memory.total, memory.available, None, gpus)
    for _path, error in training_step.problems(recipe, machine, facts, rows, evaluation_rows):
        raise error


def resolve(recipe: Recipe, writer: EventWriter, check: Check = go_on) -> Path:
    """The folder with the base model: the demo's, a local one, or the hub's snapshot, downloaded when it must be.

    A download by another process is waited for. `check` may end the wait and the download by what it raises.
    """
    source = recipe.model.source
    if source == DEMO:
        from . import demo_model

        return demo_model.prepare(
            lambda *said: writer.progress("load", text=text.one_line(str(said[-1])))
        ).absolute()
    facts = model_step.inspect(source, recipe.model.revision, recipe.model.remote_code)
    if facts.chat_template is False:
        _refuse_conversations(facts, recipe)  # before gigabytes are fetched
    refuse_impossible(recipe, facts)
    if facts.kind == "folder":
        return Path(source).expanduser().absolute()
    return resolve_hub(
        recipe, lambda done, total: writer.progress("download", done, total, "bytes", source), check
    )


def _refuse_conversations(facts: model_step.ModelFacts, recipe: Recipe) -> None:
    """A model without a chat template learns plain writing only. Where the rows cannot be looked at now, whoever reads
    them decides."""
    try:
        format = dataset_step.format_of(recipe.dataset)
    except FinetuiError:
        return
    model_step.check_template(facts, format)


def resolve_hub(recipe: Recipe, tell: download.Tell, check: Check = go_on) -> Path:
    """The hub's snapshot of the recipe's model: what is missing of it is downloaded. Python files come along only where
    the person agreed to run those of exactly this commit."""
    source, consent = recipe.model.source, recipe.model.remote_code
    facts = model_step.inspect(source, recipe.model.revision, consent)
    code = bool(facts.remote_code_files)
    revision = consent if code else recipe.model.revision
    folder = download.fetch(source, revision, tell, check, code=code)
    if not facts.cached:  # only now are its headers and its tokenizer here to be looked at
        model_step.inspect(source, revision, consent)
    return folder


def runs_code(recipe: Recipe) -> bool:
    """Whether the model's own code may run: it has some, and the person agreed to exactly that. Raises FinetuiError."""
    if recipe.model.source == DEMO or not recipe.model.remote_code:
        return False
    facts = model_step.inspect(recipe.model.source, recipe.model.revision, recipe.model.remote_code)
    return bool(facts.remote_code_files)


def load(
    recipe: Recipe, writer: EventWriter, check: Check = go_on, *, go_on_from_adapter: bool = True
) -> Loaded:
    """Loads the base model and puts the adapter on it. Raises FinetuiError and what the libraries raise."""
    import torch
    from unsloth import FastLanguageModel

    started, full = time.monotonic(), recipe.lora.method == "full"
    if go_on_from_adapter:
        model_adapter.check_adapter(recipe)
    folder = resolve(recipe, writer, check)
    writer.progress("load", text="weights")
    try:
        base, tokenizer = FastLanguageModel.from_pretrained(
            str(folder),
            max_seq_length=recipe.model.max_length,
            dtype=torch.float32 if recipe.model.precision == "32bit" else None,
            load_in_4bit=recipe.model.precision == "4bit",
            load_in_8bit=recipe.model.precision == "8bit",
            full_finetuning=full,
            use_gradient_checkpointing="unsloth" if recipe.lora.gradient_checkpointing else False,
            trust_remote_code=runs_code(recipe),
        )
    except Exception as error:  # the edge of the libraries that load
        if failures.is_known(error):
            raise
        name = (
            "The demo's model"
            if recipe.model.source == DEMO
            else recipe.model.source.rstrip("/").rpartition("/")[2]
        )
        raise failures.not_loaded(error, name) from error
    if recipe.model.precision == "4bit" and not getattr(base, "is_loaded_in_4bit", False):
        raise FinetuiError(
            "The model was not loaded in 4-bit.",
            "bitsandbytes did not take it.",
            "Set precision to 16bit, or reinstall bitsandbytes.",
            code="precision-4bit",
        )
    if recipe.model.precision == "8bit" and not getattr(base, "is_loaded_in_8bit", False):
        raise FinetuiError(
            "The model was not loaded in 8-bit.",
            "bitsandbytes did not take it.",
            "Set precision to 16bit, or reinstall bitsandbytes.",
            code="precision-8bit",
        )
    template = getattr(tokenizer, "chat_template", None)
    dtype = str(base.dtype).removeprefix("torch.")
    model = lora.attach(base, recipe, go_on_from_adapter)
    parameters, trainable = lora.weights(model)
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    ready = ModelReady(
        parameters=parameters,
        trainable=trainable,
        device=device,
        dtype=dtype
        if recipe.model.precision in ("16bit", "32bit")
        else f"{recipe.model.precision[0]}-bit, {dtype}",
        base_bytes=sum(p.stat().st_size for p in folder.glob("*.safetensors")),
        architecture=_architecture(folder),
        context_length=int(getattr(base.config, "max_position_embeddings", 0) or 0),
        chat_template=family(str(template)) if template else "",
        load_seconds=time.monotonic() - started,
        revision=folder.name if folder.parent.name == "snapshots" else "",
    )
    name = "SmolLM2-135M-Instruct" if recipe.model.source == DEMO else recipe.model.source
    return Loaded(model, tokenizer, folder, name, ready)


def _architecture(folder: Path) -> str:
    try:
        named = json.loads((folder / "config.json").read_bytes()).get("architectures") or [""]
    except (OSError, ValueError, AttributeError):
        return ""
    return text.one_line(str(named[0]), 80)


def family(template: str) -> str:
    """What people call the kind of `template`, by its markers."""
    for marker, name in (
        ("<|im_start|>", "ChatML"),
        ("<|start_header_id|>", "Llama 3"),
        ("<start_of_turn>", "Gemma"),
        ("<|turn>", "Gemma"),
        ("<|channel|>", "Harmony"),
        ("[INST]", "Mistral"),
        ("<|assistant|>", "Zephyr"),
    ):
        if marker in template:
            return name
    return "custom"
