"""The coach: what the curves and readings of a run mean, in words, with the evidence and a way to act on it.

`advise` is pure. Each rule looks at one kind of trouble; its thresholds were set on real runs of that kind and on good ones
(tests/coach). A rule that cannot know says nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .recipe import Recipe
from .runs import events
from .runs.best import nearest
from .runs.curves import Curves
from .runs.series import Point
from .text import bytes_words, counted

Level = Literal["trouble", "warning", "hint"]
Act = Literal["stop", "duplicate", "best"]

LEVELS: tuple[Level, ...] = ("trouble", "warning", "hint")
CHECKPOINT_BYTES_PER_WEIGHT = 12
"""A checkpoint's share of each trained weight: the adapter in 32 bit and Adam's two moments."""
CHECKPOINT_REST_BYTES = 64 * 1024 * 1024
"""Tokenizer, states of the trainer and of the random numbers, generously."""
SETTLED = 10
"""Steps before which a curve says nothing."""


@dataclass(frozen=True)
class Action:
    """What the person can do about it. `stop` saves and stops the run; `duplicate` opens a new one with `changes`, pairs of a
    recipe's field and its value; `best` goes back to the checkpoint of `step`."""

    act: Act
    words: str
    changes: tuple[tuple[str, object], ...] = ()
    step: int = 0


@dataclass(frozen=True)
class Advice:
    """One finding: what it is, the figures that show it, and what to do."""

    rule: str
    level: Level
    sentence: str
    evidence: str
    action: Action | None = None


@dataclass(frozen=True)
class Seen:
    """What is known of a run. `readings` are the newest of the machine, oldest first, those of training alone; `memory` is
    (seconds, bytes held by the run) over the whole of it."""

    curves: Curves
    total_steps: int = 0
    recipe: Recipe | None = None
    model: events.ModelReady | None = None
    dataset: events.DatasetReady | None = None
    step: events.Step | None = None
    readings: Sequence[events.Device] = ()
    memory: Sequence[Point] = field(default=())
    live: bool = True
    checkpoints: Sequence[int] = ()
    """The steps after which one was saved."""


def advise(seen: Seen) -> list[Advice]:
    """Everything that the rules find, what needs the person most first."""
    found = [advice for rule in RULES if (advice := rule(seen)) is not None]
    names = {advice.rule for advice in found}
    hidden = {other for name in names for other in _COVERS.get(name, ())}
    found = [advice for advice in found if advice.rule not in hidden]
    return sorted(found, key=lambda advice: LEVELS.index(advice.level))


# ── Figures that the rules share ──


def _mean(points: Sequence[Point]) -> float:
    return statistics.fmean(y for _, y in points) if points else math.nan


def _began(seen: Seen) -> float:
    """The loss before anything was learned: the mean of the first three steps."""
    return _mean(seen.curves.loss.view(0, 3, 8)[:3])


def _now(seen: Seen, count: int = 10) -> float:
    """The loss of late: the median of the newest steps, which one odd batch does not move."""
    return statistics.median(y for _, y in seen.curves.loss.recent(count))


def _share(seen: Seen) -> float:
    return seen.curves.newest / seen.total_steps if seen.total_steps > 0 else 0.0


def _rate(seen: Seen) -> tuple[float, float]:
    """The learning rate now, and at its highest."""
    rates = seen.curves.rate.points()
    return (rates[-1][1], max(y for _, y in rates)) if rates else (0.0, 0.0)


def _stop(words: str = "save and stop") -> Action:
    return Action("stop", words)


def _rated(seen: Seen, factor: float) -> Action | None:
    """A new run with the learning rate times `factor`, rounded to one digit."""
    if seen.recipe is None:
        return None
    wanted = seen.recipe.training.learning_rate * factor
    power = 10.0 ** math.floor(math.log10(wanted))
    rate = min(0.1, float(f"{round(wanted / power) * power:.0e}"))
    return Action("duplicate", f"new run at rate {_sci(rate)}", (("training.learning_rate", rate),))


def _sci(value: float) -> str:
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


# ── The curve ──


def not_a_number(seen: Seen) -> Advice | None:
    """Losses that are no number."""
    loss = seen.curves.loss
    if not loss.bad or (loss.last_x is not None and loss.last_x >= seen.curves.newest and loss.bad < 3):
        return None
    return Advice(
        "nan",
        "trouble",
        "The loss is not a number any more: the weights are broken, and they do not come back.",
        f"{loss.bad} step{'' if loss.bad == 1 else 's'} without a finite loss; the last good one was step {loss.last_x or 0:,.0f}.",
        _rated(seen, 0.2),
    )


