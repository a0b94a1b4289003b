"""What finetui would choose for a setting here, and because of what. Pure rules; nothing is loaded or read.

Each rule looks at the model's size, the rows (how many, how long, how much of them is learned), the machine and the other
settings, and says in its reason which of them decided. Sources: Unsloth's LoRA guide, “LoRA Without Regret” (Thinking
Machines, 2025), Raschka's experiments (2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import advice_lora, advice_training, fit_task
from .advice_here import Rule
from .fields import field, fields
from .fit_words import Choice, choices
from .memory_shape import from_facts
from .outcome import Situation, with_values
from .recipe import TARGET_MODULES, Recipe

_RULES: dict[str, Rule] = advice_lora.RULES | advice_training.RULES


@dataclass(frozen=True)
class Advice:
    """The value that finetui would choose for the field at `path`, and why, in a sentence or two."""

    path: str
    value: Any
    because: str


def advise(path: str, recipe: Recipe, here: Situation) -> Advice | None:
    """What finetui would choose for the field at `path`, everything else being as in `recipe`.

    None for fields in which only the person can choose, such as the seed.
    """
    return _advise(path, recipe, here, _fitted(recipe, here) if path in fit_task.CHOSEN else {})


def _fitted(recipe: Recipe, here: Situation) -> dict[str, Choice]:
    """What `fit` would choose, by path; empty where nothing fits, or too little is known."""
    shape = from_facts(here.facts) if here.facts is not None else None
    if shape is None or here.machine is None or here.lengths is None:
        return {}
    task = fit_task.Task(recipe, shape, here.facts, here.machine, here.lengths, frozenset(), None)
    chosen = fit_task.choose(task)
    return {choice.path: choice for choice in choices(task, chosen)} if chosen is not None else {}


def _advise(path: str, recipe: Recipe, here: Situation, fitted: dict[str, Choice]) -> Advice | None:
    if path in fitted:
        reason = fitted[path].because[:1].upper() + fitted[path].because[1:].rstrip(".") + "."
        return Advice(path, fitted[path].value, reason)
    if path in _RULES:
        value, because = _RULES[path](recipe, here)
        return Advice(path, value, because)
    return None


def advise_all(recipe: Recipe, here: Situation) -> dict[str, Advice]:
    """The advice on every setting of the LoRA and the training step, each with the others as they are."""
    fitted, sections = _fitted(recipe, here), ("lora", "training")
    found = (_advise(spec.path, recipe, here, fitted) for section in sections for spec in fields(section))
    return {advice.path: advice for advice in found if advice is not None}


def adopted(recipe: Recipe, here: Situation) -> dict[str, Any]:
    """Values for all settings of the two steps that agree with each other, as where a new recipe starts.

    The order is that in which they depend on one another: what fits comes before what is learned in it.
    """
    values: dict[str, Any] = {}
    now = recipe
    order = sorted(
        (spec.path for section in ("lora", "training") for spec in fields(section)),
        key=lambda path: _ORDER.index(path) if path in _ORDER else len(_ORDER),
    )
    for path in order:
        advice = advise(path, now, here)
        if advice is None:
            continue
        changed = with_values(now, {path: advice.value})
        if changed is not None:
            values[path], now = advice.value, changed
    return values


_ORDER = (
    "lora.target_modules",
    "lora.rank",
    "lora.rslora",
    "lora.alpha",
    "training.packing",
    "lora.gradient_checkpointing",
    "training.batch_size",
    "training.gradient_accumulation_steps",
    "training.epochs",
    "training.learning_rate",
)


def neighbours(path: str, value: Any) -> tuple[Any, ...]:
    """Other values of a field that are worth a look, in order around `value`: half and double, or the other choices."""
    spec = field(path)
    if spec.kind == "choice":
        return tuple(choice for choice in spec.choices if choice != value)
    if spec.kind == "flag":
        return (not value,)
    if path == "lora.target_modules":
        attention, mlp = TARGET_MODULES[:4], TARGET_MODULES[4:]
        return tuple(group for group in (attention, mlp, TARGET_MODULES) if group != value)
    if (
        spec.kind not in ("int", "float")
        or not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not value
    ):
        return ()
    if path not in _STEPPED:
        return ()
    kind = int if spec.kind == "int" else float
    near = (kind(value / 2), kind(value * 2))
    low, high = spec.minimum or 0, spec.maximum or float("inf")
    return tuple(n for n in near if n != value and low <= n <= high and n > 0)


_STEPPED = (
    "model.max_length",
    "lora.rank",
    "training.epochs",
    "training.batch_size",
    "training.gradient_accumulation_steps",
    "training.max_steps",
)
