"""A run told in plain lines, for a pipe, a log or a terminal that can do no more.

`Plain` turns records into lines and decides which are worth one. It keeps no clock of its own: what it prints depends
on the records' times alone, so a recorded run reads as a live one did.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

from ..core.runs import event_log, events
from ..core.runs.state import Card, Reducer, RunStatus
from ..core.text import bytes_words, count_words, counted, duration_words, one_line

LABEL = 11
"""Columns of the label in front of each line."""
STEP_SECONDS = 5.0
"""At least this long between two lines of steps …"""
STEP_SHARE = 0.02
"""… which are also this share of the run apart, unless …"""
QUIET_SECONDS = 60.0
"""… nothing was said for this long."""
BIG_SHARE = 0.1
"""A tenth of the run is worth a line even when it took less than `STEP_SECONDS`."""
TOLD = ("train", "evaluate", "sample", "baseline")
"""Stages whose own events tell them; their progress is said only when they take long."""
EXAMPLES = 3
ANSWER_CHARACTERS = 600


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or `—` for one that is missing. NaN and infinities are shown as such."""
    if value is None:
        return "—"
    return f"{value:.{digits}f}" if math.isfinite(value) else str(value)


def amount(value: float, unit: str) -> str:
    """`value` of a progress; bytes in words, all else with thousands marked."""
    if not math.isfinite(value):
        return "—"
    return bytes_words(value) if unit == "bytes" else f"{value:,.0f}"


def probed_words(event: events.Probed) -> str:
    """What a probe found, in one line: predicted against measured."""
    parts = [f"{bytes_words(event.measured_bytes)} measured"]
    if event.gap is not None:
        parts[0] += f", {bytes_words(event.predicted_bytes)} predicted ({event.gap:+.0%})".replace("%", " %")
    if event.limit_bytes:
        parts[0] += f", of {bytes_words(event.limit_bytes)}"
    parts.append(f"longest batch {event.tokens:,} tokens in {_seconds(event.seconds)}")
    if event.training_seconds:
        parts.append(f"training about {duration_words(event.training_seconds)}")
    if event.probe_seconds:
        compiled = f", {_seconds(event.compile_seconds)} of them to compile" if event.compile_seconds else ""
        parts.append(f"tried in {_seconds(event.probe_seconds)}{compiled}")
    return " · ".join(parts)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration_words(seconds)