def zero(seen: Seen) -> Advice | None:
    """Losses of exactly 0: nothing is trained on."""
    newest = seen.curves.loss.recent(5)
    if len(newest) < 5 or any(y != 0.0 for _, y in newest):
        return None
    return Advice(
        "zero",
        "trouble",
        "The loss is exactly 0: no token counts, so nothing is learned. The loss mask hides every answer.",
        f"Steps {newest[0][0]:,.0f} to {newest[-1][0]:,.0f} are all 0.",
        _stop("stop"),
    )


def diverging(seen: Seen) -> Advice | None:
    """A loss that left its valley for good."""
    curves = seen.curves
    if curves.loss.total < SETTLED:
        return None
    low = min(curves.average.points(), key=lambda point: point[1])
    now, least = _now(seen, 5), low[1]
    noise = statistics.pstdev([y for x, y in curves.loss.points() if x <= low[0]][-30:] or [0.0])
    newest = [y for _, y in curves.loss.recent(5)]
    over = max(1.25 * least, least + 3 * noise, least + 0.3)
    if not (now > over and sum(y > over for y in newest) >= 4):
        return None
    return Advice(
        "diverging",
        "trouble",
        "It is diverging: the loss climbed away from its low and stays up. The learning rate is too high.",
        f"Loss {now:.2f} now against {least:.2f} around step {low[0]:,.0f}.",
        _rated(seen, 0.1),
    )


def rate_too_high(seen: Seen) -> Advice | None:
    """Steps that overshoot: gradients explode again and again, and the loss no longer falls."""
    norms = seen.curves.norm.recent(150)
    if len(norms) < 30:
        return None
    usual = statistics.median(y for _, y in norms)
    wild = [x for x, y in norms if y > max(1.0, 10 * usual)]
    low = seen.curves.average.low
    if len(wild) < 4 or low is None or _now(seen, 20) < 1.01 * low[1]:
        return None
    return Advice(
        "rate-too-high",
        "warning",
        "The learning rate is too high: steps overshoot, and the loss stays above what it had reached.",
        f"{len(wild)} of the last {len(norms)} steps had a gradient norm over {max(1.0, 10 * usual):.2g}; loss {_now(seen, 20):.3f}, "
        f"lowest {low[1]:.3f}.",
        _rated(seen, 0.2),
    )


def rate_too_low(seen: Seen) -> Advice | None:
    """Steps too small to get anywhere."""
    curves = seen.curves
    norms = curves.norm.points()
    if curves.loss.total < 40 or len(norms) < 40:
        return None
    began, now = _began(seen), _now(seen, 15)
    early, late = statistics.median(y for _, y in norms[:10]), statistics.median(y for _, y in norms[-10:])
    _, peak = _rate(seen)
    evaluations = curves.evaluations.points()
    fell = (evaluations[0][1] - evaluations[-1][1]) / evaluations[0][1] if len(evaluations) > 1 else 0.0
    if not (now > 0.94 * began and now < 1.15 * began and late > 0.7 * early and fell < 0.06 and peak < 2e-3):
        return None
    return Advice(
        "rate-too-low",
        "warning",
        "The learning rate is too low: the steps are so small that the loss hardly moves.",
        f"Loss {began:.2f} at the start, {now:.2f} after {curves.newest:,} steps at a rate of {_sci(peak)}; the gradient is as large "
        "as at first.",
        _rated(seen, 10.0 if peak >= 2e-5 else 100.0),
    )


def overfitting(seen: Seen) -> Advice | None:
    """The held-out loss rises while the training loss falls."""
    curves = seen.curves
    points, best = curves.evaluations.points(), curves.best
    if best is None or len(points) < 3:
        return None
    after = [(x, y) for x, y in points if x > best[0]]
    if len(after) < 2 or any(y < 1.02 * best[1] + 0.002 for _, y in after[-2:]):
        return None
    averages = curves.average
    then = _mean(averages.view(best[0] - 3, best[0], 4)[-3:])
    now = averages.last
    if now is None or now > 0.95 * then:
        return None
    epoch = curves.places.of(best[0], "epoch")
    shorter = max(0.1, round(epoch, 1))
    fewer = Action("duplicate", f"new run of {counted(shorter, 'epoch')}", (("training.epochs", shorter),))
    return Advice(
        "overfitting",
        "warning",
        f"It memorises: held-out loss rises while training loss falls. It was best at step {best[0]:,.0f}.",
        f"Held-out {best[1]:.3f} at step {best[0]:,.0f}, {after[-1][1]:.3f} at step {after[-1][0]:,.0f}; training {then:.3f}, then {now:.3f}.",
        _stop() if seen.live else _back(seen, best[0]) or (fewer if seen.recipe is not None else None),
    )


