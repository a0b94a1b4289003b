"""What to change in a recipe, by the reason for which its run ended: one entry for each reason that a change can mend.

The reasons are the codes of error cards (`worker/failures.py`, `refusals.py`, `crash.py`, and where else a run may end).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from .. import model, system
from ..errors import FinetuiError
from ..export import ADAPTERS, FORMATS
from ..model_facts import ModelFacts
from ..recipe import Recipe
from ..recipe_lora import modules_here
from ..refusals import EIGHT_BIT_OPTIMIZERS
from ..training import smaller_batch
from . import event_log, events
from .store import RunFolder

Values = dict[str, Any]

LEAST_LENGTH = 256
"""Tokens. The sequence length is not halved below this: too little is left of a row then."""


@dataclass(frozen=True)
class Remedy:
    """`values` by the recipe's paths, and `why` in a sentence. Both empty where no change of the recipe would help."""

    values: Values = field(default_factory=dict)
    why: str = ""
    by_hand: bool = False
    """The person has something to do first, as the card says."""
    anew: bool = False
    """It has to begin from the start, whatever checkpoints there are."""


def of(code: str, recipe: Recipe, run: RunFolder) -> Remedy:
    """The remedy for a run of `recipe` that ended for the reason `code`. Blocking where the base model is looked at."""
    found = _REMEDIES.get(code)
    if found is not None:
        values, why = found(recipe, run)
        if values:
            return Remedy(values, why, anew=code in _ANEW)
    return Remedy(by_hand=code not in _SAME_AGAIN, anew=code in _ANEW)


def mends(code: str) -> bool:
    """Whether a change of the recipe may mend a run that ended for this reason."""
    return code in _REMEDIES


_SAME_AGAIN = (
    "crashed",
    "native-crash",
    "never-started",
    "vanished",
    "run-failed",
    "worker-start",
    "data-changed",
    "base-changed",
)
"""Reasons after which the same may go well, with nothing to be done before."""

_ANEW = ("loss-nan", "loss-zero", "data-changed", "base-changed")
"""Reasons after which the checkpoints are no place to go on from: what went wrong may be in them, or the rows are others."""


# ---- memory ----------------------------------------------------------------------------------------------------


