"""A run's state: derived from its events and from whether its worker lives, never stored.

`Reducer` turns events into figures, one at a time; the list of runs, the dashboard and the command line share it.
`status` looks at a run from outside and reads only the two ends of a long events file.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from . import crash, events, manifest
from .store import RunFolder

State = Literal["starting", "running", "completed", "stopped", "failed", "crashed"]

FRESH_SECONDS = 120.0
"""A worker on another machine counts as running while its last word is no older than this."""

CREATE_TIME_TOLERANCE_SECONDS = 1.0
WHOLE_BYTES = 512 * 1024
"""An events file up to this size is read whole by `status`."""
HEAD_BYTES = 64 * 1024
TAIL_BYTES = 256 * 1024
MAX_TAIL_BYTES = 8 * 1024 * 1024
RECENT_STEPS = 64
"""Steps whose times make the estimate of the time left."""


@dataclass(frozen=True)
class Card:
    """Why a job ended badly: the three texts of an error card, and its code."""

    what: str
    why: str = ""
    fix: str = ""
    code: str = ""


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment. None is not known. Losses are in nats per token, times in seconds."""

    state: State
    job: str = ""
    """The newest job: train, resume or export."""
    name: str = ""
    stage: str = ""
    stage_done: float = 0.0
    stage_total: float = 0.0
    stage_unit: str = ""
    stage_text: str = ""
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    evaluation_loss: float | None = None
    best_evaluation_loss: float | None = None
    """The lowest so far; None too where only a part of a long run was read (`status`)."""
    best_evaluation_step: int | None = None
    seconds: float = 0.0
    """How long the newest job has taken so far, or took."""
    eta_seconds: float | None = None
    """Seconds of training left, evaluations included roughly. Never negative, falls between steps, does not follow the
    clock when it jumps."""
    card: Card | None = None
    """Set for failed and crashed."""
    started_ts: float | None = None
    """When the newest job began (for an export, the export)."""
    ended_ts: float | None = None
    last_ts: float | None = None
    exports: tuple[events.Exported, ...] = ()
    """The newest export of each format."""
    proofs: tuple[events.Proved, ...] = ()
    """The newest proof of each format."""
    score: events.Scored | None = None
    checkpoint_step: int | None = None
    trained: bool = False
    """A training job of this run completed, whatever came later."""
    warnings: int = 0
    elsewhere: bool = False
    """The worker is on another machine, so its life can only be judged by its events."""
    host: str = ""
    pid: int | None = None
    create_time: float | None = None

    @property
    def live(self) -> bool:
        """Whether a worker is at work on the run."""
        return self.state in ("starting", "running")

    @property
    def resumable(self) -> bool:
        """Whether the training ended early and there is a checkpoint to go on from."""
        return not self.live and not self.trained and self.checkpoint_step is not None