@dataclass
class Plain:
    """Writes a run's lines through `write`, at most `width` columns wide (the score table and the examples wrap)."""

    write: Callable[[str], None]
    width: int = 100
    reducer: Reducer = field(default_factory=Reducer)
    _stage: str = ""
    _waiting: events.Progress | None = None
    _progress_ts: float = -math.inf
    _progress_done: tuple[str, float] = ("", -1.0)
    _step_ts: float = -math.inf
    _step: int = 0
    _unwritten: str = ""

    def add(self, record: event_log.Record) -> None:
        """Tells `record`, if it is worth a line."""
        self.reducer.add(record)
        event = record.event
        if isinstance(event, events.Progress):
            self._progress(event, record.ts)
            return
        if not isinstance(event, (events.Device, events.Unknown)):
            self._leave_stage()
        if isinstance(event, events.Step):
            self._train(event, record.ts)
        elif isinstance(event, events.Started):
            self._stage, self._step, self._step_ts = "", 0, -math.inf
            self._say("start", f"{event.job} by worker {event.pid} on {one_line(event.host, 60)}")
        elif isinstance(event, events.ModelReady):
            self._model(event)
        elif isinstance(event, events.DatasetReady):
            self._dataset(event)
        elif isinstance(event, events.Probed):
            self._say("probe", probed_words(event))
        elif isinstance(event, events.Evaluation):
            best = self.reducer.best
            lowest = " · the lowest so far" if best is event and event.step > 0 else ""
            self._say("evaluate", f"step {event.step:,} · held-out loss {number(event.loss)}{lowest}")
        elif isinstance(event, events.Sample):
            if event.index == 0:
                when = "before training" if event.step == 0 else f"step {event.step:,}"
                shown = max(20, self.width - LABEL - len(when) - 10)
                self._say("sample", f"{when} · {one_line(event.answer, shown) or '(an empty answer)'}")
        elif isinstance(event, events.Paused):
            self._say("paused", f"after step {event.step:,}; everything stays in memory")
        elif isinstance(event, events.Continued):
            self._say("continued", f"after a pause of {duration_words(event.seconds)}")
        elif isinstance(event, events.Checkpoint):
            self._say("save", f"checkpoint at step {event.step:,}")
        elif isinstance(event, events.BestKept):
            self._say("best", event.sentence)
        elif isinstance(event, events.Warned):
            self._say("warning", one_line(event.what, 400))
            for part in (event.why, event.fix):
                if part:
                    self._say("", one_line(part, 400))
        elif isinstance(event, events.Scored):
            self._score(event)
        elif isinstance(event, events.Exported):
            self._exported(event)
        elif isinstance(event, events.Proved):
            self._proved(event)

    def tick(self) -> None:
        """Call it when nothing has come for a while: says a progress that was held back."""
        self._flush()

    def silent(self, status: RunStatus) -> None:
        """Says once why nothing comes, where the worker cannot write it."""
        if status.unwritten != self._unwritten:
            self._unwritten = status.unwritten
            if status.unwritten:
                self._say("warning", status.unwritten)

    def end(self, status: RunStatus, skipped: int = 0) -> None:
        """The closing lines. `skipped` is how many lines of the events were damaged."""
        self._leave_stage()
        if skipped:
            self._say("warning", f"{counted(skipped, 'line')} of events.jsonl could not be read and left out")
        if status.state == "completed":
            self._say("done", f"{status.job} completed in {duration_words(status.seconds)}")
        elif status.state == "stopped":
            kept = (
                f" · checkpoint at step {status.checkpoint_step:,}"
                if status.checkpoint_step is not None
                else " · no checkpoint"
            )
            self._say("stopped", f"at step {status.step:,} after {duration_words(status.seconds)}{kept}")
        else:
            card = status.card or Card("The run ended.")
            self._say(status.state, one_line(card.what, 400))
            for part in (card.why, card.fix):
                for row in part.splitlines():
                    self._say("", one_line(row, 400))

    def _say(self, label: str, words: str) -> None:
        self.write(f"{one_line(label, LABEL - 1):<{LABEL}}{one_line(words, 2000)}".rstrip())

    def _wrapped(self, label: str, words: str) -> None:
        rows = textwrap.wrap(words, max(20, self.width - LABEL), break_on_hyphens=False) or ["(empty)"]
        for i, row in enumerate(rows):
            self._say(label if i == 0 else "", row)

    def _progress(self, event: events.Progress, ts: float) -> None:
        if self._waiting is not None and self._waiting.stage != event.stage:
            self._leave_stage()
        if event.stage != self._stage:
            self._stage, self._progress_ts = event.stage, ts
            if event.stage == "train" and event.total > 0:
                self._say("train", f"{event.total:,.0f} steps")
                return
            if event.total <= 0:
                self._tell(event)
                return
        if event.stage == "train":
            return
        self._waiting = event
        ended = event.total > 0 and event.done >= event.total and event.stage not in TOLD
        if ended or ts - self._progress_ts >= STEP_SECONDS:
            self._progress_ts = ts
            self._flush()

    def _leave_stage(self) -> None:
        if self._waiting is not None and self._waiting.stage in TOLD:
            self._waiting = None
        self._flush()

    def _flush(self) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._tell(waiting)

    def _tell(self, event: events.Progress) -> None:
        if self._progress_done == (event.stage, event.done) and event.done > 0:
            return
        self._progress_done = (event.stage, event.done)
        parts = []
        if event.total > 0:
            unit = "" if event.unit == "bytes" else f" {one_line(event.unit, 20)}".rstrip()
            parts.append(f"{amount(event.done, event.unit)}/{amount(event.total, event.unit)}{unit}")
        elif event.done > 0:
            parts.append(
                f"{amount(event.done, event.unit)} {event.unit if event.unit != 'bytes' else ''}".rstrip()
            )
        if event.text:
            parts.append(one_line(event.text, 200))
        self._say(event.stage, " · ".join(parts) or "…")

    def _train(self, event: events.Step, ts: float) -> None:
        again = event.step <= self._step
        gap = abs(ts - self._step_ts)
        share = (event.step - self._step) / max(1, event.total_steps)
        due = (
            again
            or self._step == 0
            or event.step == event.total_steps
            or not math.isfinite(event.loss)
            or (gap >= STEP_SECONDS and (share >= STEP_SHARE or gap >= QUIET_SECONDS))
            or (share >= BIG_SHARE and gap >= 1.0)
        )
        if not due:
            return
        self._step, self._step_ts = event.step, ts
        parts = [
            f"step {event.step:,}/{event.total_steps:,}",
            f"epoch {number(event.epoch, 2)}",
            f"loss {number(event.loss)}",
            f"rate {event.learning_rate:.1e}",
        ]
        if event.tokens_per_second is not None:
            parts.append(f"{number(event.tokens_per_second, 0)} tok/s")
        each = self.reducer.seconds_per_step()
        left = max(0, event.total_steps - event.step)
        if each is not None and math.isfinite(each) and left:
            parts.append(f"{duration_words(left * each)} left")
        self._say("train", " · ".join(parts))

    def _model(self, event: events.ModelReady) -> None:
        parts = [f"{count_words(event.parameters)} weights"]
        if event.trainable:
            share = 100 * event.trainable / max(1, event.parameters)
            parts.append(f"{count_words(event.trainable)} trained ({share:.2g} %)")
        parts += [f"{one_line(event.dtype, 20)} on {one_line(event.device, 60)}"]
        if event.load_seconds > 0:
            parts.append(f"loaded in {duration_words(event.load_seconds)}")
        self._say("model", " · ".join(parts))

    def _dataset(self, event: events.DatasetReady) -> None:
        parts = [f"{event.rows:,} rows to train on", f"{event.evaluation_rows:,} held out"]
        if event.dropped:
            parts.append(f"{event.dropped:,} dropped")
        if event.cut_rows:
            parts.append(f"{event.cut_rows:,} cut")
        if event.tokens:
            share = 100 * event.trained_tokens / event.tokens
            parts.append(f"{count_words(event.tokens)} tokens, {share:.0f} % of them learned")
        self._say("dataset", " · ".join(parts))

    def _score(self, event: events.Scored) -> None:
        rows = max(0, event.rows)
        self.write("")
        self.write(f"Score on {rows:,} held-out rows, base and tuned under the same system prompt")
        self.write(f"  {'':<18}{'base':>16}{'tuned':>16}")
        for title, base, tuned in (
            ("valid JSON", event.base.valid, event.tuned.valid),
            ("category right", event.base.category_right, event.tuned.category_right),
            ("exactly right", event.base.exact, event.tuned.exact),
        ):
            self.write(f"  {title:<18}{_of(base, rows):>16}{_of(tuned, rows):>16}")
        for example in event.examples[:EXAMPLES]:
            self.write("")
            for label, words in (
                ("message", example.prompt),
                ("expected", example.reference),
                ("base", example.base),
                ("tuned", example.tuned),
            ):
                if words or label != "expected":
                    self._wrapped(label, one_line(words, ANSWER_CHARACTERS))
        self.write("")

    def _exported(self, event: events.Exported) -> None:
        size = bytes_words(event.bytes)
        if event.base_bytes:
            size += f" (the base model: {bytes_words(event.base_bytes)})"
        of = "" if event.step is None else f" · of step {event.step:,}"
        of += ", there already" if event.kept else ""
        self._say("export", f"{one_line(event.format, 40)} · {size}{of} · {one_line(event.path, 300)}")
        if event.command:
            self._say("", f"next: {one_line(event.command, 1000)}")

    def _proved(self, event: events.Proved) -> None:
        words = {"same": "proved", "differs": "DIFFERS", "broken": "BROKEN"}.get(event.verdict, event.verdict)
        self._say("proof", f"{one_line(event.format, 40)} · {words}: {one_line(event.sentence, 400)}")
        for sentence in event.failed[1:]:
            self._say("", one_line(sentence, 400))


def _of(count: int, rows: int) -> str:
    share = f"{100 * count / rows:.0f} %" if rows else "—"
    return f"{count}/{rows} {share:>6}"
