"""What cannot be trained, or not as it was asked, field by field: what Unsloth would refuse late or change in silence.

Each finding is a pair of the field's path and the error. No torch; `training.problems` puts them together.
"""

from __future__ import annotations

import importlib.util

from .errors import FinetuiError
from .model_facts import UNPACKED, ModelFacts
from .recipe import Recipe
from .recipe_lora import modules_here
from .system import Machine

Found = list[tuple[str, FinetuiError]]

EIGHT_BIT_OPTIMIZERS = ("adamw_8bit", "paged_adamw_8bit", "lion_8bit")
"""They come from bitsandbytes. On a CPU Unsloth takes plain AdamW in their place and says nothing."""

_WITHOUT_WARMUP = ("constant",)
_OF_EXPERTS = {"gate_proj", "up_proj", "down_proj"}


def of_machine(recipe: Recipe, machine: Machine) -> Found:
    """What this machine cannot do."""
    found: Found = []
    precision, optimizer = recipe.model.precision, recipe.training.optimizer
    packed = precision in ("4bit", "8bit")
    if not machine.has_gpu:
        if packed:
            bits = precision[0]
            name = "4-bit form (QLoRA)" if bits == "4" else "8-bit form"
            found.append(
                (
                    "model.precision",
                    FinetuiError(
                        f"{bits}-bit needs an NVIDIA GPU.",
                        f"The {name} runs on kernels that only NVIDIA GPUs have, and none was found here.",
                        "Set Precision to 16bit, and take a smaller model if memory is short.",
                        code=f"precision-{precision}",
                    ),
                )
            )
        if recipe.training.packing:
            found.append(
                (
                    "training.packing",
                    FinetuiError(
                        "Packing needs an NVIDIA GPU.",
                        "Unsloth does not pack on a CPU, and no GPU was found here.",
                        "Turn Packing off.",
                        code="packing-cpu",
                    ),
                )
            )
        if optimizer in EIGHT_BIT_OPTIMIZERS:
            found.append(
                (
                    "training.optimizer",
                    FinetuiError(
                        "The 8-bit optimizer needs an NVIDIA GPU.",
                        f"{optimizer} runs on bitsandbytes' GPU kernels, and no GPU was found here.",
                        "Set Optimizer to adamw_torch, or to adafactor where memory is short.",
                        code="optimizer-8bit",
                    ),
                )
            )
    elif importlib.util.find_spec("bitsandbytes") is None:
        for path, wanted in (
            ("model.precision", packed),
            ("training.optimizer", optimizer in EIGHT_BIT_OPTIMIZERS),
        ):
            if wanted:
                error = FinetuiError(
                    "bitsandbytes is not installed.",
                    "4-bit and 8-bit weights and the 8-bit optimizers come from the package bitsandbytes; without it the "
                    "model would silently load in 16-bit.",
                    "Install it (pip install bitsandbytes), or take 16bit and adamw_torch.",
                    code="bitsandbytes-missing",
                )
                found.append((path, error))
    return found


def of_settings(recipe: Recipe) -> Found:
    """Settings that do not go together, on any machine."""
    return [*_of_method(recipe), *_of_schedule(recipe), *_of_evaluation(recipe)]


def _of_method(recipe: Recipe) -> Found:
    found: Found = []
    lora, precision = recipe.lora, recipe.model.precision
    if lora.method == "full":
        if precision in ("4bit", "8bit"):
            found.append(
                (
                    "model.precision",
                    FinetuiError(
                        f"Full fine-tuning needs whole weights, not {precision[0]}-bit ones.",
                        "Packed weights cannot be trained; Unsloth would load them in 16-bit without a word.",
                        "Set Precision to 16bit or 32bit, or Method to lora.",
                        code="full-packed",
                    ),
                )
            )
        if recipe.model.adapter:
            found.append(
                (
                    "lora.method",
                    FinetuiError(
                        "An adapter goes on as LoRA only.",
                        "Full fine-tuning has no adapter that could take up what this one has learned.",
                        "Set Method to lora, or merge the adapter and take the merged model.",
                        code="full-adapter",
                    ),
                )
            )
        return found
    if precision == "32bit":
        found.append(
            (
                "model.precision",
                FinetuiError(
                    "32-bit is for full fine-tuning.",
                    "LoRA keeps the model as it is and holds its adapter in 32 bit anyway.",
                    "Set Precision to 16bit, or Method to full.",
                    code="lora-32bit",
                ),
            )
        )
    if recipe.model.adapter:
        for path, name, wanted in (
            ("lora.dora", "DoRA", lora.dora),
            ("lora.modules_to_save", "Trained tables", bool(lora.modules_to_save)),
        ):
            if wanted:
                error = FinetuiError(
                    f"{name} cannot be added to an adapter that exists.",
                    "Training goes on with the adapter as it is, which has none.",
                    "Turn that off, or leave the adapter empty to start a new one.",
                    code="adapter-shape",
                )
                found.append((path, error))
    if lora.initialization == "loftq":
        found += [("lora.initialization", error) for error in _without_loftq(recipe)]
    if recipe.training.embedding_learning_rate is not None and not lora.modules_to_save:
        found.append(
            (
                "training.embedding_learning_rate",
                FinetuiError(
                    "No table is trained that could take this rate.",
                    "Also trained names neither the embeddings nor the output layer.",
                    "Name one of them there, or leave the table rate empty.",
                    code="table-rate-unused",
                ),
            )
        )
    return found


