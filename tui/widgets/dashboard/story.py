"""What a run has told so far, folded from its records: curves, samples, readings, and its log in words."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ....core import coach
from ....core.coach_seen import Advice, Seen
from ....core.recipe import Recipe
from ....core.runs import event_log, events
from ....core.runs.curves import Curves
from ....core.runs.output import Level
from ....core.runs.reduce import TRAINING
from ....core.runs.series import Thinned
from ....core.text import bytes_words, clean, count_words, counted, duration_words, one_line

LOG_LINES = 2000
READINGS = 240
CARDS = 16
PROMPTS = 32
"""Prompts that are kept; a run asks a handful."""
ANSWERS = 200
"""Answers kept for each prompt at most: the first, the newest, and some between, evenly."""
SHOWN_CHARACTERS = 2000

STAGES = {
    "queue": "Waiting in the queue",
    "start": "Importing Unsloth",
    "download": "Downloading the model",
    "load": "Loading the model",
    "dataset": "Reading the dataset",
    "tokenize": "Turning rows into tokens",
    "tools": "Preparing export tools",
    "baseline": "Asking the model before training",
    "probe": "Trying the longest batch",
    "train": "Training",
    "evaluate": "Checking on held-out rows",
    "sample": "Writing samples",
    "save": "Saving",
    "score": "Scoring base against tuned",
    "export": "Exporting",
}
"""What each stage is called while it lasts."""

MEANINGS = {
    "queue": "It starts by itself once what is before it has ended. finetui queue shows and changes the order.",
    "start": "The libraries are read from disk: 10 to 40 seconds, longer the first time.",
    "download": "Once only; the next run finds it in the cache.",
    "load": "Weights go into memory, and the adapter is laid over them.",
    "dataset": "Rows become conversations in the model's own format.",
    "tokenize": "Each row is cut into the pieces that the model reads.",
    "tools": "Once only: what writes the GGUF formats, so that it is here when the training ends.",
    "baseline": "Its answers before training are kept, to compare with later.",
    "probe": "Once forward and back, so that the run starts only where it fits.",
    "train": "The first step takes the longest. The curve begins with it.",
    "evaluate": "Rows that it never trains on show whether it learns or memorises.",
    "sample": "The model answers a few held-out prompts.",
    "save": "The adapter is written to disk.",
    "score": "Held-out rows, answered by both under the same instructions.",
    "export": "The result is written in the formats that you chose, and each is tried.",
}


def number(value: float | None, digits: int = 3) -> str:
    """A figure, an em dash for one that is missing, `NaN` and `inf` as such."""
    if value is None:
        return "—"
    if math.isnan(value):
        return "NaN"
    return f"{value:.{digits}f}" if math.isfinite(value) else str(value)


def rate(value: float | None) -> str:
    """A learning rate, such as `2e-4` or `1.25e-4`."""
    if value is None or not math.isfinite(value):
        return "—"
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def progress_words(done: float, total: float, unit: str) -> str:
    """`3,200/20,000 rows`; bytes in binary units; empty where nothing is known."""
    if (
        not math.isfinite(done)
        or not math.isfinite(total)
        or done < 0
        or total < 0
        or (not done and not total)
    ):
        return ""
    if unit == "bytes":
        return f"{bytes_words(done)} of {bytes_words(total)}" if total else bytes_words(done)
    words = f"{done:,.0f}/{total:,.0f}" if total else f"{done:,.0f}"
    return f"{words} {one_line(unit, 20)}".rstrip()


_LEVELS: dict[str, Level] = {"$text-warning": "warning", "$text-error": "error"}


def _context(of: events.Device) -> int:
    """What the driver counts for the run beyond what torch has reserved; 0 where it tells nothing, and on a CPU."""
    if of.run_bytes is None or of.reserved_bytes is None:
        return 0
    return max(0, of.run_bytes - of.reserved_bytes)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the log in words. `style` is a theme variable."""

    ts: float
    words: str
    style: str = "$foreground"

    @property
    def level(self) -> Level:
        """What it weighs."""
        return _LEVELS.get(self.style, "info")


@dataclass
class Asked:
    """One held-out prompt and the model's answers by step; step 0 is before training."""

    prompt: str
    reference: str
    answers: dict[int, str] = field(default_factory=dict)