def worker_alive(pid: int, create_time: float, host: str) -> bool | None:
    """Whether the process that signed with these three still lives; None where it is on another machine.

    A reused pid is told by its create time (±1 s), and a zombie is dead.
    """
    if host != manifest.this_host():
        return None
    import psutil

    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - create_time) > CREATE_TIME_TOLERANCE_SECONDS:
            return False
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return False
    except psutil.AccessDenied:
        return True


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
    best: events.Evaluation | None = None
    model: events.ModelReady | None = None
    dataset: events.DatasetReady | None = None
    device: events.Device | None = None
    score: events.Scored | None = None
    checkpoint: events.Checkpoint | None = None
    exports: dict[str, events.Exported] = field(default_factory=dict)
    proofs: dict[str, events.Proved] = field(default_factory=dict)
    trained: bool = False
    warnings: int = 0
    complete: bool = True
    """False where records were left out, so that sums and minima are not known."""
    _newest: dict[type[events.Event], tuple[int, float]] = field(default_factory=dict)
    _job_seconds: float = 0.0
    _attempt_steps: int = 0
    _attempt_evaluations: int = 0
    _evaluation_seconds: float = 0.0
    _times: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))
    _seen_at: float | None = None

    def add(self, record: events.Record) -> bool:
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
        elif isinstance(event, events.Checkpoint):
            self.checkpoint = event
        elif isinstance(event, events.Scored):
            self.score = event
        elif isinstance(event, events.ModelReady):
            self.model = event
        elif isinstance(event, events.DatasetReady):
            self.dataset = event
        return True

    def _start(self, event: events.Started, ts: float) -> None:
        self.started, self.started_ts = event, ts
        self.ended = self.ended_ts = self.stage = self.device = None
        self._job_seconds = 0.0
        self._attempt_steps = self._attempt_evaluations = 0
        self._evaluation_seconds = 0.0
        self._times.clear()
        if event.job == "train":
            self.step = self.evaluation = self.best = self.checkpoint = self.score = None
            self.trained = False

    def _step(self, event: events.Step, ts: float) -> None:
        if self.step is not None and event.step <= self.step.step:
            self._times.clear()
            if self.best is not None and self.best.step >= event.step:
                self.best = None  # it belongs to an attempt that was taken back
        self.step = event
        # Whatever evaluation or sampling went before is over.
        self.stage = events.Progress("train", event.step, event.total_steps, "steps")
        self._attempt_steps += 1
        self._times.append((ts, event.seconds))

    def _evaluation(self, event: events.Evaluation) -> None:
        self.evaluation = event
        self._attempt_evaluations += 1
        self._evaluation_seconds += max(0.0, event.seconds)
        if not math.isnan(event.loss) and (self.best is None or event.loss < self.best.loss):
            self.best = event

    def _end(self, event: events.Ended, ts: float) -> None:
        self.ended, self.ended_ts = event, ts
        if event.job in ("train", "resume") and event.reason == "completed":
            self.trained = True

    def idle_seconds(self) -> float:
        """Seconds since the last event, by a clock that does not jump."""
        return 0.0 if self._seen_at is None else max(0.0, self.monotonic() - self._seen_at)

    def seconds_per_step(self) -> float | None:
        """The recent time of a step, with its share of the evaluations."""
        if not self._times:
            return None
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
        """Seconds of training left; None before the first step and once the job ended."""
        each = self.seconds_per_step()
        if each is None or self.step is None or self.ended is not None or self.step.total_steps <= 0:
            return None
        left = max(0, self.step.total_steps - self.step.step) * each
        return max(0.0, left - self.idle_seconds()) if math.isfinite(left) else None


def derive(reducer: Reducer, run: RunFolder) -> RunStatus:
    """The run's status from what `reducer` has seen, the manifest, and the life of the worker.

    The caller reads the events again where this says crashed: the worker may have written its last word in between.
    """
    started, launch = reducer.started, manifest.read(run)
    pid, create_time, host, job = (
        (started.pid, started.create_time, started.host, started.job) if started else (None, None, "", "")
    )
    started_ts, ended, awaited = reducer.started_ts, reducer.ended, started is None
    if (
        launch is not None
        and not _same_worker(started, launch)
        and (started_ts is None or launch.launched_ts > started_ts)
        and not _turned_away(reducer, launch)
    ):
        pid, create_time, host, job = launch.pid, launch.create_time, launch.host, launch.job
        started_ts = launch.launched_ts
        awaited = reducer.last_ts is None or reducer.last_ts <= launch.launched_ts
        if awaited or (reducer.ended_ts is not None and reducer.ended_ts <= launch.launched_ts):
            ended = None
    card: Card | None = None
    elsewhere = False
    if ended is not None:
        state: State = (
            "completed"
            if ended.reason == "completed"
            else "stopped"
            if ended.reason == "stopped"
            else "failed"
        )
        if state == "failed":
            card = Card(ended.what or "The run failed.", ended.why, ended.fix, ended.code or "failed")
    else:
        state, card, elsewhere = _unfinished(reducer, run, pid, create_time, host, awaited)
    step, stage, evaluation = reducer.step, reducer.stage, reducer.evaluation
    live = state in ("starting", "running")
    current = stage if stage is not None and not awaited else None
    return RunStatus(
        state=state,
        job=job,
        name=started.name if started else "",
        stage=current.stage if current else ("start" if live else ""),
        stage_done=current.done if current else 0.0,
        stage_total=current.total if current else 0.0,
        stage_unit=current.unit if current else "",
        stage_text=current.text if current else "",
        step=step.step if step else 0,
        total_steps=step.total_steps if step else 0,
        epoch=step.epoch if step else 0.0,
        loss=step.loss if step else None,
        learning_rate=step.learning_rate if step else None,
        tokens_per_second=step.tokens_per_second if step else None,
        evaluation_loss=evaluation.loss if evaluation else None,
        best_evaluation_loss=reducer.best.loss if reducer.best and reducer.complete else None,
        best_evaluation_step=reducer.best.step if reducer.best and reducer.complete else None,
        seconds=_elapsed(reducer, started_ts, live, awaited),
        eta_seconds=reducer.eta_seconds() if state == "running" and not awaited else None,
        card=card,
        started_ts=started_ts,
        ended_ts=reducer.ended_ts if ended is not None else (None if live else reducer.last_ts),
        last_ts=reducer.last_ts,
        exports=tuple(reducer.exports.values()),
        proofs=tuple(reducer.proofs.values()),
        score=reducer.score,
        checkpoint_step=reducer.checkpoint.step if reducer.checkpoint else None,
        trained=reducer.trained,
        warnings=reducer.warnings,
        elsewhere=elsewhere,
        host=host,
        pid=pid,
        create_time=create_time,
    )


