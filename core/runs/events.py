"""What a run reports: the kinds of event, and `events.jsonl`, the one file where they stand.

A line is one JSON object: `v` (format version), `seq` (from 1, without gaps), `ts` (seconds since the epoch), `kind`,
and the fields of that kind's class below. One worker appends; anybody may read at any time. A torn last line
is not yet an event; a broken line in the middle is skipped and counted.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

VERSION = 1
MAX_LINE_BYTES = 4 * 1024 * 1024
"""A longer line is no event of ours; it is skipped."""

Stage = Literal[
    "start",
    "download",
    "load",
    "dataset",
    "tokenize",
    "baseline",
    "probe",
    "train",
    "evaluate",
    "sample",
    "save",
    "score",
    "export",
]
Reason = Literal["completed", "stopped", "failed"]


@dataclass(frozen=True)
class Event:
    """The base of all kinds. `seq` and `ts` are given by the writer."""

    kind: ClassVar[str] = ""


@dataclass(frozen=True)
class Started(Event):
    """A worker took up the run. A run has one of these for each job: train, resume, export."""

    kind: ClassVar[str] = "started"
    job: str
    pid: int
    create_time: float
    host: str
    name: str = ""


@dataclass(frozen=True)
class Progress(Event):
    """A stage's progress. `done` of `total` in `unit`; total 0 means not known."""

    kind: ClassVar[str] = "progress"
    stage: str
    done: float = 0
    total: float = 0
    unit: str = ""
    text: str = ""


@dataclass(frozen=True)
class ModelReady(Event):
    """The model is loaded. Weights are counts; `base_bytes` is the base model's size on disk, `revision` the commit of one
    from the hub."""

    kind: ClassVar[str] = "model"
    parameters: int
    trainable: int
    device: str
    dtype: str
    base_bytes: int = 0
    architecture: str = ""
    context_length: int = 0
    chat_template: str = ""
    load_seconds: float = 0.0
    revision: str = ""


@dataclass(frozen=True)
class DatasetReady(Event):
    """The dataset as the trainer gets it. Tokens are counted over one epoch after cutting."""

    kind: ClassVar[str] = "dataset"
    format: str
    rows: int
    evaluation_rows: int
    dropped: int
    tokens: int
    trained_tokens: int
    cut_rows: int = 0
    longest: int = 0
    fingerprint: str = ""


@dataclass(frozen=True)
class Probed(Event):
    """The longest batch was tried before the first step, and everything set back. Bytes are what torch reserves on the GPU
    at its peak, or the worker's resident memory on a CPU; predicted figures are 0 where nothing can be predicted.

    `seconds` is the longest batch, forward, backward and optimizer; `seconds_per_step` and `training_seconds` follow from
    it for the run's mean step and the whole loop. `evaluation_seconds` is the longest held-out batch. `stepped_down`: the
    settings did not fit and were made smaller, as warnings say.
    """

    kind: ClassVar[str] = "probe"
    device: str
    predicted_bytes: int
    measured_bytes: int
    limit_bytes: int
    rows: int
    longest: int
    tokens: int
    predicted_seconds: float = 0.0
    seconds: float = 0.0
    evaluation_seconds: float | None = None
    seconds_per_step: float = 0.0
    training_seconds: float = 0.0
    stepped_down: bool = False
    probe_seconds: float = 0.0

    @property
    def gap(self) -> float | None:
        """Measured against predicted: 0.03 is 3 % more than predicted."""
        return self.measured_bytes / self.predicted_bytes - 1 if self.predicted_bytes else None


@dataclass(frozen=True)
class Step(Event):
    """One update of the weights. Tokens are cumulative; the rate is over this step alone."""

    kind: ClassVar[str] = "step"
    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float | None = None
    tokens: int = 0
    trained_tokens: int = 0
    tokens_per_second: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Evaluation(Event):
    """The loss on the held-out rows after `step`."""

    kind: ClassVar[str] = "evaluation"
    step: int
    loss: float
    seconds: float = 0.0


