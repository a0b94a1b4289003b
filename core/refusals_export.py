"""Which formats cannot leave, of what is trained or on this machine: said before the training, and again before an export. No torch."""

from __future__ import annotations

import importlib.util

from .errors import FinetuiError
from .export import ADAPTERS
from .model_facts import ModelFacts
from .recipe import Recipe
from .system import Machine


def of_export(recipe: Recipe, machine: Machine, facts: ModelFacts | None) -> list[FinetuiError]:
    """What the recipe's formats meet; `facts` are the model's, where they are known."""
    formats = recipe.export.formats
    found: list[FinetuiError | None] = []
    if recipe.lora.method == "full" and set(ADAPTERS) & set(formats):
        found.append(no_adapter())
    elif "adapter_gguf" in formats:
        found.append(no_adapter_gguf(recipe))
    if "merged_4bit" in formats:
        found.append(no_four_bit(machine.has_gpu))
        if facts is not None and "moe" in facts.model_type:
            found.append(_no_experts(facts))
    return [error for error in found if error is not None]


def no_adapter() -> FinetuiError:
    """Why the format adapter cannot follow full fine-tuning."""
    return FinetuiError(
        "Full fine-tuning leaves no adapter.",
        "Every weight of the model has changed, so the result is a whole model.",
        "Take merged or a GGUF as the export's format.",
        code="export-full",
    )


def no_adapter_gguf(recipe: Recipe) -> FinetuiError | None:
    """Why llama.cpp cannot take this recipe's adapter; None where it can. It knows the two sides of a layer and nothing more
    (convert_lora_to_gguf.py, src/llama-adapter.cpp)."""
    what = "DoRA" if recipe.lora.dora else "trained tables" if recipe.lora.modules_to_save else ""
    if not what:
        return None
    return FinetuiError(
        f"llama.cpp takes no adapter with {what}.",
        "Its adapters hold the two sides of each layer and nothing more.",
        "Take a GGUF of the whole model, such as gguf_q8_0, in place of adapter_gguf.",
        code="adapter-gguf",
    )


def no_four_bit(gpu: bool = True) -> FinetuiError | None:
    """Why no model can be packed into 4 bit here, with a GPU or without; None where it can."""
    if gpu and importlib.util.find_spec("bitsandbytes") is not None:
        return None
    use = "bitsandbytes packs the weights, and unpacks them wherever the model is used"
    if gpu:
        what, why, fix = (
            "bitsandbytes, which is not installed",
            f"{use}.",
            "Install it (pip install bitsandbytes), or take",
        )
    else:
        what, why, fix = "an NVIDIA GPU", f"{use}; a CPU takes many times as long.", "Take"
    return FinetuiError(
        f"The format merged_4bit needs {what}.", why, f"{fix} merged or gguf_q4_k_m.", code="export-4bit"
    )


def _no_experts(facts: ModelFacts) -> FinetuiError:
    return FinetuiError(
        f"{facts.title} cannot leave as merged_4bit.",
        "It is a mixture of experts, kept in one block each, which bitsandbytes does not pack: most of it would stay in 16 bit.",
        "Take merged, or a GGUF such as gguf_q4_k_m.",
        code="export-4bit-model",
    )
