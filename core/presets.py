"""Presets: settings for a purpose, by name, each with a sentence why; the six that come with finetui.

A preset names values of fields of the LoRA and the training step, and the model step's precision and sequence length. What
it does not name stays as it is. `presets_own` keeps a person's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .draft import Draft
from .fields import FieldSpec, field, fields, get
from .model_facts import UNPACKED, ModelFacts
from .recipe import TARGET_MODULES, Recipe
from .recipe_lora import modules_here
from .refusals import EIGHT_BIT_OPTIMIZERS

_NOT_KEPT = ("training.seed",)


@dataclass(frozen=True)
class Preset:
    """Values by field path, for a purpose. `why` is one sentence."""

    name: str
    why: str
    values: Mapping[str, Any]
    own: bool = False

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name if self.own else self.name.replace("-", " ")


@dataclass(frozen=True)
class Difference:
    """One field in which two sides differ. A side that does not name the field has None in `has_…`."""

    spec: FieldSpec
    theirs: Any
    yours: Any
    theirs_named: bool = True
    yours_named: bool = True


_SHORT_ROWS: dict[str, Any] = {
    "lora.target_modules": TARGET_MODULES,
    "lora.dropout": 0.0,
    "training.max_steps": None,
    "training.schedule": "linear",
    "training.weight_decay": 0.01,
}

BUILT_IN: tuple[Preset, ...] = (
    Preset(
        "try-it",
        "Sixty short steps that show in minutes whether data, template and settings are right; not yet a good model.",
        {
            **_SHORT_ROWS,
            "lora.rank": 8,
            "lora.alpha": 16,
            "lora.rslora": False,
            "training.epochs": 1.0,
            "training.max_steps": 60,
            "training.batch_size": 4,
            "training.gradient_accumulation_steps": 1,
            "training.learning_rate": 2e-4,
            "training.warmup_share": 0.1,
            "training.evaluate_every_steps": 10,
            "training.save_every_steps": 0,
        },
    ),
    Preset(
        "balanced",
        "What works for most skills and formats: all layers at rank 16, two looks at each row, 16 rows a step.",
        {
            **_SHORT_ROWS,
            "lora.rank": 16,
            "lora.alpha": 32,
            "lora.rslora": False,
            "training.epochs": 2.0,
            "training.batch_size": 8,
            "training.gradient_accumulation_steps": 2,
            "training.learning_rate": 2e-4,
            "training.warmup_share": 0.05,
            "training.evaluate_every_steps": 20,
            "training.save_every_steps": 50,
        },
    ),
    Preset(
        "thorough",
        "More room and more passes for a whole domain or many tasks; it takes several times as long, so watch the "
        "held-out loss.",
        {
            **_SHORT_ROWS,
            "lora.rank": 64,
            "lora.alpha": 16,
            "lora.rslora": True,
            "training.epochs": 3.0,
            "training.batch_size": 8,
            "training.gradient_accumulation_steps": 4,
            "training.learning_rate": 1e-4,
            "training.schedule": "cosine",
            "training.warmup_share": 0.05,
            "training.evaluate_every_steps": 50,
            "training.save_every_steps": 100,
        },
    ),
    Preset(
        "style",
        "A small adapter and gentle steps: the model takes on a tone or a format, and keeps what it knows.",
        {
            **_SHORT_ROWS,
            "lora.rank": 8,
            "lora.alpha": 8,
            "lora.rslora": False,
            "lora.dropout": 0.05,
            "training.epochs": 3.0,
            "training.batch_size": 4,
            "training.gradient_accumulation_steps": 2,
            "training.learning_rate": 1e-4,
            "training.schedule": "cosine",
            "training.warmup_share": 0.1,
            "training.evaluate_every_steps": 20,
            "training.save_every_steps": 50,
        },
    ),
    Preset(
        "tight-memory",
        "The least memory at the same 16 rows a step: one row at a time, in 4-bit with an 8-bit optimizer on a GPU; "
        "slower, but it fits.",
        {
            "model.precision": "4bit",
            "lora.rank": 8,
            "lora.alpha": 16,
            "lora.rslora": False,
            "lora.target_modules": TARGET_MODULES,
            "lora.gradient_checkpointing": True,
            "training.batch_size": 1,
            "training.gradient_accumulation_steps": 16,
            "training.optimizer": "adamw_8bit",
            "training.packing": False,
        },
    ),
    Preset(
        "long-documents",
        "Rows of up to 4,096 tokens, one at a time and recomputed in place of kept, so that the ends of long answers "
        "are learned too.",
        {
            "model.max_length": 4096,
            "lora.rank": 32,
            "lora.alpha": 64,
            "lora.rslora": False,
            "lora.target_modules": TARGET_MODULES,
            "lora.gradient_checkpointing": True,
            "training.batch_size": 1,
            "training.gradient_accumulation_steps": 8,
            "training.learning_rate": 1e-4,
            "training.schedule": "cosine",
            "training.packing": False,
        },
    ),
)


def preset_paths() -> tuple[str, ...]:
    """The fields that a preset may name, in order."""
    steps = [spec.path for section in ("lora", "training") for spec in fields(section)]
    return ("model.precision", "model.max_length", *(path for path in steps if path not in _NOT_KEPT))


def of_recipe(name: str, why: str, recipe: Recipe, own: bool = False) -> Preset:
    """All that a preset can hold of `recipe`, such as of the last run."""
    return Preset(name, why, {path: get(recipe, path) for path in preset_paths()}, own)


def of_draft(name: str, why: str, draft: Draft, own: bool = False) -> Preset:
    """As `of_recipe`, of a draft; wrong values are left out."""
    wrong = draft.problems
    return Preset(name, why, {p: draft[p] for p in preset_paths() if p not in wrong}, own)


def here(
    preset: Preset, *, gpu: bool, facts: ModelFacts | None = None, method: str = "lora"
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The preset's values as this machine and model can take them, and a sentence on each that was changed or left out.

    `method` is the form's, lora or full; a preset that names its own means that one.
    """
    values, said = dict(preset.values), []
    precision = str(values.get("model.precision", ""))
    packed = precision in ("4bit", "8bit")
    full = values.get("lora.method", method) == "full"
    for path, wanted, words in (
        ("model.precision", packed, f"{precision[:1]}-bit"),
        (
            "training.optimizer",
            values.get("training.optimizer") in EIGHT_BIT_OPTIMIZERS,
            "The 8-bit optimizer",
        ),
        ("training.packing", values.get("training.packing") is True, "Packing"),
    ):
        if wanted and not gpu:
            del values[path]
            said.append(f"{words} needs a GPU and is left out.")
    if full and "model.precision" in values and packed:
        del values["model.precision"]
        said.append(f"Full fine-tuning needs whole weights: {precision[0]}-bit is left out.")
    if full and "lora.method" not in values and "training.learning_rate" in values:
        values["training.learning_rate"] = rate = values["training.learning_rate"] / 10
        said.append(f"Full fine-tuning wants a tenth of LoRA's learning rate: {rate:g}.")
    if facts is None:
        return values, tuple(said)
    length, context = values.get("model.max_length"), facts.context_length
    if context and isinstance(length, int) and length > context:
        values["model.max_length"] = context
        said.append(f"The model reads at most {context:,} tokens.")
    if values.get("training.packing") is True and facts.model_type in UNPACKED:
        del values["training.packing"]
        said.append("Unsloth does not pack for this family; packing is left out.")
    wanted = values.get("lora.target_modules", ())
    has = modules_here(wanted, facts.modules)
    if has and has != wanted and not full and "moe" not in facts.model_type:
        values["lora.target_modules"] = has
        said.append(f"Layers are named as this model has them: {', '.join(has)}.")
    return values, tuple(said)


def diff(
    theirs: Mapping[str, Any], yours: Mapping[str, Any], *, every: bool = False
) -> tuple[Difference, ...]:
    """The fields in which `theirs` differs from `yours`, of those that both name; with `every` also those that are the
    same or that one side leaves open."""
    found = []
    for path in preset_paths():
        if path not in theirs and path not in yours:
            continue
        named = path in theirs, path in yours
        differs = all(named) and theirs[path] != yours[path]
        if differs or every:
            found.append(Difference(field(path), theirs.get(path), yours.get(path), *named))
    return tuple(found)
