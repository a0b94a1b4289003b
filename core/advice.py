"""What finetui would choose for a setting here, and because of what. Pure rules; nothing is loaded or read.

Each rule looks at the model's size, the rows (how many, how long, how much of them is learned), the machine and the other
settings, and says in its reason which of them decided. Sources: Unsloth's LoRA guide, “LoRA Without Regret” (Thinking
Machines, 2025), Raschka's experiments (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import fit, lora, training
from .errors import FinetuiError
from .fields import field, fields
from .memory import GIB
from .memory_shape import from_facts
from .outcome import Situation, memory_estimate, with_values
from .recipe import TARGET_MODULES, Recipe
from .text import count_words

ROOM = 0.85
"""The share of the free memory that a setting may fill: estimates err, and others use memory too."""

EFFECTIVE_BATCH = 16
BITS_PER_WEIGHT = 2
"""About what an adapter's weight can hold, against at most one bit in a learned token (LoRA Without Regret)."""


@dataclass(frozen=True)
class Advice:
    """The value that finetui would choose for the field at `path`, and why, in a sentence or two."""

    path: str
    value: Any
    because: str


Rule = Callable[[Recipe, Situation], tuple[Any, str]]


def advise(path: str, recipe: Recipe, here: Situation) -> Advice | None:
    """What finetui would choose for the field at `path`, everything else being as in `recipe`.

    None for fields in which only the person can choose, such as the seed.
    """
    if (
        path in fit.CHOSEN
        and here.lengths is not None
        and here.facts is not None
        and here.machine is not None
    ):
        try:
            choice = fit.fit(recipe, here.facts, here.machine, here.lengths).choice(path)
        except FinetuiError:
            choice = None  # nothing fits, or too little is known: the rules below say what is usual
        if choice is not None:
            reason = choice.because[:1].upper() + choice.because[1:].rstrip(".") + "."
            return Advice(path, choice.value, reason)
    if path in _RULES:
        value, because = _RULES[path](recipe, here)
        return Advice(path, value, because)
    if path in _YOURS or path.split(".")[0] not in ("lora", "training"):
        return None
    return Advice(path, field(path).default, "The usual value; nothing here asks for another.")


def advise_all(recipe: Recipe, here: Situation) -> dict[str, Advice]:
    """The advice on every setting of the LoRA and the training step, each with the others as they are."""
    found = (advise(spec.path, recipe, here) for section in ("lora", "training") for spec in fields(section))
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


_YOURS = ("training.seed",)
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


def _rows(here: Situation) -> str:
    return f"{here.rows:,} row{'' if here.rows == 1 else 's'}"


def _rank(recipe: Recipe, here: Situation) -> tuple[int, str]:
    facts, learned = here.facts, here.learned_tokens
    if learned is None and here.rows and here.tokens_per_row:
        learned = int(here.rows * here.tokens_per_row)
    shape = from_facts(facts) if facts is not None else None
    if not learned or shape is None:
        return 16, "The usual start; how much there is to learn is known once the rows are counted."
    each = max(1, shape.adapter_weights(recipe.lora.model_copy(update={"rank": 1})))
    rank = 8 if here.rows is not None and here.rows < 200 else 16
    while rank < 128 and rank * each * BITS_PER_WEIGHT < learned:
        rank *= 2
    room = f"{count_words(rank * each)} weights"
    tokens = f"{count_words(learned)} learned tokens"
    if rank == 8:
        return rank, f"Only {_rows(here)}: {room} hold their {tokens} many times over; more would memorise."
    if rank == 16:
        return rank, f"{tokens} need few weights: {room} at rank 16 hold them with room to spare."
    more = "" if rank < 128 else ", and higher ranks are rarely better"
    return rank, f"{tokens} are much to hold: rank {rank} has {room} for them{more}."


