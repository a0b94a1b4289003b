"""The LoRA section of a recipe, and the layers that an adapter can go on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from .recipe_declare import Section, declare, without_repeats

TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

MODULE_GROUPS: dict[str, tuple[str, ...]] = {
    "attention": TARGET_MODULES[:4],
    "mlp": TARGET_MODULES[4:],
    "all": TARGET_MODULES,
}
"""Words that stand for several target modules. A recipe holds the modules themselves."""

FUSED_MODULES: dict[str, tuple[str, ...]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
"""Matrices that stand for several: Phi keeps them in one, and Unsloth leaves it so."""

TargetModule = Literal[
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj"
]
SavedModule = Literal["embed_tokens", "lm_head"]


def without_groups(items: Any) -> Any:
    """Target modules with group words written out, each module once, in the order of the layer where a group stood."""
    if not isinstance(items, (list, tuple)) or not any(
        isinstance(i, str) and i in MODULE_GROUPS for i in items
    ):
        return items
    named = [m for i in items for m in (MODULE_GROUPS.get(i, (i,)) if isinstance(i, str) else (i,))]
    known = [m for m in TARGET_MODULES if m in named]
    return (*known, *(m for m in named if m not in TARGET_MODULES))


def modules_here(wanted: tuple[str, ...], has: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `wanted` that a model with the matrices `has` has, or the fused one that holds them, in its order."""
    whole = {part: fused for fused, parts in FUSED_MODULES.items() if fused in has for part in parts}
    found = (name if name in has else whole.get(name) for name in wanted)
    return tuple(dict.fromkeys(name for name in found if name))


class LoraSection(Section):
    """The adapter: the few new weights that are trained while the model itself stays frozen."""

    method: Literal["lora", "full"] = declare(
        "lora",
        "Method",
        "a small adapter learns, or every weight of the model",
        "LoRA freezes the model and trains a few new weights beside it: little memory, a small file, and for most tasks "
        "as good.\n"
        "full (full fine-tuning) changes every weight. It takes about four times the memory of the model's weights (eight in 32-bit), "
        "forgets more of what the model knew, and wants a learning rate ten times lower, such as 2e-5, for which 32-bit is the right precision. It leaves a whole "
        "model and no adapter; rank, alpha and the other settings of the adapter have no effect.",
        advanced=True,
    )

    rank: int = declare(
        16,
        "Rank",
        "how much the adapter can change: 8–32 for a style or a format, 64+ for much new behaviour",
        "Each chosen layer learns two thin matrices of this width; the model's own weights stay frozen. A higher rank "
        "can change more, and costs memory and file size in proportion.\n"
        "Too little: the loss stays high. Too much: small sets are memorised.\n"
        "8–16 tone, format, one skill · 32–64 a domain, many tasks · 128+ rarely better.",
        ge=1,
        le=1024,
    )
    alpha: int = declare(
        32,
        "Alpha",
        "how strongly the adapter speaks: its output is scaled by alpha ÷ rank",
        "The scale of what the adapter adds. Sources differ between alpha = rank and alpha = 2 × rank; both work, and a "
        "higher alpha acts like a higher learning rate.",
        ge=1,
        le=4096,
    )
    target_modules: Annotated[
        tuple[TargetModule, ...], BeforeValidator(without_groups), AfterValidator(without_repeats)
    ] = declare(
        TARGET_MODULES,
        "Layers",
        "which layers get an adapter; all seven is the best start",
        "Attention (q, k, v, o) decides what looks at what; the MLP (gate, up, down) holds most of the skill. Adapting "
        "all seven learns best for its size. Fewer layers save a little memory.\n"
        "The words attention, mlp and all stand for these groups. Phi keeps q, k and v in one matrix, qkv_proj, and gate and up "
        "in another, gate_up_proj.",
        min_length=1,
        strict=False,
    )
    dropout: float = declare(
        0.0,
        "Dropout",
        "the share of adapter inputs switched off at random while training",
        "A brake against memorising. Unsloth is fastest at 0, and with few epochs it is rarely needed; try 0.05 when "
        "the held-out loss rises early.",
        advanced=True,
        ge=0.0,
        le=0.9,
    )
    rslora: bool = declare(
        False,
        "rsLoRA",
        "scale by alpha ÷ √rank, steadier at high ranks",
        "Rank-stabilised LoRA keeps the adapter's strength even when the rank is high. Worth trying from rank 64 up.",
        advanced=True,
    )
    dora: bool = declare(
        False,
        "DoRA",
        "also learn how long each weight vector is; slower, sometimes better at low ranks",
        "Weight-decomposed LoRA splits each adapted weight into direction and length and trains both. It can help at "
        "ranks up to 16. Unsloth's fast kernels do not cover it, so a step takes longer.",
        advanced=True,
    )
    initialization: Literal["default", "loftq"] = declare(
        "default",
        "Initialization",
        "where the adapter starts: at nothing, or (loftq) at what 4 bit lost of the base",
        "default: the adapter starts at nothing, so training begins at the model as it is held.\n"
        "loftq: only over a 4-bit base. Packing rounds each weight; the adapter starts at the best repair of its rank, and "
        "training begins nearer to the whole model. At 4 bit the gain is small: the higher the rank, the more is repaired. "
        "What is saved is what was learned since, of twice the rank, to be used over the model in 16 bit.",
        advanced=True,
    )
    modules_to_save: Annotated[tuple[SavedModule, ...], AfterValidator(without_repeats)] = declare(
        (),
        "Also trained",
        "whole tables trained beside the adapter: the embeddings, the output layer",
        "embed_tokens turns tokens into numbers, lm_head turns numbers into tokens. Train them for a new language or for "
        "words that the tokenizer cuts to pieces; otherwise leave them. They are large: memory and the adapter's file grow "
        "by all of their weights. Give them a learning rate of their own, two to ten times lower.",
        advanced=True,
        strict=False,
    )
    gradient_checkpointing: bool = declare(
        True,
        "Checkpointing",
        "recompute activations in place of keeping them: less memory, a little slower",
        "Gradient checkpointing (Unsloth's own) lets longer rows and larger batches fit. Turn it off for speed when "
        "memory is plenty, as with the demo's small model.",
        advanced=True,
    )

    @property
    def adapter_rank(self) -> int:
        """The rank of the adapter that leaves: with LoftQ it is what was learned since the start, of twice the rank."""
        return 2 * self.rank if self.initialization == "loftq" else self.rank
