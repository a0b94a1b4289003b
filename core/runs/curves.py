"""The figures of a run over its length, in bounded memory: loss, rate and norm by step, and what else a step can be counted in."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from typing import Literal

from . import events
from .series import Point, Pyramid, Smoothed

Axis = Literal["step", "tokens", "time", "epoch"]
AXES: tuple[Axis, ...] = ("step", "tokens", "time", "epoch")

KNOTS = 4096


class Places:
    """Where each step lies in tokens, seconds and epochs: knots that rise, and straight lines between them."""

    __slots__ = ("_epochs", "_every", "_seconds", "_skipped", "_steps", "_tokens")

    def __init__(self) -> None:
        self._steps: array[float] = array("d")
        self._tokens: array[float] = array("d")
        self._seconds: array[float] = array("d")
        self._epochs: array[float] = array("d")
        self._every = 1
        self._skipped = 0

    def add(self, step: float, tokens: float, seconds: float, epoch: float) -> None:
        """Adds a knot; beyond `KNOTS` every other one goes. Columns that fall back stay where they were."""
        columns = (self._steps, self._tokens, self._seconds, self._epochs)
        self._skipped += 1
        if self._skipped < self._every and self._steps:
            for column in columns:  # the newest knot moves along
                column.pop()
        else:
            self._skipped = 0
        for column, value in zip(columns, (step, tokens, seconds, epoch), strict=True):
            column.append(max(value, column[-1]) if column and math.isfinite(value) else value)
        if len(self._steps) > KNOTS:
            for column in columns:
                last = column[-1]
                del column[1::2]
                column.append(last) if column[-1] != last else None
            width = min(map(len, columns))
            for column in columns:
                del column[width:]
            self._every *= 2

    def cut(self, step: float) -> None:
        """Forgets the knots at `step` and after it."""
        at = bisect_left(self._steps, step)
        for column in (self._steps, self._tokens, self._seconds, self._epochs):
            del column[at:]

    def _column(self, axis: Axis) -> array[float]:
        return {"step": self._steps, "tokens": self._tokens, "time": self._seconds, "epoch": self._epochs}[
            axis
        ]

    def of(self, step: float, axis: Axis) -> float:
        """`step` counted in `axis`; beyond the newest knot along a straight line from the first."""
        steps, values = self._steps, self._column(axis)
        if axis == "step" or not steps:
            return step
        at = bisect_right(steps, step)
        if 0 < at < len(steps):
            before, after = steps[at - 1], steps[at]
            share = (step - before) / (after - before)
            return values[at - 1] + share * (values[at] - values[at - 1])
        last = steps[-1]
        if at == len(steps) and step == last:
            return values[-1]
        pace = values[-1] / last if last else 0.0
        if at == 0:
            return values[0] * (step / steps[0]) if steps[0] else values[0]
        return values[-1] + (step - last) * pace

    def step_at(self, value: float, axis: Axis) -> float:
        """The step at `value` of `axis`; the other way of `of`."""
        steps, values = self._steps, self._column(axis)
        if axis == "step" or not steps:
            return value
        at = bisect_left(values, value)
        if at == 0:
            return steps[0] * (value / values[0]) if values[0] else 0.0
        if at == len(values):
            pace = values[-1] / steps[-1] if steps[-1] else 0.0
            return steps[-1] + (value - values[-1]) / pace if pace else steps[-1]
        low, high = values[at - 1], values[at]
        share = (value - low) / (high - low) if high > low else 0.0
        return steps[at - 1] + share * (steps[at] - steps[at - 1])


class Curves:
    """What each step told. A resume that goes back cuts off what it does again. Memory is bounded."""

    def __init__(self) -> None:
        self.loss = Pyramid()
        self.average = Pyramid()
        """The loss smoothed over about ten steps."""
        self.rate = Pyramid()
        self.norm = Pyramid()
        self.speed = Pyramid()
        """Trained tokens a second."""
        self.evaluations = Pyramid()
        self.places = Places()
        self.steps = 0
        """Steps that were taken in."""
        self.first_loss: float | None = None
        self.newest = 0
        self.best: Point | None = None
        """The lowest evaluation as (step, loss), of those that count still."""
        self.rewinds = 0
        """How often history was rewritten."""
        self._smoothing = Smoothed()
        self._seconds = 0.0
        self._ts: float | None = None

    def begin(self, ts: float) -> None:
        """A worker took the run up at `ts`: the time before it does not count as training."""
        self._ts = ts

    def add(
        self,
        ts: float,
        step: int,
        epoch: float,
        loss: float,
        rate: float,
        norm: float | None,
        tokens: int,
        speed: float | None = None,
    ) -> None:
        """Takes one step in."""
        if step <= self.newest and self.steps:
            self._rewind(step)
        self.newest = step
        self.steps += 1
        if self._ts is not None and ts > self._ts:
            self._seconds += ts - self._ts
        self._ts = ts
        self.places.add(step, tokens, self._seconds, epoch)
        self.loss.add(step, loss)
        if self.first_loss is None and math.isfinite(loss):
            self.first_loss = loss
        average = self._smoothing.add(loss)
        if average == average:
            self.average.add(step, average)
        self.rate.add(step, rate)
        if norm is not None:
            self.norm.add(step, norm)
        if speed is not None and math.isfinite(speed):
            self.speed.add(step, speed)

    def add_step(self, event: events.Step, ts: float) -> None:
        """Takes a step's event in."""
        self.add(
            ts,
            event.step,
            event.epoch,
            event.loss,
            event.learning_rate,
            event.grad_norm,
            event.tokens,
            event.tokens_per_second,
        )

    def evaluated(self, step: int, loss: float) -> None:
        """Takes an evaluation in."""
        last = self.evaluations.last_x
        if last is not None and step <= last:
            self.evaluations.cut(step)
            if self.best is not None and self.best[0] >= step:
                self.best = self.evaluations.low
        self.evaluations.add(step, loss)
        if math.isfinite(loss) and (self.best is None or loss < self.best[1]):
            self.best = (float(step), loss)

    def _rewind(self, step: int) -> None:
        self.rewinds += 1
        for line in (self.loss, self.average, self.rate, self.norm, self.speed, self.evaluations):
            line.cut(step)
        self.places.cut(step)
        if self.best is not None and self.best[0] >= step:
            self.best = self.evaluations.low
        self._smoothing = Smoothed()
        for _, loss in self.loss.recent(200):
            self._smoothing.add(loss)
        if self.loss.first_x is None:
            self.first_loss = None