def _gpu_memory(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    training = recipe.training
    if training.batch_size > 1:
        smaller = smaller_batch(training.batch_size)
        more = training.gradient_accumulation_steps * (training.batch_size // smaller)
        values: Values = {"training.batch_size": smaller, "training.gradient_accumulation_steps": more}
        if training.evaluation_batch_size is not None:
            values["training.evaluation_batch_size"] = min(smaller, training.evaluation_batch_size)
        return values, (
            f"Fewer rows side by side take less memory. The effective batch stays {recipe.effective_batch_size}, so what "
            "is learned is the same; a step takes a little longer."
        )
    if not recipe.lora.gradient_checkpointing:
        return {"lora.gradient_checkpointing": True}, (
            "Checkpointing keeps fewer intermediate results. What is learned is the same; a step takes about a third longer."
        )
    if recipe.model.precision == "16bit" and recipe.lora.method == "lora" and _can_4bit():
        return {
            "model.precision": "4bit"
        }, "In 4-bit the model takes about a quarter of the memory, and is a little less exact."
    if recipe.model.max_length > LEAST_LENGTH:
        return {"model.max_length": max(LEAST_LENGTH, recipe.model.max_length // 2)}, (
            "Shorter sequences take less memory. Rows that are longer are cut or left out, as Long rows says."
        )
    return {}, ""


def _host_memory(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    """As on a GPU, and checkpointing at once: the system kills a process that takes too much, and the run with it."""
    values, why = _gpu_memory(recipe, run)
    if "training.batch_size" in values and not recipe.lora.gradient_checkpointing:
        values["lora.gradient_checkpointing"] = True
        why = f"{why} Checkpointing takes less again."
    return values, why


def _can_4bit() -> bool:
    return system.snapshot().has_gpu and find_spec("bitsandbytes") is not None


# ---- the loss --------------------------------------------------------------------------------------------------


def _lower_rate(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    training = recipe.training
    lower = float(f"{training.learning_rate / 3:.2g}")
    values: Values = {"training.learning_rate": lower}
    if training.schedule == "constant":
        values["training.schedule"] = "constant_with_warmup"
    if not training.warmup_steps and training.warmup_share < 0.1:
        values |= {"training.warmup_steps": None, "training.warmup_share": 0.1}
    if not training.max_grad_norm:
        values["training.max_grad_norm"] = 1.0
    return values, "A third of the learning rate, reached over a longer warm-up, keeps the first steps small."


# ---- data ------------------------------------------------------------------------------------------------------


def _longer_rows(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    facts = _facts(recipe)
    most = facts.context_length if facts is not None and facts.context_length else recipe.model.max_length * 4
    length = min(most, recipe.model.max_length * 4)
    if length <= recipe.model.max_length:
        return {}, ""
    return {
        "model.max_length": length
    }, "With longer sequences the answers are no longer cut off; they take more memory."


def _whole_rows(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    if recipe.dataset.train_on == "everything":
        return {}, ""
    return {"dataset.train_on": "everything"}, (
        "No answer was found in the rows, so the whole text is learned. If they do have answers, map their columns "
        "on the dataset step instead."
    )


def _found_format(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    if recipe.dataset.format == "auto" and not recipe.dataset.columns:
        return {}, ""
    return {
        "dataset.format": "auto",
        "dataset.columns": None,
    }, "The format is found out from the rows themselves."


# ---- what does not go together, or not here ----------------------------------------------------------------------


def _for_this_machine(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    """Whole weights; and where there is no GPU, nothing else that needs one, since that would be refused next."""
    values: Values = {"model.precision": "16bit"} if recipe.model.precision in ("4bit", "8bit") else {}
    if system.snapshot().has_gpu:
        return values, "The model is held in 16-bit, which takes more memory."
    if recipe.training.packing:
        values["training.packing"] = False
    if recipe.training.optimizer in EIGHT_BIT_OPTIMIZERS:
        values["training.optimizer"] = "adamw_torch"
    return values, "This works without a GPU."


def _without_8bit(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    values: Values = {"training.optimizer": "adamw_torch"}
    if recipe.model.precision in ("4bit", "8bit"):
        values["model.precision"] = "16bit"
    return values, "Whole weights and plain AdamW need no bitsandbytes; they take more memory."


def _context(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    facts = _facts(recipe)
    if facts is None or not facts.context_length:
        return {}, ""
    return {"model.max_length": facts.context_length}, "It is the model's own context; longer rows are cut."


def _targets(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    facts = _facts(recipe)
    has = modules_here(recipe.lora.target_modules, facts.modules) if facts is not None else ()
    return ({"lora.target_modules": has} if has else {}), "These are the layers that the model has."


def _batch_for_rows(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    told = [r.event.rows for r in event_log.read_all(run.events) if isinstance(r.event, events.DatasetReady)]
    if not told:
        return {}, ""
    batch = max(1, min(recipe.training.batch_size, told[-1] // 4))
    more = max(1, told[-1] // 4 // batch)
    return {
        "training.batch_size": batch,
        "training.gradient_accumulation_steps": min(more, recipe.training.gradient_accumulation_steps),
    }, f"Of {told[-1]:,} rows, a quarter at once makes four steps an epoch."


def _without_quantizer(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    formats = tuple("gguf_q8_0" if FORMATS[f].needs_llama_cpp else f for f in recipe.export.formats)
    return {
        "export.formats": tuple(dict.fromkeys(formats))
    }, "GGUF Q8_0 needs no quantizer, and is as good as exact."


def _no_adapter_file(recipe: Recipe, run: RunFolder) -> tuple[Values, str]:
    formats = tuple("merged" if f in ADAPTERS else f for f in recipe.export.formats)
    return {"export.formats": tuple(dict.fromkeys(formats))}, "The result is a whole model."


def _fixed(values: Values, why: str) -> Callable[[Recipe, RunFolder], tuple[Values, str]]:
    return lambda recipe, run: (dict(values), why)


def _facts(recipe: Recipe) -> ModelFacts | None:
    try:
        return model.inspect(recipe.model.source, recipe.model.revision, recipe.model.remote_code)
    except FinetuiError:
        return None


_REMEDIES: dict[str, Callable[[Recipe, RunFolder], tuple[Values, str]]] = {
    "gpu-memory": _gpu_memory,
    "out-of-memory-gpu": _gpu_memory,
    "host-memory": _host_memory,
    "out-of-memory-host": _host_memory,
    "killed": _host_memory,
    "loss-nan": _lower_rate,
    "loss-zero": _lower_rate,
    "dataset-answers-cut": _longer_rows,
    "dataset-nothing-learned": _whole_rows,
    "dataset-format": _found_format,
    "precision-4bit": _for_this_machine,
    "precision-8bit": _for_this_machine,
    "packing-cpu": _for_this_machine,
    "dora-experts": _fixed({"lora.dora": False}, "Plain LoRA goes on the experts too."),
    "packing-model": _fixed({"training.packing": False}, "Each row is trained by itself."),
    "optimizer-8bit": _for_this_machine,
    "full-packed": _for_this_machine,
    "bitsandbytes-missing": _without_8bit,
    "lora-32bit": _fixed({"model.precision": "16bit"}, "LoRA keeps the model as it is; 16-bit is enough."),
    "full-adapter": _fixed({"lora.method": "lora"}, "The adapter goes on as LoRA."),
    "adapter-shape": _fixed(
        {"lora.dora": False, "lora.modules_to_save": ()}, "The adapter goes on as it is, without additions."
    ),
    "table-rate-unused": _fixed(
        {"training.embedding_learning_rate": None}, "No table is trained, so no rate of its own is needed."
    ),
    "warmup-unused": _fixed(
        {"training.schedule": "constant_with_warmup"}, "So the warm-up that was asked for happens."
    ),
    "warmup-long": _fixed({"training.warmup_steps": None}, "A share of the steps is always shorter."),
    "warmup-only": _fixed({"training.warmup_steps": 0}, "So the only step has the full rate."),
    "evaluation-none": _fixed(
        {"training.early_stopping_patience": None},
        "Without a held-out loss there is nothing to stop by.",
    ),
    "batch-rows": _batch_for_rows,
    "length-context": _context,
    "target-missing": _targets,
    "export-full": _no_adapter_file,
    "llama-cpp-no-compiler": _without_quantizer,
    "llama-cpp-build": _without_quantizer,
}
