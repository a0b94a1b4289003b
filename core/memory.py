"""Predicts the memory and the disk space that a recipe needs, from the model's config.json alone.

The formulas follow what Unsloth 2026.10 does, allocation by allocation; `memory_gpu` and `memory_host` hold them. How far
they are from what was measured stands in the README, the measured table in tests/bench/gpu/memory_points.csv.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from . import export, hub, memory_gpu, memory_held, memory_host, model, system
from .errors import FinetuiError
from .memory_parts import GIB, Confidence, MemoryEstimate, Part, all_bytes
from .memory_shape import Shape, from_config, from_facts
from .model_facts import ModelFacts, read_config
from .model_files import read_json
from .recipe import DEMO, Recipe
from .text import one_line

__all__ = [
    "CUDA_CONTEXT_BYTES",
    "GIB",
    "MemoryEstimate",
    "Part",
    "Shape",
    "estimate",
    "estimate_host",
    "estimate_shape",
    "look",
]

MEASURED_KINDS = ("llama", "mistral", "qwen2", "qwen3", "phi3", "smollm3", "gemma3_text")
"""Families whose adapters stand in the measured table, several settings of each."""
_WHOLE_KINDS = ("llama", "qwen2", "qwen3")
"""Those of which full fine-tuning, DoRA and 8-bit bases stand there as well."""

CUDA_CONTEXT_BYTES = memory_gpu.CONTEXT_BYTES


def estimate(
    recipe: Recipe,
    facts: ModelFacts,
    *,
    gpu: bool,
    longest_tokens: float | None = None,
    card_bytes: int | None = None,
) -> MemoryEstimate | None:
    """The memory of training `recipe` on a GPU, or on the host's processor; None where the model's shape is not known.

    `longest_tokens` is the longest row's length where it is known; the recipe's sequence length bounds it. `card_bytes`
    is the size of the GPU's memory: Unsloth computes its loss in smaller pieces on a small card.
    """
    shape = from_facts(facts)
    if shape is None or not facts.parameters:
        return None
    if not gpu:
        return estimate_host(recipe, shape, longest_tokens=longest_tokens)
    return estimate_shape(recipe, shape, card_bytes=card_bytes, longest_tokens=longest_tokens, facts=facts)


def estimate_shape(
    recipe: Recipe,
    shape: Shape,
    *,
    card_bytes: int | None = None,
    longest_tokens: float | None = None,
    facts: ModelFacts | None = None,
    pads: bool = True,
) -> MemoryEstimate:
    """The memory of training `recipe` on a GPU of `card_bytes` (a large one where it is None), with host and disk.

    `pads`: whether held-out rows of several lengths stand side by side, so that the shorter ones are padded.
    """
    tokens = batch_tokens(recipe, longest_tokens)
    length, evaluated = row_tokens(recipe, longest_tokens), evaluated_tokens(recipe, longest_tokens)
    parts = memory_gpu.parts(recipe, shape, tokens, length, card_bytes, evaluated, pads)
    host = memory_host.parts_with_gpu(recipe, shape, tokens, facts.weights_bytes if facts else None)
    confidence, remarks = _confidence(recipe, shape)
    return MemoryEstimate(
        parts=parts,
        gpu_reserved_bytes=all_bytes(part for part in parts if part.name != "context"),
        host_parts=host,
        disk_parts=_disk(recipe, shape, facts),
        confidence=confidence,
        remarks=remarks,
    )


def estimate_host(recipe: Recipe, shape: Shape, *, longest_tokens: float | None = None) -> MemoryEstimate:
    """The host memory of training `recipe` on this machine's processor, where there is no GPU."""
    if not system.computes_bf16():
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"precision": "32bit"})})
    parts = memory_host.parts_without_gpu(
        recipe,
        shape,
        batch_tokens(recipe, longest_tokens),
        row_tokens(recipe, longest_tokens),
        evaluated_tokens(recipe, longest_tokens),
    )
    return MemoryEstimate(parts=parts, host_parts=parts, disk_parts=_disk(recipe, shape, None))


def row_tokens(recipe: Recipe, longest_tokens: float | None = None) -> int:
    """Tokens of the longest row as it is trained on; of the whole sequence where no row's length is known."""
    return min(recipe.model.max_length, max(1, round(longest_tokens or recipe.model.max_length)))


def batch_tokens(recipe: Recipe, longest_tokens: float | None = None) -> int:
    """Tokens of the largest batch: every row as long as the longest one, or as the sequence where rows are packed."""
    packed = recipe.training.packing
    return recipe.training.batch_size * row_tokens(recipe, None if packed else longest_tokens)