def _back(seen: Seen, best: float) -> Action | None:
    """Back to the checkpoint of the best step, where there is one and the run did not end with it by itself."""
    step = nearest(seen.checkpoints, best)
    if step is None or seen.recipe is None or seen.recipe.training.keep_best:
        return None
    return Action("best", f"go back to step {step:,}", step=step)


def plateau(seen: Seen) -> Advice | None:
    """Nothing more is gained, although the rate is still up."""
    curves = seen.curves
    last = curves.newest
    rate, peak = _rate(seen)
    if curves.loss.total < 120 or rate < 0.3 * peak:
        return None
    wide = max(40, last // 6)
    before = [y for _, y in curves.loss.view(last - 2 * wide, last - wide, 512)]
    after = [y for _, y in curves.loss.view(last - wide, last, 512)]
    if len(before) < 10 or len(after) < 10:
        return None
    was, now = statistics.median(before), statistics.median(after)
    if was - now > 0.006 * was or now > 1.1 * was or now < 0.02:
        return None
    checks = curves.evaluations.points()
    old = [y for x, y in checks if x <= last - 2 * wide]
    new = [y for x, y in checks if x > last - 2 * wide]
    if checks and (not old or len(new) < 2 or min(new) < 0.994 * min(old)):
        return None
    return Advice(
        "plateau",
        "hint",
        "It has stopped learning: the loss has been level for a third of the run.",
        f"Median loss {was:.3f} over steps {last - 2 * wide:,} to {last - wide:,}, {now:.3f} since.",
        _stop() if seen.live else None,
    )


def underfitting(seen: Seen) -> Advice | None:
    """At the end the loss is about where it began."""
    curves = seen.curves
    if _share(seen) < 0.9 or curves.loss.total < 20:
        return None
    began, now = _began(seen), _now(seen, 20)
    if now < 0.85 * began or now > 1.15 * began:
        return None
    longer: Action | None = None
    if seen.recipe is not None and seen.recipe.training.max_steps is None:
        epochs = min(1000.0, 3 * seen.recipe.training.epochs)
        longer = Action("duplicate", f"new run of {counted(epochs, 'epoch')}", (("training.epochs", epochs),))
    return Advice(
        "underfitting",
        "warning",
        "It has learned little: the loss ends near where it began. Train longer, at a higher rate, or with a larger rank.",
        f"Loss {began:.2f} at the start, {now:.2f} after {curves.newest:,} of {seen.total_steps:,} steps.",
        longer or _rated(seen, 3.0),
    )


def gradient_spikes(seen: Seen) -> Advice | None:
    """One batch in many pulls far harder than the others."""
    norms = seen.curves.norm.recent(300)
    if len(norms) < 30 or seen.curves.norm.total < 40:
        return None
    usual = statistics.median(y for _, y in norms)
    wild = [(x, y) for x, y in norms if x > SETTLED and y > max(2.0, 10 * usual)]
    if not wild:
        return None
    worst = max(wild, key=lambda point: point[1])
    return Advice(
        "gradient-spikes",
        "hint",
        "Single batches pull very hard: look for odd rows (very long, garbled, in another format) in the data.",
        f"Gradient norm {worst[1]:.3g} at step {worst[0]:,.0f}, usually {usual:.2g}; {len(wild)} such step{'' if len(wild) == 1 else 's'}. "
        "Each is clipped to 1.",
    )


# ── The machine ──


def _gpu_readings(seen: Seen, least: int = 30) -> list[events.Device]:
    found = [r for r in seen.readings if r.device.startswith("cuda")]
    return found if len(found) >= least else []


def starving(seen: Seen) -> Advice | None:
    """The GPU waits for something."""
    busy = [r.utilization_percent for r in _gpu_readings(seen) if r.utilization_percent is not None]
    if len(busy) < 30:
        return None
    usual = statistics.median(busy)
    if usual >= 45:
        return None
    action: Action | None = None
    if seen.recipe is not None:
        batch = min(1024, 2 * seen.recipe.training.batch_size)
        action = Action("duplicate", f"new run with batch {batch}", (("training.batch_size", batch),))
    return Advice(
        "starving",
        "hint",
        "The GPU waits most of the time: the batches are too small, or rows do not come fast enough.",
        f"Half of the last {len(busy)} readings are under {usual:.0f} % busy.",
        action,
    )


def small_batch(seen: Seen) -> Advice | None:
    """Most of the card's memory stays empty while it is not fully busy."""
    readings = _gpu_readings(seen)
    busy = [r.utilization_percent for r in readings if r.utilization_percent is not None]
    if not readings or len(busy) < 30 or seen.recipe is None:
        return None
    last = readings[-1]
    peak, total, others = last.peak_reserved_bytes, last.total_bytes, last.others_bytes or 0
    training = seen.recipe.training
    usual = statistics.median(busy)
    if peak is None or not total or peak + others > 0.4 * total or usual >= 85 or training.batch_size >= 32:
        return None
    batch = min(32, 2 * training.batch_size)
    rest = max(1, training.gradient_accumulation_steps // 2)
    return Advice(
        "small-batch",
        "hint",
        "The batch is small for this card: a larger one would train faster in memory that stands empty.",
        f"At most {bytes_words(peak)} of {bytes_words(total)} were held, and the card is {usual:.0f} % busy.",
        Action(
            "duplicate",
            f"new run with batch {batch} × {rest}",
            (("training.batch_size", batch), ("training.gradient_accumulation_steps", rest)),
        ),
    )


def creeping(seen: Seen) -> Advice | None:
    """The run holds more and more memory, and will not get to its end."""
    held = list(seen.memory)
    if len(held) < 60 or seen.step is None:
        return None
    device = seen.readings[-1] if seen.readings else None
    total = device.total_bytes if device is not None else None
    if not total:
        return None
    start, end = held[0][0], held[-1][0]
    settled = [(t, b) for t, b in held if t >= start + (end - start) * 0.3]
    quarter = max(1, len(settled) // 4)
    levels = [statistics.median(b for _, b in settled[i * quarter : (i + 1) * quarter]) for i in range(4)]
    rises = [b - a for a, b in zip(levels, levels[1:], strict=False)]
    if end - start < 120 or min(rises) < 0.004 * total:
        return None
    pace = (levels[-1] - levels[0]) / ((end - start) * 0.7 * 0.75)
    free = total - levels[-1] - (device.others_bytes or 0 if device is not None else 0)
    left = (end - start) * (1 / max(_share(seen), 0.01) - 1)
    if pace <= 0 or free / pace > left:
        return None
    return Advice(
        "creeping",
        "warning",
        "The memory that the run holds keeps growing, and will run out before the end. Save now, so that nothing is lost.",
        f"{bytes_words(levels[0])}, then {bytes_words(levels[-1])}; {bytes_words(max(0, free))} are left.",
        _stop() if seen.live else None,
    )


def throttling(seen: Seen) -> Advice | None:
    """The card slows itself down for heat or for want of power."""
    told = [r for r in _gpu_readings(seen) if r.throttling is not None][-60:]
    if len(told) < 30:
        return None
    hot = [r for r in told if any(reason in HEAT for reason in r.throttling or ())]
    if len(hot) < len(told) / 2:
        return None
    reasons = sorted({reason for r in hot for reason in r.throttling or () if reason in HEAT})
    heat = [r.temperature_celsius for r in hot if r.temperature_celsius is not None]
    at = f", at up to {max(heat):.0f} °C" if heat else ""
    return Advice(
        "throttling",
        "hint",
        "The card slows itself down: better cooling or a free slot beside it would make this run faster.",
        f"{len(hot)} of the last {len(told)} readings name {' and '.join(reasons)}{at}.",
    )


HEAT = ("heat", "hardware slowdown", "power brake")
"""The reasons of `Device.throttling` that someone should look after; a card at its power limit is at its usual work."""


def disk(seen: Seen) -> Advice | None:
    """The next checkpoint does not fit on the disk."""
    if seen.model is None or not seen.readings or not seen.live:
        return None
    free = seen.readings[-1].disk_free_bytes
    needed = seen.model.trainable * CHECKPOINT_BYTES_PER_WEIGHT + CHECKPOINT_REST_BYTES
    if free is None or free > needed:
        return None
    return Advice(
        "disk",
        "trouble",
        "The next checkpoint will not fit on the disk. Make room now: the run goes on, but what it learns is not saved.",
        f"A checkpoint needs about {bytes_words(needed)}, and {bytes_words(free)} are free.",
    )


RULES: tuple[Callable[[Seen], Advice | None], ...] = (
    not_a_number,
    zero,
    disk,
    diverging,
    overfitting,
    creeping,
    rate_too_high,
    rate_too_low,
    underfitting,
    plateau,
    gradient_spikes,
    starving,
    small_batch,
    throttling,
)
_COVERS = {
    "nan": ("diverging", "rate-too-high", "gradient-spikes", "plateau", "underfitting"),
    "zero": ("plateau", "overfitting", "underfitting"),
    "diverging": ("rate-too-high", "gradient-spikes", "plateau", "underfitting", "overfitting"),
    "rate-too-high": ("gradient-spikes", "plateau", "underfitting"),
    "rate-too-low": ("underfitting", "plateau"),
    "overfitting": ("plateau",),
    "starving": ("small-batch",),
}
"""What a finding explains already, so that it is not said twice."""
