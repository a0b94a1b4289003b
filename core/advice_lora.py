"""What finetui would choose of the model's form and of the adapter, and because of what."""

from __future__ import annotations

from . import lora
from .advice_here import ROOM, Rule, free_gib, needed_gib, rows_words
from .memory_shape import from_facts
from .outcome import Situation
from .recipe import TARGET_MODULES, Recipe
from .text import count_words

BITS_PER_WEIGHT = 2
"""About what an adapter's weight can hold, against at most one bit in a learned token (LoRA Without Regret)."""


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
        return (
            rank,
            f"Only {rows_words(here)}: {room} hold their {tokens} many times over; more would memorise.",
        )
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
        modules = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
        return modules, "All of them: this model keeps q, k, v and gate, up in one matrix each."
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
        return 0.05, f"{rows_words(here)} seen {seen} each are easily memorised; a little dropout brakes it."
    return 0.0, "Unsloth is fastest without, and few passes over the rows memorise little."


def _rslora(recipe: Recipe, here: Situation) -> tuple[bool, str]:
    if recipe.lora.rank >= 64:
        return True, f"At rank {recipe.lora.rank} alpha ÷ rank would make the adapter faint."
    return False, f"At rank {recipe.lora.rank} both scales work; it helps from 64 up."


def _method(recipe: Recipe, here: Situation) -> tuple[str, str]:
    whole = {"lora.method": "full", "model.precision": "16bit", "export.formats": ("merged",)}
    need = needed_gib(recipe, here, whole)
    if need is None:
        return "lora", "It learns most tasks as well, in a part of the memory, and forgets less."
    takes = f"Training every weight would take {need:.1f} GiB, and {free_gib(here):.1f} are free"
    if need > ROOM * free_gib(here):
        return "lora", f"{takes}."
    return "lora", f"{takes}; but an adapter learns most tasks as well, is quicker, and forgets less."


def _dora(recipe: Recipe, here: Situation) -> tuple[bool, str]:
    rank = recipe.lora.rank
    if recipe.model.precision in ("4bit", "8bit"):
        return (
            False,
            f"Over a {recipe.model.precision[0]}-bit base it unpacks every weight once more at each step.",
        )
    if rank > 16:
        return False, f"Rank {rank} has room enough without; it helps at ranks up to 16, if at all."
    return False, f"At rank {rank} it may help a little, but Unsloth's fast kernels do not cover it."


def _tables(recipe: Recipe, here: Situation) -> tuple[tuple[str, ...], str]:
    shape = from_facts(here.facts) if here.facts is not None else None
    if shape is None:
        return (), "They are large, and only a new language or new words need them."
    table, adapter = shape.embedding, shape.adapter_weights(recipe.lora)
    times = f", {table / adapter:.2g} × the adapter" if adapter else ""
    return (), f"Each holds {count_words(table)} weights{times}; only a new language or new words need them."


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


def _checkpointing(recipe: Recipe, here: Situation) -> tuple[bool, str]:
    need = needed_gib(recipe, here, {"lora.gradient_checkpointing": False})
    if need is None:
        return True, "It saves memory, and costs little time."
    if need <= ROOM * free_gib(here):
        return (
            False,
            f"Without it {need:.1f} of {free_gib(here):.1f} GiB free are needed: that fits, and is faster.",
        )
    return True, f"Without it {need:.1f} GiB would be needed, and {free_gib(here):.1f} are free."


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
    need = needed_gib(recipe, here, {"model.precision": "16bit"})
    if need is None:
        return "16bit", "Exact, where it fits."
    if need <= ROOM * free_gib(here):
        return (
            "16bit",
            f"It takes {need:.1f} of {free_gib(here):.1f} GiB free: it fits, so nothing is rounded.",
        )
    return "4bit", f"In 16-bit it would take {need:.1f} GiB, and {free_gib(here):.1f} are free."


RULES: dict[str, Rule] = {
    "model.max_length": _length,
    "model.precision": _precision,
    "lora.method": _method,
    "lora.rank": _rank,
    "lora.alpha": _alpha,
    "lora.target_modules": _modules,
    "lora.dropout": _dropout,
    "lora.rslora": _rslora,
    "lora.dora": _dora,
    "lora.initialization": _initialization,
    "lora.modules_to_save": _tables,
    "lora.gradient_checkpointing": _checkpointing,
}
