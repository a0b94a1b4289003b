"""The coach against real runs: it speaks of each kind, and is silent on the good ones at every one of their moments."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetui.core.coach import advise
from finetui.core.coach_seen import Action, Advice, Seen
from finetui.core.runs import events
from finetui.core.runs.curves import Curves
from finetui.core.system import throttle_reasons

from .reading import NAMES, load, moments

GIB = 1024**3
GOOD = ("good-demo", "good-small-rate", "tiny-good", "tiny-odd-rows", "tiny-long-warmup")
KINDS = {
    "diverging": "diverging",
    "too-high": "diverging",
    "overfitting": "overfitting",
    "too-low": "rate-too-low",
    "tiny-too-low": "rate-too-low",
    "tiny-rate-too-high": "rate-too-high",
    "tiny-plateau": "plateau",
    "tiny-diverging": "plateau",
    "gpu-demo": "starving",
    "gpu-small-batch": "starving",
}


def found_along(name: str) -> tuple[dict[str, tuple[int, Advice]], set[str]]:
    """What was said first of each rule, with its step; and what is said at the end."""
    first: dict[str, tuple[int, Advice]] = {}
    last: list[Advice] = []
    for step, seen in moments(name):
        last = advise(seen)
        for advice in last:
            first.setdefault(advice.rule, (step, advice))
    return first, {advice.rule for advice in last}


def test_every_recording_is_judged() -> None:
    assert set(NAMES) == {*GOOD, *KINDS}


@pytest.mark.parametrize("name", GOOD)
def test_no_rule_cries_wolf_on_a_good_run(name: str) -> None:
    assert found_along(name)[0] == {}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_kind_is_found(name: str) -> None:
    first, _ = found_along(name)
    assert KINDS[name] in first
    for _, advice in first.values():
        assert advice.sentence.endswith(".") and advice.evidence.endswith(".")
        assert any(mark.isdigit() for mark in advice.evidence)


def test_what_is_found_in_time_and_with_its_figures() -> None:
    first, last = found_along("diverging")
    step, advice = first["diverging"]
    assert step <= 12 and last == {"diverging"}
    assert advice.action is not None and advice.action.changes == (("training.learning_rate", 0.01),)
    first, last = found_along("overfitting")
    step, advice = first["overfitting"]
    assert step <= 25 and last == {"overfitting"} and "best at step 10" in advice.sentence
    assert advice.action == Action("stop", "save and stop")
    ended = [replace(seen, live=False) for _, seen in moments("overfitting")][-1]
    action = advise(ended)[0].action
    assert action is not None and action.act == "duplicate"
    assert action.changes == (("training.epochs", 2.5),)  # step 10 of 72, 18 epochs in all
    assert found_along("too-low")[0]["rate-too-low"][0] == 40
    assert "underfitting" in found_along("tiny-diverging")[1]


# ── What no CPU run reaches: made of a real run's figures, or of readings as a card gives them (not recorded on one) ──


def good(steps: int = 60) -> Seen:
    return [seen for step, seen in moments("good-small-rate") if step <= steps][-1]


def spoiled(*losses: float) -> Seen:
    """A good run that goes on with `losses`."""
    seen = good(40)
    for n, loss in enumerate(losses, 41):
        seen.curves.add(1e9 + n, n, 0.5, loss, 1e-4, 0.5, n)
    return seen


def test_losses_that_are_no_number_or_exactly_zero() -> None:
    assert [a.rule for a in advise(spoiled(float("nan")))] == ["nan"]
    assert [a.rule for a in advise(spoiled(float("nan"), float("inf"), float("nan")))] == ["nan"]
    assert "last good one was step 40" in advise(spoiled(float("nan")))[0].evidence
    assert [a.rule for a in advise(spoiled(*[0.0] * 5))] == ["zero"]
    assert advise(spoiled(*[0.0] * 4)) == []


def test_one_batch_that_pulls_hard_is_named() -> None:
    seen = good(60)
    seen.curves.add(1e9, 61, 0.7, 0.7, 1e-5, 48.0, 61)
    (advice,) = advise(seen)
    assert advice.rule == "gradient-spikes" and "48 at step 61" in advice.evidence
    for limit, words in (
        (1.0, "Each is clipped to 1."),
        (0.3, "clipped to 0.3."),
        (0.0, "None of them is clipped."),
    ):
        assert seen.recipe is not None
        training = seen.recipe.training.model_copy(update={"max_grad_norm": limit})
        limited = replace(seen, recipe=seen.recipe.model_copy(update={"training": training}))
        assert advise(limited)[0].evidence.endswith(words)


def card(**values: object) -> events.Device:
    figures: dict[str, object] = {
        "total_bytes": 24 * GIB,
        "reserved_bytes": 15 * GIB,
        "peak_reserved_bytes": 16 * GIB,
        "others_bytes": 0,
        "utilization_percent": 97.0,
        "temperature_celsius": 71.0,
        "throttling": ("power limit",),
        "disk_free_bytes": 500 * GIB,
        **values,
    }
    return events.Device("cuda:0", "RTX", **figures)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({}, None),
        ({"utilization_percent": None, "throttling": None, "peak_reserved_bytes": None}, None),
        ({"utilization_percent": 22.0}, "starving"),
        ({"utilization_percent": 70.0, "peak_reserved_bytes": 5 * GIB}, "small-batch"),
        ({"throttling": ("heat",), "temperature_celsius": 88.0}, "throttling"),
        ({"disk_free_bytes": 10 * 1024**2}, "disk"),
    ],
)
def test_readings_of_a_card(values: dict[str, object], rule: str | None) -> None:
    seen = replace(good(), readings=[card(**values)] * 60)
    assert [advice.rule for advice in advise(seen)] == ([rule] if rule else [])


def test_few_readings_are_no_evidence() -> None:
    assert advise(replace(good(), readings=[card(utilization_percent=5.0)] * 20)) == []


def test_memory_that_creeps_is_found_and_memory_that_settles_is_not() -> None:
    seen = replace(good(40), total_steps=4000, readings=[card()] * 60)
    creeping = [(float(t), 15 * GIB + t * 8e6) for t in range(300)]
    assert [a.rule for a in advise(replace(seen, memory=creeping))] == ["creeping"]
    settled = [(float(t), 15 * GIB + min(t, 60) * 8e6) for t in range(300)]
    assert advise(replace(seen, memory=settled)) == []


def test_nothing_is_said_of_nothing() -> None:
    assert advise(Seen(Curves())) == []
    assert load("good-demo").recipe.training.learning_rate == 1e-3


def test_reasons_of_a_slow_card_in_words() -> None:
    assert throttle_reasons(0) == throttle_reasons(0x1) == ()  # an idle card is not held back
    assert throttle_reasons(0x4 | 0x20 | 0x40) == ("power limit", "heat")