def _same_worker(started: events.Started | None, launch: manifest.Manifest) -> bool:
    return (
        started is not None
        and (started.pid, started.host) == (launch.pid, launch.host)
        and abs(started.create_time - launch.create_time) <= CREATE_TIME_TOLERANCE_SECONDS
    )


def _turned_away(reducer: Reducer, launch: manifest.Manifest) -> bool:
    """Whether the launched worker has gone while an earlier one holds the run: two starts raced, and it lost."""
    started = reducer.started
    return (
        started is not None
        and reducer.ended is None
        and not worker_alive(launch.pid, launch.create_time, launch.host)
        and worker_alive(started.pid, started.create_time, started.host) is True
    )


def _elapsed(reducer: Reducer, started_ts: float | None, live: bool, awaited: bool) -> float:
    if awaited:
        return max(0.0, reducer.wall() - started_ts) if live and started_ts is not None else 0.0
    if reducer.ended is not None and reducer.ended.seconds > 0:
        return reducer.ended.seconds
    if reducer.complete:
        spent = reducer._job_seconds
    else:
        spent = max(0.0, (reducer.last_ts or 0.0) - (started_ts or reducer.last_ts or 0.0))
    return spent + (reducer.idle_seconds() if live else 0.0)


def _unfinished(
    reducer: Reducer,
    run: RunFolder,
    pid: int | None,
    create_time: float | None,
    host: str,
    awaited: bool,
) -> tuple[State, Card | None, bool]:
    """State, card and elsewhere of a run whose newest job has not said that it ended."""
    if pid is None or create_time is None:
        try:
            young = reducer.wall() - run.path.stat().st_mtime < FRESH_SECONDS
        except OSError:
            young = False
        if young:
            return "starting", None, False
        return (
            "crashed",
            Card("The run never started.", "No worker took it up.", "Start it again.", "never-started"),
            False,
        )
    alive = worker_alive(pid, create_time, host)
    working: State = "starting" if awaited or reducer.stage is None else "running"
    if alive:
        return working, None, False
    if alive is None:
        if _fresh(reducer, run):
            return working, None, True
        return (
            "crashed",
            Card(
                f"No word from {host} any more.",
                f"The run was started on {host}, and from here nobody can see whether its worker lives.",
                f"Look on {host}, or resume the run here once you know that it has ended there.",
                "no-word",
            ),
            True,
        )
    what, why, fix, code = crash.reason(run)
    return "crashed", Card(what, why, fix, code), False


def _fresh(reducer: Reducer, run: RunFolder) -> bool:
    newest = reducer.last_ts or 0.0
    for path in (run.events, run.manifest):
        try:
            newest = max(newest, path.stat().st_mtime)
        except OSError:
            continue
    return reducer.wall() - newest < FRESH_SECONDS


def status(run: RunFolder) -> RunStatus:
    """The run's status, read from the two ends of its events: fast whatever the run's length. Blocking."""
    seen = derive(_read_ends(run), run)
    return derive(_read_ends(run), run) if seen.state == "crashed" else seen


def _read_ends(run: RunFolder) -> Reducer:
    reducer = Reducer()
    try:
        with run.events.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= WHOLE_BYTES:
                _fold(reducer, file.read())
                return reducer
            reducer.complete = False
            head = file.read(HEAD_BYTES)
            _fold(reducer, head)
            length = TAIL_BYTES
            while True:
                start = max(HEAD_BYTES, size - length)
                file.seek(start)
                tail = file.read(size - start)
                told = b'"kind":"step"' in tail or b'"kind":"ended"' in tail
                if told or start == HEAD_BYTES or length >= MAX_TAIL_BYTES:
                    break
                length *= 2
            _fold(reducer, tail[tail.find(b"\n") + 1 :])
    except FileNotFoundError:
        pass
    return reducer


def _fold(reducer: Reducer, chunk: bytes) -> None:
    for line in chunk.split(b"\n")[:-1]:
        record = events.decode(line) if line else None
        if record is not None:
            reducer.add(record)