def _without_loftq(recipe: Recipe) -> list[FinetuiError]:
    if recipe.model.precision != "4bit":
        return [
            FinetuiError(
                "LoftQ has nothing to repair.",
                f"It starts the adapter at what 4 bit lost of the base, and the base is held in {recipe.model.precision[:-3]} bit.",
                "Set Initialization to default, or Precision to 4bit (which needs an NVIDIA GPU).",
                code="loftq-precision",
            )
        ]
    for wanted, what, why in (
        (recipe.lora.dora, "LoftQ does not go with DoRA.", "DoRA takes the lengths of the weights from an adapter that starts at nothing."),
        (recipe.model.adapter, "LoftQ cannot start an adapter that exists.", "Training goes on with the adapter as it is."),
    ):  # fmt: skip
        if wanted:
            return [FinetuiError(what, why, "Set Initialization to default.", code="loftq-start")]
    return []


def not_packed(title: str) -> FinetuiError:
    """Why rows cannot be packed for a model whose attention Unsloth does not keep apart."""
    return FinetuiError(
        f"Unsloth does not pack rows for {title}.",
        "Its attention cannot keep rows apart that share a sequence: they would read one another, or the first step would fail.",
        "Turn Packing off.",
        code="packing-model",
    )


def _of_schedule(recipe: Recipe) -> Found:
    training = recipe.training
    if training.schedule in _WITHOUT_WARMUP and training.warmup_steps:
        return [
            (
                "training.schedule",
                FinetuiError(
                    "The schedule constant has no warm-up.",
                    f"It starts at the full rate, so the {training.warmup_steps:,} warm-up steps would not happen.",
                    "Set Schedule to constant_with_warmup, or Warm-up steps to 0.",
                    code="warmup-unused",
                ),
            )
        ]
    return []


def _of_evaluation(recipe: Recipe) -> Found:
    if recipe.training.early_stopping_patience is None:
        return []
    if not recipe.dataset.holds_out:
        error = FinetuiError(
            "Patience has nothing to go by.",
            "No rows are held out, so there is no held-out loss.",
            "Set a held-out share or file on the dataset step, or turn this off.",
            code="evaluation-none",
        )
    elif recipe.training.evaluate_every_steps == 0:
        error = FinetuiError(
            "Patience has nothing to go by.",
            "Evaluate every is 0: the held-out loss is measured only once, at the end.",
            "Set Evaluate every to a tenth of the steps, or turn this off.",
            code="evaluation-none",
        )
    else:
        return []
    return [("training.early_stopping_patience", error)]