@dataclass
class Story:
    """Everything that the dashboard shows of a run, but its state. Bounded."""

    curves: Curves = field(default_factory=Curves)
    step: events.Step | None = None
    evaluation: events.Evaluation | None = None
    first_evaluation: events.Evaluation | None = None
    model: events.ModelReady | None = None
    dataset: events.DatasetReady | None = None
    device: events.Device | None = None
    peak_bytes: int | None = None
    """The most that the run held up to its exports, as the driver or the system counts: torch's peak and the CUDA context."""
    export_peak_bytes: int | None = None
    """The most that it held at its exports and proofs, of what was read about each second."""
    devices: deque[events.Device] = field(default_factory=lambda: deque(maxlen=READINGS))
    """The newest readings of the machine."""
    trained_readings: deque[events.Device] = field(default_factory=lambda: deque(maxlen=READINGS))
    """Those that were taken while it trained."""
    cards: dict[int, events.Card] = field(default_factory=dict)
    """The machine's other GPUs, by their number."""
    cards_busy: dict[int, deque[float | None]] = field(default_factory=dict)
    """How busy each was, percent, oldest first."""
    memory: Thinned = field(default_factory=Thinned)
    """(seconds since the epoch, bytes that the run held) over the whole run."""
    asked: dict[int, Asked] = field(default_factory=dict)
    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    checkpoints: deque[int] = field(default_factory=lambda: deque(maxlen=READINGS))
    """The steps after which one was saved, the newest last."""
    warning: events.Warned | None = None
    best_kept: events.BestKept | None = None
    """The weights that the training ended with, where they are not the last ones."""
    score: events.Scored | None = None
    exports: dict[str, events.Exported] = field(default_factory=dict)
    proofs: dict[str, events.Proved] = field(default_factory=dict)
    whole: bool = True
    """False while the beginning of a long run is not read yet."""
    _stage: str = ""

    def extend(self, records: Iterable[event_log.Record]) -> None:
        """Takes records in, in their order."""
        for record in records:
            self.add(record)

    def add(self, record: event_log.Record) -> None:
        """Takes one record in."""
        event, ts = record.event, record.ts
        if isinstance(event, events.Step):
            self._add_step(event, ts)
        elif isinstance(event, events.Device):
            self._add_device(event, ts)
        elif isinstance(event, events.Progress):
            if event.stage != self._stage:
                self._stage = event.stage
                if event.stage not in ("train", "sample", "evaluate"):
                    words = STAGES.get(event.stage, one_line(event.stage, 40))
                    told = one_line(event.text, 120)
                    if told.lower().startswith(words.lower()):
                        words = told[0].upper() + told[1:]
                    elif told and told.lower() not in words.lower():
                        words = f"{words}: {told}"
                    self._say(ts, words, "$text-muted")
        elif isinstance(event, events.Evaluation):
            self._add_evaluation(event, ts)
        elif isinstance(event, events.Sample):
            self._add_sample(event, ts)
        elif isinstance(event, events.Started):
            self._stage = ""
            self.device = None
            self.export_peak_bytes = None
            if event.job in TRAINING:
                self.peak_bytes = None
            self.devices.clear()
            self.trained_readings.clear()
            self.cards.clear()
            self.cards_busy.clear()
            self.memory = Thinned()
            self.curves.begin(ts)
            if event.job in TRAINING:
                self.best_kept = None
            self._say(
                ts,
                {
                    "train": "Started",
                    "resume": "Resumed",
                    "export": "Export started",
                    "verify": "Proof started",
                }.get(event.job, "Started"),
            )
        elif isinstance(event, events.ModelReady):
            self.model = event
            self._say(
                ts, f"Model ready: {count_words(event.parameters)} weights on {one_line(event.device, 30)}"
            )
        elif isinstance(event, events.DatasetReady):
            self.dataset = event
            self._say(ts, f"Dataset ready: {counted(event.rows, 'row')}, {event.evaluation_rows:,} held out")
        elif isinstance(event, events.Probed):
            foreseen = f", predicted {bytes_words(event.predicted_bytes)}" if event.predicted_bytes else ""
            self._say(ts, f"Probe {bytes_words(event.measured_bytes)}{foreseen}")
        elif isinstance(event, events.Checkpoint):
            self.checkpoints.append(event.step)
            self._say(ts, f"Checkpoint {event.step:,} saved")
        elif isinstance(event, events.BestKept):
            self.best_kept = event
            self._say(ts, event.sentence)
        elif isinstance(event, events.Warned):
            self.warning = event
            self._say(ts, f"Warning: {one_line(event.what, 200)}", "$text-warning")
        elif isinstance(event, events.Scored):
            self.score = event
            self._say(
                ts, f"Scored: {event.base.valid} valid before, {event.tuned.valid} after, of {event.rows}"
            )
        elif isinstance(event, events.Exported):
            self.exports[event.format] = event
            self.proofs.pop(event.format, None)
            self._say(
                ts, f"Exported {one_line(event.format, 30)}: {bytes_words(event.bytes)}", "$text-success"
            )
        elif isinstance(event, events.Proved):
            self.proofs[event.format] = event
            good = event.verdict == "same"
            words = "proved" if good else one_line(event.sentence, 200)
            self._say(
                ts, f"{one_line(event.format, 30)}: {words}", "$text-success" if good else "$text-warning"
            )
        elif isinstance(event, events.Ended):
            style = "$text-error" if event.reason == "failed" else "$text-success"
            words = {"completed": "Completed", "stopped": "Stopped", "failed": "Failed"}.get(
                event.reason, "Ended"
            )
            told = (
                f": {one_line(event.what, 200)}" if event.what else f" after {duration_words(event.seconds)}"
            )
            self._say(ts, words + told, style)

    def _say(self, ts: float, words: str, style: str = "$foreground") -> None:
        self.log.append(LogLine(ts, words, style))

    def _add_step(self, event: events.Step, ts: float) -> None:
        self.curves.add_step(event, ts)
        if not math.isfinite(event.loss) and (self.step is None or math.isfinite(self.step.loss)):
            self._say(ts, f"The loss of step {event.step:,} is {number(event.loss)}", "$text-error")
        self.step = event
        self._stage = "train"

    @property
    def smoothed_loss(self) -> float | None:
        """The loss averaged over about ten steps."""
        return self.curves.average.last

    def advice(self, recipe: Recipe | None, live: bool) -> list[Advice]:
        """What the coach says; nothing while the beginning is not read, on which most rules rest."""
        if not self.whole or self.step is None:
            return []
        seen = Seen(
            self.curves,
            self.step.total_steps,
            recipe,
            self.model,
            self.dataset,
            self.step,
            tuple(self.trained_readings),
            self.memory.points(),
            live,
            tuple(self.checkpoints),
            self.best_kept is not None,
        )
        return coach.advise(seen)

    def _add_evaluation(self, event: events.Evaluation, ts: float) -> None:
        self.evaluation = event
        self.curves.evaluated(event.step, event.loss)
        self.first_evaluation = self.first_evaluation or event
        self._say(ts, f"Evaluation {number(event.loss)} at step {event.step:,}")

    def _add_sample(self, event: events.Sample, ts: float) -> None:
        if event.index not in self.asked and len(self.asked) >= PROMPTS:
            return
        prompt, answer = clean(event.prompt, SHOWN_CHARACTERS), clean(event.answer, SHOWN_CHARACTERS)
        held = self.asked.get(event.index)
        if held is None or held.prompt != prompt:
            held = self.asked[event.index] = Asked(prompt, clean(event.reference, SHOWN_CHARACTERS))
        held.answers = {
            step: text for step, text in held.answers.items() if step < event.step or event.step == 0
        }
        held.answers[event.step] = answer
        if len(held.answers) > ANSWERS:  # every other one goes, so that the whole curve can be scrubbed
            kept = sorted(held.answers)
            held.answers = {step: held.answers[step] for step in (*kept[:-1:2], kept[-1])}
        if event.index == 0:
            self._say(
                ts,
                "Answers before training kept"
                if event.step == 0
                else f"Samples written at step {event.step:,}",
            )

    def _add_device(self, event: events.Device, ts: float) -> None:
        self.device = event
        on_gpu = event.device.startswith("cuda")
        self.devices.append(event)
        for card in event.cards[:CARDS]:
            self.cards[card.index] = card
            busy = self.cards_busy.setdefault(card.index, deque(maxlen=READINGS))
            busy.append(card.utilization_percent)
        held = event.reserved_bytes if on_gpu else event.run_bytes
        if self._stage == "train":
            self.trained_readings.append(event)
            if held is not None:
                self.memory.append(ts, float(held))
        if self._stage == "export":
            if held is not None:
                self.export_peak_bytes = max(held + _context(event), self.export_peak_bytes or 0)
            return
        peak = event.peak_reserved_bytes if on_gpu else event.run_bytes
        if peak is not None:
            self.peak_bytes = max(peak + _context(event), self.peak_bytes or 0)

    def busy(self) -> list[float | None]:
        """How busy GPU or processor were, percent, oldest first."""
        return [r.utilization_percent if r.device.startswith("cuda") else r.cpu_percent for r in self.devices]

    @property
    def share_seen(self) -> float | None:
        """How much of the data was trained on so far: 1.0 is every row once."""
        return None if self.step is None else max(0.0, self.step.epoch)

    @property
    def run_bytes(self) -> int | None:
        """What the run holds now: as the driver or the system sees it, else as torch counts."""
        device = self.device
        if device is None:
            return None
        return device.run_bytes if device.run_bytes is not None else device.reserved_bytes

    def prompts(self) -> Sequence[int]:
        """The indices of the prompts, in order."""
        return sorted(self.asked)
