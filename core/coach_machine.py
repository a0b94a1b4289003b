"""The coach's rules on the machine: a GPU that waits or slows down, memory and disk that run out."""

from __future__ import annotations

import statistics

from .coach_seen import Action, Advice, Seen, share, stop
from .runs import events
from .text import bytes_words

CHECKPOINT_BYTES_PER_WEIGHT = 12
"""A checkpoint's share of each trained weight: the adapter in 32 bit and Adam's two moments."""
CHECKPOINT_REST_BYTES = 64 * 1024 * 1024
"""Tokenizer, states of the trainer and of the random numbers, generously."""
HEAT = ("heat", "hardware slowdown", "power brake")
"""The reasons of `Device.throttling` that someone should look after; a card at its power limit is at its usual work."""


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
    left = (end - start) * (1 / max(share(seen), 0.01) - 1)
    if pace <= 0 or free / pace > left:
        return None
    return Advice(
        "creeping",
        "warning",
        "The memory that the run holds keeps growing, and will run out before the end. Save now, so that nothing is lost.",
        f"{bytes_words(levels[0])}, then {bytes_words(levels[-1])}; {bytes_words(max(0, free))} are left.",
        stop() if seen.live else None,
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