def _alpha(recipe: Recipe, here: Situation) -> tuple[int, str]:
    rank = recipe.lora.rank
    if recipe.lora.rslora:
        alpha = max(1, round(2 * rank**0.5))
        return (
            alpha,
            f"With rsLoRA at rank {rank} this scales the adapter by about 2, like twice a usual rank.",
        )
    if rank >= 64:
        return min(rank, 4096), f"At rank {rank} a scale of 1 keeps the steps steady."
    return 2 * rank, f"Twice the rank of {rank}, a scale of 2: small adapters learn faster so."


def _modules(recipe: Recipe, here: Situation) -> tuple[tuple[str, ...], str]:
    facts = here.facts
    shape = from_facts(facts) if facts is not None else None
    if shape is not None and shape.kind == "phi3":
        return (
            "o_proj",
            "down_proj",
        ), "This model keeps q, k, v and gate, up in one matrix each: only o and down fit."
    weights = lora.adapter_weights(facts, recipe.lora) if facts is not None else None
    share = ""
    if weights and facts is not None and facts.parameters:
        share = f" They are {100 * weights / facts.parameters:.2g} % of this model's weights."
    return (
        TARGET_MODULES,
        "All seven learn best for their size; attention alone lags behind at the same size." + share,
    )


def _dropout(recipe: Recipe, here: Situation) -> tuple[float, str]:
    if here.rows is not None and here.rows < 500 and recipe.training.epochs > 3:
        seen = f"{recipe.training.epochs:g} times"
        return 0.05, f"{_rows(here)} seen {seen} each are easily memorised; a little dropout brakes it."
    return 0.0, "Unsloth is fastest without, and few passes over the rows memorise little."


def _rslora(recipe: Recipe, here: Situation) -> tuple[bool, str]:
    if recipe.lora.rank >= 64:
        return True, f"At rank {recipe.lora.rank} alpha ÷ rank would make the adapter faint."
    return False, f"At rank {recipe.lora.rank} both scales work; it helps from 64 up."


def _initialization(recipe: Recipe, here: Situation) -> tuple[str, str]:
    if recipe.model.precision != "4bit":
        return (
            "default",
            f"The base is held in {recipe.model.precision[:-3]} bit, so there is no 4-bit loss to repair.",
        )
    if here.facts is not None and here.facts.quantization:
        return "default", "This model is stored packed; what that lost is not there to be repaired."
    rank = recipe.lora.rank
    gain = "a few per cent" if rank < 32 else "some"
    return (
        "default",
        f"At rank {rank} loftq repairs {gain} of what 4 bit lost, and the saved adapter is twice as large.",
    )


def _free(here: Situation) -> float:
    return here.machine.free_bytes / GIB if here.machine is not None else 0.0


def _need(recipe: Recipe, here: Situation, values: dict[str, Any]) -> float | None:
    """GiB that `recipe` with `values` would take."""
    changed = with_values(recipe, values)
    estimate = memory_estimate(changed, here) if changed is not None else None
    return estimate.total_bytes / GIB if estimate is not None else None


def _checkpointing(recipe: Recipe, here: Situation) -> tuple[bool, str]:
    need = _need(recipe, here, {"lora.gradient_checkpointing": False})
    if need is None:
        return True, "It saves memory, and costs little time."
    if need <= ROOM * _free(here):
        return (
            False,
            f"Without it {need:.1f} of {_free(here):.1f} GiB free are needed: that fits, and is faster.",
        )
    return True, f"Without it {need:.1f} GiB would be needed, and {_free(here):.1f} are free."