def of_model(recipe: Recipe, facts: ModelFacts) -> Found:
    """What the chosen model does not have or cannot take."""
    found: Found = []
    length, context = recipe.model.max_length, facts.context_length
    if context and length > context:
        found.append(
            (
                "model.max_length",
                FinetuiError(
                    f"The sequence length is past the model's context of {context:,} tokens.",
                    "Past it the model would need its positions stretched (RoPE scaling), which Unsloth does to some models "
                    "and not to others, and which an export would not carry.",
                    f"Set Sequence length to {context:,} or less, or take a model with a longer context.",
                    code="length-context",
                ),
            )
        )
    if recipe.training.packing and facts.model_type in UNPACKED:
        found.append(("training.packing", not_packed(facts.title)))
    if recipe.lora.method == "full":
        if facts.quantization:
            found.append(
                (
                    "lora.method",
                    FinetuiError(
                        "Full fine-tuning needs whole weights.",
                        f"{facts.title} is stored quantized ({facts.quantization}).",
                        "Take the model in 16 bit, or set Method to lora.",
                        code="full-packed",
                    ),
                )
            )
        return found
    if recipe.lora.dora and "moe" in facts.model_type and set(recipe.lora.target_modules) & _OF_EXPERTS:
        error = FinetuiError(
            "DoRA does not go on a mixture of experts.",
            f"{facts.title} keeps its experts in one block each, of which DoRA cannot take the lengths.",
            "Turn DoRA off, or set Layers to attention.",
            code="dora-experts",
        )
        found.append(("lora.dora", error))
    if facts.quantization and recipe.lora.initialization == "loftq":
        error = FinetuiError(
            "LoftQ needs the model's whole weights.",
            f"{facts.title} is stored quantized ({facts.quantization}); what that lost is not there to be repaired.",
            "Take the model in 16 bit, which is packed while loading, or set Initialization to default.",
            code="loftq-packed",
        )
        found.append(("lora.initialization", error))
    missing = [name for name in recipe.lora.target_modules if facts.modules and name not in facts.modules]
    if (
        "gate_up_proj" in facts.modules and "moe" in facts.model_type
    ):  # Unsloth adapts the experts' one by halves
        missing = [name for name in missing if name not in ("gate_proj", "up_proj")]
    if missing:
        left = [name for name in recipe.lora.target_modules if name not in missing]
        has = modules_here(recipe.lora.target_modules, facts.modules)
        found.append(
            (
                "lora.target_modules",
                FinetuiError(
                    f"{facts.title} has no {', '.join(missing)}.",
                    f"Of the layers asked for it has {', '.join(left)}; the others would be left out without a word."
                    if left
                    else "It names its layers differently, and none of those asked for is there.",
                    f"Set Layers to {', '.join(has)}."
                    if has
                    else "Take a model of another family, or full as the method.",
                    code="target-missing",
                ),
            )
        )
    return found


def of_rows(recipe: Recipe, rows: int, steps: int, warmup: int, evaluation_rows: int | None = None) -> Found:
    """What does not fit a dataset of `rows` training rows, a run of `steps` steps, `warmup` of them to warm up."""
    found: Found = []
    effective, training = recipe.effective_batch_size, recipe.training
    if 0 < rows < effective and not training.packing:
        path = "training.batch_size" if training.batch_size > rows else "training.gradient_accumulation_steps"
        found.append(
            (
                path,
                FinetuiError(
                    f"The effective batch of {effective:,} rows is larger than the dataset of {rows:,}.",
                    f"Batch size {training.batch_size:,} × accumulation {training.gradient_accumulation_steps:,} can never be "
                    "filled; each epoch would be one step.",
                    f"Take {max(1, rows // 8):,} to {max(1, rows // 2):,} rows together, or add rows.",
                    code="batch-rows",
                ),
            )
        )
    if steps and training.warmup_steps is not None and warmup >= steps and warmup > 0:
        found.append(
            (
                "training.warmup_steps",
                FinetuiError(
                    f"The warm-up of {warmup:,} steps is as long as the run of {steps:,}.",
                    "The rate would never reach what it is set to.",
                    f"Take {max(1, steps // 10):,}, or leave it empty for a share.",
                    code="warmup-long",
                ),
            )
        )
    elif steps == warmup == 1:
        error = FinetuiError(
            "The run's only step would learn nothing.",
            "A warm-up starts at a rate of 0, and no other step comes after.",
            "Set Warm-up steps to 0, or train more steps.",
            code="warmup-only",
        )
        found.append(("training.warmup_share", error))
    if evaluation_rows == 0 and training.early_stopping_patience is not None:
        error = FinetuiError(
            "There are no held-out rows to go by.",
            "The held-out share of so few rows is none.",
            "Raise the held-out share on the dataset step, or turn this off.",
            code="evaluation-none",
        )
        found.append(("training.early_stopping_patience", error))
    elif steps and training.evaluate_every_steps and recipe.dataset.holds_out:
        found += _too_few_looks(recipe, steps)
    return found


def _too_few_looks(recipe: Recipe, steps: int) -> Found:
    """Where the held-out loss is measured too rarely to stop the run. The last step always measures it, but then there is
    nothing left to stop."""
    training = recipe.training
    every, patience = training.evaluate_every_steps, training.early_stopping_patience
    if patience is None:
        return []
    looks, needed = (steps - 1) // every, patience + 1
    if looks >= needed:
        return []
    most = (steps - 1) // needed
    error = FinetuiError(
        "Patience can never stop this run.",
        f"It needs {needed:,} looks at the held-out rows before the last step, and there "
        f"{'is 1' if looks == 1 else f'are {looks:,}'}: Evaluate every is {every:,}, and the run has {steps:,} "
        f"step{'' if steps == 1 else 's'}.",
        f"Set Evaluate every to {most:,} or less, or turn this off."
        if most
        else "Train more steps, or turn this off.",
        code="evaluation-none",
    )
    return [("training.early_stopping_patience", error)]
