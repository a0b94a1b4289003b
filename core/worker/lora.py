"""The LoRA step against Unsloth: the adapter on the loaded model."""

from __future__ import annotations

from typing import Any

from ..recipe import Recipe


def attach(model: Any, recipe: Recipe) -> Any:
    """`model` with a fresh adapter as the recipe asks; only the adapter is trainable."""
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
        use_gradient_checkpointing="unsloth" if lora.gradient_checkpointing else False,
        random_state=recipe.training.seed,
        max_seq_length=recipe.model.max_length,
    )


def weights(model: Any) -> tuple[int, int]:
    """Counts of (base, trainable) weights. Weights packed into 4 bits count as what they stand for."""
    base = trainable = 0
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        count = state.shape.numel() if state is not None else parameter.numel()
        if parameter.requires_grad:
            trainable += count
        elif "lora_" not in name:
            base += count
    return base, trainable
