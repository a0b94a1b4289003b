"""Events folded into figures, one record at a time, whatever the length of the run."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from . import event_log, events

TRAINING = ("train", "resume")
"""The jobs that train; the others work on what was trained."""
MOST_BESTS = 4096
"""Of evaluations that were the lowest so far, the newest that are kept."""
RECENT_STEPS = 64
"""Steps whose times make the estimate of the time left."""


@dataclass
class Reducer:
    """Folds events into figures, one record at a time, in the order of the file.

    A record that is older than what was seen (a duplicate, disorder) changes nothing; a new `started` begins a new
    attempt, and the newest attempt wins. Memory is bounded whatever the length of the run.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    started: events.Started | None = None
    started_ts: float | None = None
    ended: events.Ended | None = None
    ended_ts: float | None = None
    last_ts: float | None = None
    stage: events.Progress | None = None
    step: events.Step | None = None
    evaluation: events.Evaluation | None = None
    bests: deque[events.Evaluation] = field(default_factory=lambda: deque(maxlen=MOST_BESTS))
    """The evaluations that were lower than all before them, of those that count still."""
    model: events.ModelReady | None = None
    dataset: events.DatasetReady | None = None
    probe: events.Probed | None = None
    device: events.Device | None = None
    score: events.Scored | None = None
    checkpoint: events.Checkpoint | None = None
    best_kept: events.BestKept | None = None
    """The weights that its training ended with, where they are not the last ones."""
    exports: dict[str, events.Exported] = field(default_factory=dict)
    proofs: dict[str, events.Proved] = field(default_factory=dict)
    training_seconds: float = 0.0
    """What the training jobs took that are over: a training, and what was resumed of it."""
    trained: bool = False
    cut_short: bool = False
    warnings: int = 0
    paused: bool = False
    complete: bool = True
    """False where records were left out, so that sums and minima are not known."""
    _newest: dict[type[events.Event], tuple[int, float]] = field(default_factory=dict)
    _job_seconds: float = 0.0
    _attempt_steps: int = 0
    _attempt_evaluations: int = 0
    _evaluation_seconds: float = 0.0
    _times: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))
    _seen_at: float | None = None

    @property
    def best(self) -> events.Evaluation | None:
        """The lowest evaluation of those that count still: a resume takes back what lies after its checkpoint."""
        return self.bests[-1] if self.bests else None

    def add(self, record: event_log.Record) -> bool:
        """Takes `record` in. Returns False where it was older than what is known, and ignored."""
        event = record.event
        kind = type(event)
        floor = max(self._newest.get(kind, (0, 0.0)), self._newest.get(events.Started, (0, 0.0)))
        if not math.isfinite(record.ts) or (record.seq <= floor[0] and record.ts <= floor[1]):
            return False
        self._newest[kind] = (record.seq, record.ts)
        if self.last_ts is not None and not isinstance(event, events.Started):
            self._job_seconds += max(0.0, record.ts - self.last_ts)
        self.last_ts = record.ts
        self._seen_at = self.monotonic() - max(0.0, self.wall() - record.ts)
        if isinstance(event, events.Step):
            self._step(event, record.ts)
        elif isinstance(event, events.Device):
            self.device = event
        elif isinstance(event, events.Progress):
            self.stage = event
        elif isinstance(event, events.Evaluation):
            self._evaluation(event)
        elif isinstance(event, events.Started):
            self._start(event, record.ts)
        elif isinstance(event, events.Ended):
            self._end(event, record.ts)
        elif isinstance(event, events.Exported):
            self.exports[event.format] = event
            self.proofs.pop(event.format, None)
        elif isinstance(event, events.Proved):
            self.proofs[event.format] = event
        elif isinstance(event, events.Warned):
            self.warnings += 1
        elif isinstance(event, (events.Paused, events.Continued)):
            self.paused = isinstance(event, events.Paused)
        elif isinstance(event, events.Checkpoint):
            self.checkpoint = event
        elif isinstance(event, events.BestKept):
            self.best_kept = event
        elif isinstance(event, events.Scored):
            self.score = event
        elif isinstance(event, events.ModelReady):
            self.model = event
        elif isinstance(event, events.DatasetReady):
            self.dataset = event
        elif isinstance(event, events.Probed):
            self.probe = event
        return True

    def _start(self, event: events.Started, ts: float) -> None:
        if self.started is not None and self.started.job in TRAINING and self.ended is None:
            self.training_seconds += self._job_seconds  # it ended without a word
        self.started, self.started_ts = event, ts
        self.ended = self.ended_ts = self.stage = self.device = self.probe = None
        self.paused = False
        self._job_seconds = 0.0
        self._attempt_steps = self._attempt_evaluations = 0
        self._evaluation_seconds = 0.0
        self._times.clear()
        if event.job in TRAINING:
            self.best_kept = None
        if event.job == "train":
            self.step = self.evaluation = self.checkpoint = self.score = None
            self.bests.clear()
            self.trained, self.training_seconds = False, 0.0

    def _step(self, event: events.Step, ts: float) -> None:
        if self.step is not None and event.step <= self.step.step:
            self._times.clear()
            self._take_back(event.step)
        self.step = event
        self.paused = False
        # Whatever evaluation or sampling went before is over.
        self.stage = events.Progress("train", event.step, event.total_steps, "steps")
        self._attempt_steps += 1
        self._times.append((ts, event.seconds))

    def counted(self, steps: int) -> None:
        """Says that so many steps were seen that did not come one by one."""
        self._attempt_steps += steps

    def _evaluation(self, event: events.Evaluation) -> None:
        self.evaluation = event
        self._attempt_evaluations += 1
        self._evaluation_seconds += max(0.0, event.seconds)
        self._take_back(event.step)
        if math.isfinite(event.loss) and (self.best is None or event.loss < self.best.loss):
            self.bests.append(event)

    def _take_back(self, step: int) -> None:
        """Forgets what was evaluated at `step` and after it: it is done again."""
        while self.bests and self.bests[-1].step >= step:
            self.bests.pop()

    def _end(self, event: events.Ended, ts: float) -> None:
        if event.job in TRAINING and self.ended is None:
            self.training_seconds += event.seconds if event.seconds > 0 else self._job_seconds
        self.ended, self.ended_ts = event, ts
        self.paused = False
        if event.job in TRAINING:
            self.trained = self.trained or event.reason == "completed"
            self.cut_short = event.reason != "completed"

    def idle_seconds(self) -> float:
        """Seconds since the last event, by a clock that does not jump."""
        return 0.0 if self._seen_at is None else max(0.0, self.monotonic() - self._seen_at)

    def seconds_per_step(self) -> float | None:
        """The recent time of a step, with its share of the evaluations; before the first one, what the probe measured."""
        if not self._times:
            return self.probe.seconds_per_step or None if self.probe is not None else None
        known = [seconds for _, seconds in self._times if seconds > 0 and math.isfinite(seconds)]
        if known:
            each = sum(known) / len(known)
        else:
            gaps = [
                b[0] - a[0] for a, b in zip(self._times, list(self._times)[1:], strict=False) if b[0] > a[0]
            ]
            if not gaps:
                return None
            each = sum(gaps) / len(gaps)
        return each + self._evaluation_seconds / max(1, self._attempt_steps)

    def eta_seconds(self) -> float | None:
        """Seconds of training left; before the first step as the probe foresaw it. None where nothing is known, and once the
        job ended."""
        each = self.seconds_per_step()
        if self.ended is None and self.step is None and self.probe is not None:
            foreseen = self.probe.training_seconds
            return max(0.0, foreseen - self.idle_seconds()) if foreseen > 0 else None
        if each is None or self.step is None or self.ended is not None or self.step.total_steps <= 0:
            return None
        left = max(0, self.step.total_steps - self.step.step) * each
        idle = (
            0.0 if self.paused else min(each, self.idle_seconds())
        )  # the steps to come take their time all the same
        return max(0.0, left - idle) if math.isfinite(left) else None
