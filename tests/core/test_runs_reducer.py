"""Events folded into what is known of a run: the time left, in any order, and twice."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetui.core.runs import state, store
from finetui.core.runs.event_log import Record
from finetui.core.runs.events import (
    Ended,
    Evaluation,
    Event,
    Progress,
    Scored,
    Started,
)

from .run_events import HOST, step


class Clock:
    """A wall clock that may jump, beside a monotonic one that does not."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1000.0, 50.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def test_the_time_left_falls_between_steps_and_ignores_jumps_of_the_clock() -> None:
    clock = Clock()
    reducer = state.Reducer(monotonic=lambda: clock.monotonic, wall=lambda: clock.wall)
    reducer.add(Record(1, clock.wall, Started("train", 1, 1.0, HOST)))
    for n in range(1, 6):
        clock.pass_(2)
        reducer.add(Record(n + 1, clock.wall, step(n, total=20)))
    assert reducer.eta_seconds() == pytest.approx(30.0)
    clock.pass_(1)
    assert reducer.eta_seconds() == pytest.approx(29.0)
    clock.wall += 3600
    assert reducer.eta_seconds() == pytest.approx(29.0)
    clock.wall -= 7200
    assert reducer.eta_seconds() == pytest.approx(29.0)
    clock.pass_(1)
    reducer.add(Record(7, clock.wall, step(6, total=20)))
    assert reducer.eta_seconds() == pytest.approx(28.0)
    clock.pass_(1000)
    assert reducer.eta_seconds() == 26.0


def test_evaluations_count_in_the_time_left() -> None:
    reducer = state.Reducer()
    ts = time.time()
    reducer.add(Record(1, ts, Started("train", 1, 1.0, HOST)))
    for n in (1, 2):
        reducer.add(Record(n + 1, ts, step(n, total=12)))
    assert reducer.seconds_per_step() == pytest.approx(2.0)
    reducer.add(Record(4, ts, Evaluation(2, 1.0, seconds=4.0)))
    assert reducer.seconds_per_step() == pytest.approx(4.0)


anything = st.floats(allow_nan=True, allow_infinity=True, width=64)
happenings = st.one_of(
    st.builds(step, st.integers(0, 50), anything, st.integers(0, 50), anything),
    st.builds(Evaluation, st.integers(0, 50), anything, anything),
    st.builds(Progress, st.sampled_from(["train", "load", "odd"]), anything, anything),
    st.builds(lambda job: Started(job, 1, 1.0, "far-away"), st.sampled_from(["train", "resume", "export"])),
    st.builds(Ended, st.just("train"), st.sampled_from(["completed", "stopped", "failed", "?"]), anything),
    st.builds(Scored, st.integers(0, 40)),
)
records = st.builds(
    Record, st.integers(0, 30), st.floats(0, 2e9, allow_nan=False, allow_infinity=False), happenings
)


@settings(deadline=None)
@given(st.lists(records, max_size=40))
def test_any_order_of_any_events_gives_a_status(
    tmp_path_factory: pytest.TempPathFactory, some: list[Record]
) -> None:
    folder = store.RunFolder(tmp_path_factory.getbasetemp() / "none-such")
    reducer = state.Reducer()
    for record in some:
        reducer.add(record)
    seen = state.derive(reducer, folder)
    assert seen.state in ("starting", "running", "completed", "stopped", "failed", "crashed")
    assert seen.eta_seconds is None or seen.eta_seconds >= 0
    assert seen.seconds >= 0 or math.isnan(seen.seconds)
    assert (seen.card is not None) == (seen.state in ("failed", "crashed"))


@settings(deadline=None)
@given(st.lists(st.tuples(happenings, st.booleans()), min_size=1, max_size=30))
def test_duplicates_change_nothing(some: list[tuple[Event, bool]]) -> None:
    def fold(doubled: bool) -> state.Reducer:
        reducer = state.Reducer(monotonic=lambda: 0.0, wall=lambda: 1e9)
        for i, (event, twice) in enumerate(some):
            for _ in range(1 + (twice and doubled)):
                reducer.add(Record(i + 1, 1000.0 + i, event))
        return reducer

    once, twice = fold(False), fold(True)
    assert repr(once.step) == repr(twice.step)
    assert repr(once.best) == repr(twice.best)
    assert repr(once._times) == repr(twice._times)
    assert (once.ended, once.warnings, once._attempt_steps) == (
        twice.ended,
        twice.warnings,
        twice._attempt_steps,
    ) or any(isinstance(e, Ended) and math.isnan(e.seconds) for e, _ in some)