@dataclass(frozen=True)
class Card(Event):
    """Another GPU of the machine, on which the run does not work. None is a reading that is missing."""

    index: int = 0
    name: str = ""
    total_bytes: int | None = None
    used_bytes: int | None = None
    utilization_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    throttling: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Device(Event):
    """A reading of the machine, taken by the worker. None is a reading that is missing, never 0.

    Memory in bytes: `used_bytes` all that is in use; `run_bytes` this process as the driver sees it, `others_bytes` other processes, `reserved_bytes`
    and `peak_reserved_bytes` as torch counts. On a CPU the run's bytes are its resident memory.
    """

    kind: ClassVar[str] = "device"
    device: str
    name: str = ""
    total_bytes: int | None = None
    used_bytes: int | None = None
    run_bytes: int | None = None
    others_bytes: int | None = None
    reserved_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    utilization_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    host_used_bytes: int | None = None
    host_total_bytes: int | None = None
    cpu_percent: float | None = None
    disk_free_bytes: int | None = None
    throttling: tuple[str, ...] | None = None
    """Why the card runs slower than it could (`system.throttle_reasons`); empty where nothing holds it back."""
    clock_mhz: int | None = None
    clock_limit_mhz: int | None = None
    cards: tuple[Card, ...] = ()
    """The machine's other GPUs, in some of the readings."""


@dataclass(frozen=True)
class Sample(Event):
    """What the model answers to a held-out prompt after `step`; step 0 is the model before training."""

    kind: ClassVar[str] = "sample"
    step: int
    index: int
    prompt: str
    answer: str
    reference: str = ""


@dataclass(frozen=True)
class Checkpoint(Event):
    """A checkpoint that is whole. `path` is relative to the run folder."""

    kind: ClassVar[str] = "checkpoint"
    step: int
    path: str


@dataclass(frozen=True)
class Warned(Event):
    """Something the person should know that does not stop the run."""

    kind: ClassVar[str] = "warning"
    code: str
    what: str
    why: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Paused(Event):
    """The loop waits after `step`, with everything kept in memory, until it is told to go on."""

    kind: ClassVar[str] = "paused"
    step: int


@dataclass(frozen=True)
class Continued(Event):
    """The loop goes on after `step`, having waited for so many seconds."""

    kind: ClassVar[str] = "continued"
    step: int
    seconds: float = 0.0


@dataclass(frozen=True)
class ScoreSide(Event):
    """One side of a score: counts out of `Scored.rows`."""

    valid: int = 0
    category_right: int = 0
    exact: int = 0


@dataclass(frozen=True)
class ScoreExample(Event):
    prompt: str = ""
    reference: str = ""
    base: str = ""
    tuned: str = ""


@dataclass(frozen=True)
class Scored(Event):
    """The demo's held-out rows, answered by the base and by the tuned model under the same system prompt."""

    kind: ClassVar[str] = "score"
    rows: int
    base: ScoreSide = field(default_factory=ScoreSide)
    tuned: ScoreSide = field(default_factory=ScoreSide)
    examples: tuple[ScoreExample, ...] = ()


@dataclass(frozen=True)
class Exported(Event):
    """An export that is whole. Paths are relative to the run folder; `command` uses it next. `step` is that of its weights
    (None: not known); `kept`: it was there already, of the very same weights."""

    kind: ClassVar[str] = "export"
    format: str
    path: str
    bytes: int
    base_bytes: int = 0
    seconds: float = 0.0
    command: str = ""
    step: int | None = None
    kept: bool = False


@dataclass(frozen=True)
class Proved(Event):
    """An export was opened by its consumer and compared with the trained model. `verdict`: same, differs or broken.

    `agreement` is the share of answer tokens chosen alike, `gap` the mean difference of their log-probabilities.
    """

    kind: ClassVar[str] = "proof"
    format: str
    verdict: str
    sentence: str
    consumer: str = ""
    agreement: float | None = None
    gap: float | None = None
    failed: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Ended(Event):
    """The last event of a job. For failed, what/why/fix/code are those of the error card."""

    kind: ClassVar[str] = "ended"
    job: str
    reason: str
    seconds: float = 0.0
    what: str = ""
    why: str = ""
    fix: str = ""
    code: str = ""


