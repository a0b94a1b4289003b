"""The LoRA step against Unsloth: the adapter on the loaded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..recipe import Recipe
from . import adapter


def attach(model: Any, recipe: Recipe, go_on_from_adapter: bool = True) -> Any:
    """`model` with an adapter as the recipe asks: a fresh one, or with the weights of `model.adapter`, which has the same
    shape (`model_adapter.check_adapter`). Only the adapter is trainable.

    With full fine-tuning it is `model` itself, all of it trainable. A checkpoint brings weights of its own: `go_on_from_adapter` is False then. Raises FinetuiError (adapter-shape).
    """
    if recipe.lora.method == "full":
        return model
    tuned = _attach(model, recipe)
    if recipe.model.adapter and go_on_from_adapter:
        adapter.load(tuned, Path(recipe.model.adapter).expanduser())
    return tuned


def _attach(model: Any, recipe: Recipe) -> Any:
    from unsloth import FastLanguageModel

    lora = recipe.lora
    return FastLanguageModel.get_peft_model(
        model,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        bias="none",
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        modules_to_save=list(lora.modules_to_save) or None,
        use_gradient_checkpointing="unsloth" if lora.gradient_checkpointing else False,
        random_state=recipe.training.seed,
        max_seq_length=recipe.model.max_length,
    )


def weights(model: Any) -> tuple[int, int]:
    """Counts of (base, trainable) weights, the same twice where all are trained. Weights packed into 4 bits count as what
    they stand for."""
    base = trainable = 0
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        count = state.shape.numel() if state is not None else parameter.numel()
        if parameter.requires_grad:
            trainable += count
        elif "lora_" not in name:
            base += count
    return base or trainable, trainable