def _batch(recipe: Recipe, here: Situation) -> tuple[int, str]:
    most = 32 if here.gpu else 8
    limited = f"more is rarely faster on {'a GPU' if here.gpu else 'a processor'}"
    if here.rows is not None:
        by_rows = max(1, here.rows // 8)
        if by_rows < most:
            most, limited = by_rows, f"{_rows(here)} make too few steps of more"
    size = 1
    while size * 2 <= most:
        size *= 2
    first = size
    if recipe.training.packing:
        size, limited = min(size, 8), "packed sequences are full already"
        first = size
    need = _need(recipe, here, {"training.batch_size": size})
    if need is None:
        return min(size, 8), "A usual start; what fits is known once model and machine are."
    while size > 1 and need is not None and need > ROOM * _free(here):
        size //= 2
        need = _need(recipe, here, {"training.batch_size": size})
    fits = f"{need or 0:.1f} of {_free(here):.1f} GiB free"
    if size < first:
        return size, f"The most that fits with room: {fits}."
    return size, f"It takes {fits}, and {limited}."


def _accumulation(recipe: Recipe, here: Situation) -> tuple[int, str]:
    batch = recipe.training.batch_size
    target, why = EFFECTIVE_BATCH, "a steady step"
    if here.rows is not None and here.rows < 20 * EFFECTIVE_BATCH:
        target = max(1, min(8, here.rows // 20))
        why = f"{_rows(here)} give enough steps so"
    count = max(1, round(target / batch))
    if batch >= target:
        return 1, f"A batch of {batch} is enough by itself: {why}."
    return count, f"{batch} × {count} = {batch * count} rows a step: {why}."


def _epochs(recipe: Recipe, here: Situation) -> tuple[float, str]:
    if here.rows is None:
        return 1.0, "One look at each row is a safe start."
    if here.rows < 300:
        return 3.0, f"{_rows(here)} are few: seen three times each, they make enough steps to learn from."
    if here.rows < 3000:
        return 2.0, f"{_rows(here)}, seen twice each, are enough steps; more begins to memorise."
    return 1.0, f"{_rows(here)} are plenty: one look at each is enough."


def _rate(recipe: Recipe, here: Situation) -> tuple[float, str]:
    size = here.facts.parameters if here.facts is not None else None
    if size is None:
        return 2e-4, "The usual rate for LoRA."
    words = f"{count_words(size)} weights"
    if recipe.lora.method == "full":
        return 2e-5, "Tuning every weight wants about a tenth of LoRA's rate."
    if size < 3e8:
        return 1e-3, f"A model of only {words} takes, and needs, a higher rate."
    if size < 13e9:
        return 2e-4, f"The usual rate for LoRA on a model of {words}."
    return 1e-4, f"A model of {words} wants smaller steps."


def _steps(recipe: Recipe, here: Situation) -> int | None:
    return training.plan(recipe, here.rows).steps if here.rows else None


def _limit(recipe: Recipe, here: Situation) -> tuple[None, str]:
    return None, "The epochs say how long; a limit is for trials."


def _schedule(recipe: Recipe, here: Situation) -> tuple[str, str]:
    steps = _steps(recipe, here)
    if steps is not None and steps > 1000:
        return "cosine", f"Over {steps:,} steps it keeps the rate up longer, and settles at the end."
    return "linear", "It falls to zero, so the last steps settle."


def _warmup(recipe: Recipe, here: Situation) -> tuple[float, str]:
    steps = _steps(recipe, here)
    if steps is not None and steps < 60:
        return 0.1, f"Of {steps} steps 5 % would be {'one' if steps < 40 else 'two'}: too short a rise."
    return 0.05, "A short rise keeps the wildest first steps small."


def _decay(recipe: Recipe, here: Situation) -> tuple[float, str]:
    return 0.01, "Customary; it rarely decides anything with LoRA."


def _optimizer(recipe: Recipe, here: Situation) -> tuple[str, str]:
    weights = lora.adapter_weights(here.facts, recipe.lora) if here.facts is not None else None
    if here.gpu and weights and weights > 1e8:
        saved = weights * 6 / GIB
        return "adamw_8bit", f"With {count_words(weights)} trained weights it saves {saved:.1f} GiB."
    if not here.gpu:
        return "adamw_torch", "The 8-bit form needs a GPU."
    return "adamw_torch", "The adapter is small: the 8-bit form would save next to nothing."


def _packing(recipe: Recipe, here: Situation) -> tuple[bool, str]:
    length, mean = recipe.model.max_length, here.tokens_per_row
    if not here.gpu:
        return False, "Unsloth packs only on a GPU, and there is none here."
    if mean is None:
        return False, "It helps where rows are short; their length is not known yet."
    if mean < 0.6 * length:
        return (
            True,
            f"Rows have about {mean:.0f} of {length:,} tokens: packed, {length / mean:.1f} share a sequence.",
        )
    return False, f"Rows of about {mean:.0f} tokens fill most of {length:,} by themselves."


def _nice(number: float) -> int:
    """The nearest of 1, 2, 5, 10, 20, 50, … that is not above `number`."""
    best = 1
    for power in range(7):
        for head in (1, 2, 5):
            if head * 10**power <= number:
                best = max(best, head * 10**power)
    return best


def _evaluate(recipe: Recipe, here: Situation) -> tuple[int, str]:
    if here.evaluation_rows == 0:
        return 0, "No rows are held out, so there is nothing to look at."
    steps = _steps(recipe, here)
    if steps is None:
        return 20, "About ten looks in a run draw a good curve."
    every = _nice(steps / 8)
    looks = steps // every
    return (
        every,
        f"{looks} look{'' if looks == 1 else 's'} in {steps:,} steps draw the curve, and cost little.",
    )


def _save(recipe: Recipe, here: Situation) -> tuple[int, str]:
    steps = _steps(recipe, here)
    if steps is None:
        return 50, "A few times in a run."
    every = _nice(steps / 4)
    return every, f"Of {steps:,} steps at most {every:,} are lost in a crash."


def _samples(recipe: Recipe, here: Situation) -> tuple[int, str]:
    if here.evaluation_rows == 0:
        return 0, "They are held-out prompts, and no rows are held out."
    return 3, "Enough to see the change, and quick to write."


def _length(recipe: Recipe, here: Situation) -> tuple[int, str]:
    longest, most = here.longest_tokens, here.facts.context_length if here.facts is not None else None
    if longest is None:
        return recipe.model.max_length, "How long the rows are is known once they are counted."
    wanted = max(64, -(-longest // 64) * 64)
    if here.p95_tokens and wanted > 4 * here.p95_tokens and here.p95_tokens > 16:
        wanted = max(64, -(-here.p95_tokens // 64) * 64)
        reason = f"19 of 20 rows have at most {here.p95_tokens:,} tokens; the longest has {longest:,}."
    else:
        reason = f"The longest row has {longest:,} tokens: nothing is cut, nothing is wasted."
    if most is not None and wanted > most:
        return most, f"The model reads at most {most:,} tokens; the longest row has {longest:,}."
    return min(wanted, 131_072), reason


def _precision(recipe: Recipe, here: Situation) -> tuple[str, str]:
    if not here.gpu:
        return "16bit", "4-bit needs a GPU."
    if here.facts is not None and here.facts.is_4bit:
        return "4bit", "The model is stored so."
    need = _need(recipe, here, {"model.precision": "16bit"})
    if need is None:
        return "16bit", "Exact, where it fits."
    if need <= ROOM * _free(here):
        return "16bit", f"It takes {need:.1f} of {_free(here):.1f} GiB free: it fits, so nothing is rounded."
    return "4bit", f"In 16-bit it would take {need:.1f} GiB, and {_free(here):.1f} are free."


_RULES: dict[str, Rule] = {
    "model.max_length": _length,
    "model.precision": _precision,
    "lora.rank": _rank,
    "lora.alpha": _alpha,
    "lora.target_modules": _modules,
    "lora.dropout": _dropout,
    "lora.rslora": _rslora,
    "lora.initialization": _initialization,
    "lora.gradient_checkpointing": _checkpointing,
    "training.epochs": _epochs,
    "training.max_steps": _limit,
    "training.batch_size": _batch,
    "training.gradient_accumulation_steps": _accumulation,
    "training.learning_rate": _rate,
    "training.schedule": _schedule,
    "training.warmup_share": _warmup,
    "training.weight_decay": _decay,
    "training.optimizer": _optimizer,
    "training.packing": _packing,
    "training.evaluate_every_steps": _evaluate,
    "training.save_every_steps": _save,
    "training.sample_count": _samples,
}


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
