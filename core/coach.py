"""The coach: what the curves and readings of a run mean, in words, with the evidence and a way to act on it.

`advise` is pure. Each rule looks at one kind of trouble; its thresholds were set on real runs of that kind and on good ones
(tests/coach). A rule that cannot know says nothing.
"""

from __future__ import annotations

from . import coach_curve, coach_machine
from .coach_seen import LEVELS, Advice, Rule, Seen


def advise(seen: Seen) -> list[Advice]:
    """Everything that the rules find, what needs the person most first."""
    found = [advice for rule in RULES if (advice := rule(seen)) is not None]
    names = {advice.rule for advice in found}
    hidden = {other for name in names for other in _COVERS.get(name, ())}
    found = [advice for advice in found if advice.rule not in hidden]
    return sorted(found, key=lambda advice: LEVELS.index(advice.level))


RULES: tuple[Rule, ...] = (
    coach_curve.not_a_number,
    coach_curve.zero,
    coach_machine.disk,
    coach_curve.diverging,
    coach_curve.overfitting,
    coach_machine.creeping,
    coach_curve.rate_too_high,
    coach_curve.rate_too_low,
    coach_curve.underfitting,
    coach_curve.plateau,
    coach_curve.gradient_spikes,
    coach_machine.starving,
    coach_machine.small_batch,
    coach_machine.throttling,
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
