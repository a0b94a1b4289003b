"""The coach's rules on the curves: losses, gradient norms and held-out losses that are not as they should be."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from .coach_seen import Action, Advice, Seen, share, stop
from .runs.best import clearly_above, nearest
from .runs.series import Point
from .text import counted

SETTLED = 10
"""Steps before which a curve says nothing."""


def _mean(points: Sequence[Point]) -> float:
    return statistics.fmean(y for _, y in points) if points else math.nan


def _began(seen: Seen) -> float:
    """The loss before anything was learned: the mean of the first three steps."""
    return _mean(seen.curves.loss.view(0, 3, 8)[:3])


def _now(seen: Seen, count: int = 10) -> float:
    """The loss of late: the median of the newest steps, which one odd batch does not move."""
    return statistics.median(y for _, y in seen.curves.loss.recent(count))


def _rate(seen: Seen) -> tuple[float, float]:
    """The learning rate now, and at its highest."""
    rates = seen.curves.rate.points()
    return (rates[-1][1], max(y for _, y in rates)) if rates else (0.0, 0.0)


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
        stop("stop"),
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
    rates = curves.rate.points()
    _, peak = _rate(seen)
    risen = next((x for x, y in rates if y > 0.99 * peak), 0.0)
    if curves.newest - risen < 20:  # it is still warming up, or has hardly been at full rate
        return None
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
    if len(after) < 2 or not all(clearly_above(y, best[1]) for _, y in after[-2:]):
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
        stop() if seen.live else _back(seen, best[0]) or (fewer if seen.recipe is not None else None),
    )


def _back(seen: Seen, best: float) -> Action | None:
    """Back to the checkpoint of the best step, where there is one and the run did not end with it by itself."""
    step = nearest(seen.checkpoints, best)
    if step is None or seen.recipe is None or seen.ended_with_best:
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
        stop() if seen.live else None,
    )


def underfitting(seen: Seen) -> Advice | None:
    """At the end the loss is about where it began."""
    curves = seen.curves
    if share(seen) < 0.9 or curves.loss.total < 20:
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
    limit = seen.recipe.training.max_grad_norm if seen.recipe is not None else None
    clipped = (
        "" if limit is None else f" Each is clipped to {limit:g}." if limit else " None of them is clipped."
    )
    return Advice(
        "gradient-spikes",
        "hint",
        "Single batches pull very hard: look for odd rows (very long, garbled, in another format) in the data.",
        f"Gradient norm {worst[1]:.3g} at step {worst[0]:,.0f}, usually {usual:.2g}; {len(wild)} such step{'' if len(wild) == 1 else 's'}."
        f"{clipped}",
    )
