"""What a run reports: the kinds of event. How they stand in `events.jsonl`: see `event_log`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Stage = Literal[
    "start",
    "download",
    "load",
    "dataset",
    "tokenize",
    "tools",
    "baseline",
    "probe",
    "train",
    "evaluate",
    "sample",
    "save",
    "score",
    "export",
]
AFTER_TRAINING: tuple[Stage, ...] = ("save", "score", "export")
"""What follows the last step of a training."""
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
    system_prompt: str | None = None
    """The one that all rows have; empty where they have several or none, None where an older run does not tell."""


@dataclass(frozen=True)
class Probed(Event):
    """The longest batch was tried before the first step, and everything set back. Bytes are what torch reserves on the GPU
    at its peak, or the worker's resident memory on a CPU; predicted figures are 0 where nothing can be predicted.

    `seconds` is the longest batch, forward, backward and optimizer; `seconds_per_step` and `training_seconds` follow from
    it for the run's mean step and the whole loop. `evaluation_seconds` is the longest held-out batch. `stepped_down`: the
    settings did not fit and were made smaller, as warnings say. `probe_seconds` is all that the probe took; of it,
    `compile_seconds` are what the first batch took beyond the second, to compile kernels that the run's first step would
    have compiled otherwise (0 where it is not known).
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
    compile_seconds: float = 0.0

    @property
    def cost_seconds(self) -> float:
        """What the run takes longer for having been probed."""
        return max(0.0, self.probe_seconds - self.compile_seconds)

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
    and `peak_reserved_bytes` as torch counts. On a CPU the run's bytes are its resident memory, with that of
    its children while it exports.
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
class BestKept(Event):
    """The training ends with the weights of `step`, whose held-out loss was clearly lower than that after its last step
    (None: no number)."""

    kind: ClassVar[str] = "best"
    step: int
    loss: float
    last_step: int
    last_loss: float | None = None

    @property
    def sentence(self) -> str:
        """Which weights, and why."""
        last = "not a number" if self.last_loss is None else f"{self.last_loss:.4g}"
        return (
            f"It ends with the weights of step {self.step:,}: the held-out loss was lowest there, {self.loss:.4g}; after the last "
            f"step, {self.last_step:,}, it is {last}."
        )


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
    (None: not known); `kept`: it was there already, of the very same weights. `begins`: as in the
    export's record."""

    kind: ClassVar[str] = "export"
    format: str
    path: str
    bytes: int
    base_bytes: int = 0
    seconds: float = 0.0
    command: str = ""
    step: int | None = None
    kept: bool = False
    begins: bool | None = None


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
        BestKept,
        Warned,
        Paused,
        Continued,
        Scored,
        Exported,
        Proved,
        Ended,
    )
}
