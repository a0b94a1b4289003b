"""A run's state: derived from its events and from whether its worker lives, never stored.

`derive` makes it of the figures that `reduce.Reducer` has folded; the list of runs, the dashboard and the command line share
both. `status` looks at a run from outside and reads only the two ends of a long events file; `follow.whole_status` reads all of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import FinetuiError
from . import crash, event_log, events, history, manifest, queue, silence
from .reduce import TRAINING, Reducer
from .store import RunFolder

State = Literal["queued", "starting", "running", "completed", "stopped", "failed", "crashed"]

FRESH_SECONDS = 120.0
"""A worker on another machine counts as running while its last word is no older than this."""

CREATE_TIME_TOLERANCE_SECONDS = 1.0
WHOLE_BYTES = 2 * 1024 * 1024
"""An events file up to this size is read whole by `status`."""
HEAD_BYTES = 64 * 1024
TAIL_BYTES = 256 * 1024
MAX_TAIL_BYTES = 8 * 1024 * 1024


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
    training_seconds: float = 0.0
    """How long the training has taken so far, or took: with all that was resumed, without exports and proofs."""
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
    adapter: bool = False
    """It has left an adapter, from which another run can start."""
    trained: bool = False
    """A training job of this run completed, whatever came later."""
    cut_short: bool = False
    """Its newest training job ended early, whatever came later."""
    warnings: int = 0
    model_parameters: int | None = None
    """The weights of its model, the adapter's aside."""
    paused: bool = False
    """The loop waits between two steps, with everything kept in memory."""
    unwritten: str = ""
    """Why the worker, which lives, cannot write its events, as far as that is seen from here."""
    elsewhere: bool = False
    """The worker is on another machine, so its life can only be judged by its events."""
    queue_place: int | None = None
    """Its place in the queue while it waits; 1 is the next."""
    host: str = ""
    pid: int | None = None
    create_time: float | None = None

    @property
    def live(self) -> bool:
        """Whether a worker is at work on the run, or waits for its turn."""
        return self.state in ("queued", "starting", "running")

    @property
    def standing(self) -> State:
        """What to call the run: by its training, whatever became of an export or a proof after it."""
        if self.live or self.job in ("", *TRAINING):
            return self.state
        return "stopped" if self.cut_short else "completed" if self.trained else self.state

    @property
    def aside(self) -> str:
        """What is to be said beside `standing`: that an export or a proof ended badly, such as `export failed`."""
        if self.card is None or self.standing == self.state:
            return ""
        return f"{'proof' if self.job == 'verify' else 'export'} {self.state}"

    @property
    def past_training(self) -> bool:
        """Whether its newest job came as far as what is made of a training's result: scores, exports, proofs."""
        return self.job in ("export", "verify") or self.stage in ("score", "export")

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
    place = queue.position(run) if ended is None and awaited else None
    if place is not None:
        state, card, elsewhere = "queued", None, False
        job = job or "train"
    step, stage, evaluation = reducer.step, reducer.stage, reducer.evaluation
    live = state in ("queued", "starting", "running")
    working = live and state != "queued"
    seconds = _elapsed(reducer, started_ts, live, awaited)
    training = job in TRAINING and ended is None and not awaited
    current = stage if stage is not None and not awaited else None
    silent = (seconds if awaited else reducer.idle_seconds()) > silence.AFTER_SECONDS
    over = current is not None and current.stage in events.AFTER_TRAINING
    return RunStatus(
        state=state,
        job=job,
        name=started.name if started else "",
        stage=current.stage if current else "queue" if place is not None else "start" if live else "",
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
        seconds=seconds,
        training_seconds=reducer.training_seconds + (seconds if training else 0.0),
        eta_seconds=reducer.eta_seconds() if state == "running" and not awaited and not over else None,
        card=card,
        started_ts=started_ts,
        ended_ts=reducer.ended_ts if ended is not None else (None if live else reducer.last_ts),
        last_ts=reducer.last_ts,
        exports=tuple(reducer.exports.values()),
        proofs=tuple(reducer.proofs.values()),
        score=reducer.score,
        checkpoint_step=reducer.checkpoint.step if reducer.checkpoint else None,
        adapter=(run.adapter / "adapter_model.safetensors").is_file(),
        trained=reducer.trained,
        cut_short=reducer.cut_short,
        warnings=reducer.warnings,
        model_parameters=reducer.model.parameters if reducer.model else None,
        paused=reducer.paused and live and not awaited,
        unwritten=silence.reason(run) if working and silent else "",
        elsewhere=elsewhere,
        queue_place=place,
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
    try:
        seen = derive(_read_ends(run), run)
        return derive(_read_ends(run), run) if seen.state == "crashed" else seen
    except FinetuiError as error:
        return unreadable(run, error)


def unreadable(run: RunFolder, error: FinetuiError) -> RunStatus:
    """What is known of a run whose events cannot be read: whether its worker lives, and what the disk says."""
    seen = derive(Reducer(), run)
    card = Card(error.what, error.why, error.fix, error.code)
    known = seen.pid is not None or seen.queue_place is not None
    return seen if seen.live and known else replace(seen, state="crashed", stage="", card=card)


def _read_ends(run: RunFolder) -> Reducer:
    reducer = Reducer()
    try:
        with event_log.opened(run.events) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= WHOLE_BYTES:
                return history.fold(run.events)[0]
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
        record = event_log.decode(line) if line else None
        if record is not None:
            reducer.add(record)