@dataclass(frozen=True)
class Unknown(Event):
    """A kind that this version does not know, kept as it came."""

    kind: ClassVar[str] = "unknown"
    name: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


KINDS: dict[str, type[Event]] = {
    c.kind: c
    for c in (
        Started,
        Progress,
        ModelReady,
        DatasetReady,
        Probed,
        Step,
        Evaluation,
        Device,
        Sample,
        Checkpoint,
        Warned,
        Paused,
        Continued,
        Scored,
        Exported,
        Proved,
        Ended,
    )
}


@dataclass(frozen=True)
class Record:
    """An event with its place in the file."""

    seq: int
    ts: float
    event: Event


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN; "nan", "inf" and "-inf" come back as numbers
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def encode(record: Record) -> bytes:
    """`record` as one line, newline included. Lone surrogates are escaped as JSON does."""
    event = record.event
    name = event.name if isinstance(event, Unknown) else event.kind
    body = event.fields if isinstance(event, Unknown) else _plain(event)
    head = {"v": VERSION, "seq": record.seq, "ts": record.ts, "kind": name}
    return (
        json.dumps({**head, **_plain(body)}, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
    )


_CACHE: dict[type[Event], dict[str, Any]] = {}


def _hints(cls: type[Event]) -> dict[str, Any]:
    if cls not in _CACHE:
        hints = typing.get_type_hints(cls)
        _CACHE[cls] = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    return _CACHE[cls]


def _typed(annotation: Any, value: Any) -> Any:
    """`value` as `annotation`. Raises ValueError or TypeError where it is not of that type."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        if value is None:
            return None
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is tuple:
        return tuple(_typed(typing.get_args(annotation)[0], v) for v in value)
    if isinstance(annotation, type) and issubclass(annotation, Event):
        return _build(annotation, value)
    if annotation is float:
        if isinstance(value, bool):
            raise ValueError("a flag is no number")
        return float(value)
    if annotation is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError("not a whole number")
    if annotation is str and not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _build(cls: type[Event], values: Any) -> Event:
    if not isinstance(values, dict):
        raise TypeError("not an object")
    hints = _hints(cls)
    return cls(**{name: _typed(hints[name], v) for name, v in values.items() if name in hints})


def decode(line: bytes) -> Record | None:
    """The event on `line`, or None where there is none to be had (torn, foreign, too long)."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        data = json.loads(line)
        seq, ts, kind = data.pop("seq"), data.pop("ts"), data.pop("kind")
        data.pop("v", None)
        if not isinstance(seq, int) or not isinstance(ts, (int, float)) or not isinstance(kind, str):
            return None
        cls = KINDS.get(kind)
        event = _build(cls, data) if cls else Unknown(kind, data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return Record(seq, float(ts), event)


@dataclass
class EventReader:
    """Reads an events file forward, again and again, as it grows.

    `read` returns the records that are new since the last call. A missing file reads as empty.
    """

    path: Path
    offset: int = 0
    skipped: int = 0
    _rest: bytes = b""

    def read(self, max_bytes: int = 8 * 1024 * 1024) -> list[Record]:
        """The next records, from at most `max_bytes` of the file; call again while there are more."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self.offset:  # replaced by a shorter file
                    self.offset, self._rest = 0, b""
                file.seek(self.offset)
                chunk = file.read(max_bytes)
        except FileNotFoundError:
            return []
        self.offset += len(chunk)
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest = self._rest[: MAX_LINE_BYTES + 1]  # stays too long, and so is skipped when it ends
        records = []
        for line in lines:
            record = decode(line) if line.strip() else None
            if record is not None:
                records.append(record)
            elif line.strip():
                self.skipped += 1
        return records


def read_all(path: Path) -> list[Record]:
    """Every record of a file."""
    reader = EventReader(path)
    records: list[Record] = []
    while new := reader.read():
        records += new
    return records
