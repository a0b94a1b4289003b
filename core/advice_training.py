"""What finetui would choose of the training, and because of what."""

from __future__ import annotations

import math

from . import lora, memory_held
from .advice_here import ROOM, Rule, free_gib, needed_gib, nice, rows_words, steps_of
from .memory import GIB
from .memory_shape import from_facts
from .model_facts import UNPACKED
from .outcome import Situation
from .recipe import Recipe
from .text import bytes_words, count_words

EFFECTIVE_BATCH = 16


def _batch(recipe: Recipe, here: Situation) -> tuple[int, str]:
    most = 32 if here.gpu else 8
    limited = f"more is rarely faster on {'a GPU' if here.gpu else 'a processor'}"
    if here.rows is not None:
        by_rows = max(1, here.rows // 8)
        if by_rows < most:
            most, limited = by_rows, f"{rows_words(here)} make too few steps of more"
    size = 1
    while size * 2 <= most:
        size *= 2
    first = size
    if recipe.training.packing:
        size, limited = min(size, 8), "packed sequences are full already"
        first = size
    need = needed_gib(recipe, here, {"training.batch_size": size})
    if need is None:
        return min(size, 8), "A usual start; what fits is known once model and machine are."
    while size > 1 and need is not None and need > ROOM * free_gib(here):
        size //= 2
        need = needed_gib(recipe, here, {"training.batch_size": size})
    fits = f"{need or 0:.1f} of {free_gib(here):.1f} GiB free"
    if size < first:
        return size, f"The most that fits with room: {fits}."
    return size, f"It takes {fits}, and {limited}."


def _accumulation(recipe: Recipe, here: Situation) -> tuple[int, str]:
    batch = recipe.training.batch_size
    target, why = EFFECTIVE_BATCH, "a steady step"
    if here.rows is not None and here.rows < 20 * EFFECTIVE_BATCH:
        target = max(1, min(8, here.rows // 20))
        why = f"{rows_words(here)} give enough steps so"
    count = max(1, round(target / batch))
    if batch >= target:
        return 1, f"A batch of {batch} is enough by itself: {why}."
    return count, f"{batch} × {count} = {batch * count} rows a step: {why}."


def _epochs(recipe: Recipe, here: Situation) -> tuple[float, str]:
    if here.rows is None:
        return 1.0, "One look at each row is a safe start."
    if here.rows < 300:
        return (
            3.0,
            f"{rows_words(here)} are few: seen three times each, they make enough steps to learn from.",
        )
    if here.rows < 3000:
        return 2.0, f"{rows_words(here)}, seen twice each, are enough steps; more begins to memorise."
    return 1.0, f"{rows_words(here)} are plenty: one look at each is enough."


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


def _limit(recipe: Recipe, here: Situation) -> tuple[None, str]:
    return None, "The epochs say how long; a limit is for trials."


def _schedule(recipe: Recipe, here: Situation) -> tuple[str, str]:
    steps = steps_of(recipe, here)
    if steps is not None and steps > 1000:
        return "cosine", f"Over {steps:,} steps it keeps the rate up longer, and settles at the end."
    return "linear", "It falls to zero, so the last steps settle."


def _warmup(recipe: Recipe, here: Situation) -> tuple[float, str]:
    steps = steps_of(recipe, here)
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
    if here.facts is not None and here.facts.model_type in UNPACKED:
        return False, "Unsloth does not pack for this family."
    if mean is None:
        return False, "It helps where rows are short; their length is not known yet."
    if mean < 0.6 * length:
        return (
            True,
            f"Rows have about {mean:.0f} of {length:,} tokens: packed, {length / mean:.1f} share a sequence.",
        )
    return False, f"Rows of about {mean:.0f} tokens fill most of {length:,} by themselves."


def _evaluate(recipe: Recipe, here: Situation) -> tuple[int, str]:
    if here.evaluation_rows == 0:
        return 0, "No rows are held out, so there is nothing to look at."
    steps = steps_of(recipe, here)
    if steps is None:
        return 20, "About ten looks in a run draw a good curve."
    every = nice(steps / 8)
    looks = steps // every
    return (
        every,
        f"{looks} look{'' if looks == 1 else 's'} in {steps:,} steps draw the curve, and cost little.",
    )


def _save(recipe: Recipe, here: Situation) -> tuple[int, str]:
    steps = steps_of(recipe, here)
    if steps is None:
        return 50, "A few times in a run."
    every = nice(steps / 4)
    return every, f"Of {steps:,} steps at most {every:,} are lost in a crash."


def _samples(recipe: Recipe, here: Situation) -> tuple[int, str]:
    if here.evaluation_rows == 0:
        return 0, "They are held-out prompts, and no rows are held out."
    return 3, "Enough to see the change, and quick to write."


def _table_rate(recipe: Recipe, here: Situation) -> tuple[float | None, str]:
    if not recipe.lora.modules_to_save:
        return None, "No table is trained beside the adapter."
    rate = float(f"{recipe.training.learning_rate / 5:.2g}")
    return (
        rate or None,
        f"A fifth of the rate of {recipe.training.learning_rate:g}: whole tables want smaller steps.",
    )


def _cycles(recipe: Recipe, here: Situation) -> tuple[int, str]:
    schedule, count = recipe.training.schedule, steps_of(recipe, here)
    if schedule != "cosine_with_restarts":
        return 2, f"No effect: the schedule is {schedule}."
    falls = 3 if count is not None and count >= 1000 else 2
    each = f" of about {count // falls:,} steps each" if count else ""
    return falls, f"{falls} falls{each}: time enough to settle."


def _warmup_steps(recipe: Recipe, here: Situation) -> tuple[None, str]:
    count = steps_of(recipe, here)
    if count is None:
        return None, "The share follows the length of the run."
    share = recipe.training.warmup_share
    return None, f"The share of {share:g} makes it {math.ceil(share * count):,} of {count:,} steps."


def _norm(recipe: Recipe, here: Situation) -> tuple[float, str]:
    together, rate = recipe.effective_batch_size, recipe.training.learning_rate
    if rate >= 1e-3 and recipe.lora.method == "full" or together < 4:
        return 0.3, f"With {together} row{'' if together == 1 else 's'} a step one strange row pulls hard."
    return 1.0, f"{together} rows a step even out most of what one strange row pulls."


def _noise(recipe: Recipe, here: Situation) -> tuple[float | None, str]:
    if here.format == "text":
        return None, "It was made for answers; these rows are plain writing."
    if not here.rows or not here.learned_tokens:
        return None, "It helps full answers; how long yours are is known once the rows are counted."
    each = here.learned_tokens / here.rows
    if each < 100:
        return None, f"Answers of about {each:.0f} tokens are meant to be exact; noise makes answers fuller."
    if here.rows > 5000:
        return None, f"{rows_words(here)} are not learned by heart in a few passes."
    return (
        5.0,
        f"{rows_words(here)} with answers of about {each:.0f} tokens: a little noise keeps them from being learned by heart.",
    )


def _held_out_batch(recipe: Recipe, here: Situation) -> tuple[int | None, str]:
    size, held_out = recipe.training.batch_size, here.evaluation_rows
    if held_out == 0:
        return None, "No rows are held out."
    if held_out is None:
        return None, "The batch size is sure to fit."
    batches = math.ceil(held_out / size)
    if batches <= 25 or not here.gpu:
        return (
            None,
            f"{held_out:,} held-out rows are {batches:,} batch{'' if batches == 1 else 'es'} of {size}.",
        )
    twice = min(2 * size, 1024)
    need = needed_gib(recipe, here, {"training.evaluation_batch_size": twice})
    if need is None:
        return None, "The batch size is sure to fit."
    fits = f"{need:.1f} of {free_gib(here):.1f} GiB free"
    if need > ROOM * free_gib(here):
        return None, f"{twice:,} rows at once would take {fits}."
    return twice, f"{batches:,} batches a look; without gradients twice the rows fit at once: {fits}."


def _looks(recipe: Recipe, here: Situation) -> int | None:
    """Evaluations in the run; None where that is not known."""
    count, every = steps_of(recipe, here), recipe.training.evaluate_every_steps
    if here.evaluation_rows == 0 or not every:
        return 0
    return count // every if count is not None else None


def _patience(recipe: Recipe, here: Situation) -> tuple[int | None, str]:
    looks, epochs = _looks(recipe, here), recipe.training.epochs
    if looks == 0:
        return None, "Nothing is held out, or looked at on the way, to go by."
    if epochs <= 2:
        return None, f"Few passes ({epochs:g}) over the rows memorise little."
    if looks is None or looks < 8:
        return None, "There are too few looks on the way to judge by."
    return (
        3,
        f"Rows seen {epochs:g} times are memorised at some point; three of {looks:,} looks without a gain show it.",
    )


def _keep_best(recipe: Recipe, here: Situation) -> tuple[bool, str]:
    if _looks(recipe, here) == 0:
        return True, "It does nothing here: nothing is held out, or looked at on the way."
    if recipe.lora.method == "full":
        return True, "It costs no time: of the checkpoints that are due anyway, the best one stays."
    return True, "The lowest held-out loss may come before the end; where it does not, the last weights stay."


def _kept(recipe: Recipe, here: Situation) -> tuple[int, str]:
    shape = from_facts(here.facts) if here.facts is not None else None
    if shape is None:
        return 2, "One to go on from, and one should that be damaged."
    each = memory_held.gradient_bytes(recipe, shape) + memory_held.optimizer_bytes(recipe, shape)
    disk = here.machine.disk_free_bytes if here.machine is not None else None
    size = bytes_words(each)
    if disk is not None and 3 * each > disk / 2:  # one more stands there while it is written
        return 1, f"Each takes {size}, and {bytes_words(disk)} of disk are free."
    return 2, f"Each takes {size}: one to go on from, and one should that be damaged."


def _prompts(recipe: Recipe, here: Situation) -> tuple[tuple[str, ...], str]:
    asked = recipe.training.sample_prompts
    more = f"; {recipe.training.sample_count} held-out ones follow" if recipe.training.sample_count else ""
    return asked, f"What you will really ask is known to you alone{more}."


def _out_of_memory(recipe: Recipe, here: Situation) -> tuple[str, str]:
    need = needed_gib(recipe, here, {})
    if need is None:
        return "smaller", "It loses nothing: the same is learned in smaller pieces."
    room = f"{need:.1f} of {free_gib(here):.1f} GiB free are predicted"
    return "smaller", f"{room}; should it be more, the same is learned in smaller pieces."


RULES: dict[str, Rule] = {
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
    "training.embedding_learning_rate": _table_rate,
    "training.schedule_cycles": _cycles,
    "training.warmup_steps": _warmup_steps,
    "training.max_grad_norm": _norm,
    "training.neftune_noise_alpha": _noise,
    "training.evaluation_batch_size": _held_out_batch,
    "training.early_stopping_patience": _patience,
    "training.keep_best": _keep_best,
    "training.checkpoints_kept": _kept,
    "training.sample_prompts": _prompts,
    "training.on_out_of_memory": _out_of_memory,
}