def evaluated_tokens(recipe: Recipe, longest_tokens: float | None = None) -> int:
    """Tokens of the largest batch of held-out rows, which are not packed; 0 where none are held out."""
    rows = recipe.training.evaluation_batch_size or recipe.training.batch_size
    return rows * row_tokens(recipe, longest_tokens) if recipe.dataset.holds_out else 0


def look(source: str, revision: str | None = None) -> tuple[ModelFacts, Shape]:
    """What `source` is and its shape. A folder may hold nothing but a config.json.

    Raises FinetuiError as `model.inspect` does, and model-broken where config.json lacks the figures.
    """
    if source == DEMO or model.source_kind(source) == "hub":
        facts = model.inspect(source, revision)
        folder = hub.cached_snapshot(source, "model", revision) if source != DEMO else None
        shape = (_config_shape(folder, facts.title) if folder else None) or from_facts(facts)
    else:
        folder = Path(source).expanduser()
        facts = _folder_facts(folder, source)
        shape = _config_shape(folder, facts.title)
    if shape is None:
        raise FinetuiError(
            f"The shape of {facts.title} is not known.",
            "Its config.json does not give the number of layers, their width, the heads and the vocabulary.",
            "Name a model in Transformers' form.",
            code="model-broken",
        )
    return facts, replace(shape, counted=facts.parameters or None)


def _folder_facts(folder: Path, source: str) -> ModelFacts:
    """The facts of the folder as a model, or, where its weights or tokenizer are not there, those of its config.json."""
    try:
        return model.inspect(source)
    except FinetuiError as error:
        if (
            error.code not in ("model-no-weights", "model-no-tokenizer")
            or not (folder / "config.json").is_file()
        ):
            raise
    title = one_line(folder.resolve().name or source, 100)
    figures = read_config(read_json(folder / "config.json", title), title)
    return ModelFacts(source, "folder", title, figures.architecture, model_type=figures.model_type)


def _config_shape(folder: Path, title: str) -> Shape | None:
    return (
        from_config(read_json(folder / "config.json", title)) if (folder / "config.json").is_file() else None
    )


def _confidence(recipe: Recipe, shape: Shape) -> tuple[Confidence, tuple[str, ...]]:
    lora, kind = recipe.lora, one_line(shape.kind, 40) or "(none)"
    if shape.experts:
        return "low", (
            "One mixture of experts was measured, of eight layers; the prediction may be off by a third. In its first step "
            "checkpointing saved nothing.",
        )
    if lora.modules_to_save:
        return "low", ("This kind of training was not measured on a GPU; keep a fifth of room.",)
    if shape.sees_images:
        return "low", ("The model also takes images; only its text part is counted.",)
    if kind == "gemma2":
        return "low", ("Of models of the type gemma2 one training was measured; keep room.",)
    special = lora.dora or lora.method == "full" or recipe.model.precision == "8bit"
    if kind not in (_WHOLE_KINDS if special else MEASURED_KINDS):
        what = "This kind of training" if kind in MEASURED_KINDS else f"Models of the type {kind}"
        said = "was not measured for this type of model" if kind in MEASURED_KINDS else "were not measured"
        return "low", (f"{what} {said}; keep room.",)
    if lora.dora and recipe.model.precision != "4bit":
        return "low", ("DoRA over a base that is not in 4 bit was measured once; keep a fifth of room.",)
    if special:
        return "fair", ("This kind of training was measured on a few small models; keep a tenth of room.",)
    return "good", ()


def _disk(recipe: Recipe, shape: Shape, facts: ModelFacts | None) -> tuple[Part, ...]:
    """What a run leaves on the disk: checkpoints (adapter and optimizer), the adapter, the exports; and the download."""
    # Saved as wide as it is trained; an adapter in 32 bit.
    learned = memory_held.gradient_bytes(recipe, shape)
    kept = recipe.training.checkpoints_kept + (1 if recipe.training.keep_best else 0)
    known = facts if facts is not None and facts.parameters else shape.facts()
    sizes = (export.estimated_bytes(name, known, recipe.lora) or 0 for name in recipe.export.formats)
    parts = [
        Part("checkpoints", kept * (learned + memory_held.optimizer_bytes(recipe, shape))),
        Part("adapter", learned * (2 if recipe.lora.initialization == "loftq" else 1))
        if recipe.lora.method == "lora"
        else Part("model", learned),
        Part("exports", sum(sizes)),
    ]
    if facts is not None and not facts.cached:
        parts.append(Part("download", facts.weights_bytes or shape.parameters * 2))
    return tuple(parts)
