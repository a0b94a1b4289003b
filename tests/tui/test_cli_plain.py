"""A run told in plain lines: what is said, how often, and never anything that a terminal could obey."""

from __future__ import annotations

import math
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from finetui.core.runs.event_log import Record
from finetui.core.runs.events import (
    Checkpoint,
    DatasetReady,
    Device,
    Ended,
    Evaluation,
    Event,
    Exported,
    ModelReady,
    Probed,
    Progress,
    Proved,
    Sample,
    Scored,
    ScoreExample,
    ScoreSide,
    Started,
    Step,
    Unknown,
    Warned,
)
from finetui.core.runs.state import Card, Reducer, RunStatus
from finetui.tui.plain import Plain


def told(*happened: Event | float, width: int = 100, end: RunStatus | None = None) -> list[str]:
    """The lines for events; a number between them lets that many seconds pass."""
    lines: list[str] = []
    plain = Plain(lines.append, width)
    ts = 1000.0
    for seq, item in enumerate(happened, 1):
        if isinstance(item, (int, float)):
            ts += item
        else:
            plain.add(Record(seq, ts, item))
    if end is not None:
        plain.end(end)
    return lines


def test_a_probe_is_one_line_and_the_first_word_on_the_time_left() -> None:
    gib = 1 << 30
    probed = Probed(
        "gpu",
        predicted_bytes=9 * gib,
        measured_bytes=int(9.27 * gib),
        limit_bytes=24 * gib,
        rows=8,
        longest=512,
        tokens=4096,
        seconds=1.25,
        seconds_per_step=1.0,
        training_seconds=200.0,
        probe_seconds=31.0,
        compile_seconds=24.0,
    )
    assert probed.cost_seconds == 7.0
    (line,) = told(probed)
    assert line.startswith("probe ")
    assert "9.3 GiB measured, 9.0 GiB predicted (+3 %), of 24.0 GiB" in line
    assert "4,096 tokens in 1.2 s" in line
    assert "3 min 20 s" in line
    assert "tried in 31 s, 24 s of them to compile" in line
    reducer = Reducer(monotonic=lambda: 0.0, wall=lambda: 1000.0)
    reducer.add(Record(1, 1000.0, Started("train", 1, 1.0, "here")))
    assert reducer.eta_seconds() is None
    reducer.add(Record(2, 1000.0, probed))
    assert reducer.eta_seconds() == 200.0
    reducer.add(Record(3, 1000.0, Step(1, 5, 0.2, 2.0, 1e-4, seconds=3.0)))
    assert reducer.eta_seconds() == 12.0  # from then on its own steps count


def steps(count: int, seconds: float) -> list[Event | float]:
    out: list[Event | float] = []
    for n in range(1, count + 1):
        out += [
            seconds,
            Step(n, count, n / count, 2.0 - n / count, 1e-4, tokens_per_second=400.0, seconds=seconds),
        ]
    return out


def test_a_stage_is_told_with_its_end() -> None:
    lines = told(
        Progress("load", text="weights"),
        Progress("tokenize", 0, 330, "rows"),
        0.3,
        Progress("tokenize", 200, 330, "rows"),
        0.3,
        Progress("tokenize", 330, 330, "rows"),
    )
    assert lines == ["load       weights", "tokenize   330/330 rows"]


def test_a_long_stage_is_told_now_and_then() -> None:
    happened: list[Event | float] = []
    for i in range(101):
        happened += [Progress("download", i * 2**20, 100 * 2**20, "bytes"), 1.0]
    lines = told(*happened)
    assert 15 <= len(lines) <= 22
    assert lines[-1] == "download   100.0 MiB/100.0 MiB"


def test_a_stage_that_hangs_is_told_by_the_tick() -> None:
    lines: list[str] = []
    plain = Plain(lines.append)
    plain.add(Record(1, 1.0, Progress("tokenize", 0, 10, "rows")))
    assert lines == []
    plain.tick()
    plain.tick()
    assert lines == ["tokenize   0/10 rows"]


def test_steps_are_not_a_flood() -> None:
    slow = told(*steps(72, 2.5))
    assert 20 <= len(slow) <= 40
    assert slow[0].startswith(
        "train      step 1/72 · epoch 0.01 · loss 1.986 · rate 1.0e-04 · 400 tok/s · 2 min 58 s left"
    )
    assert "step 72/72" in slow[-1] and "left" not in slow[-1]
    fast = told(*steps(2000, 0.01))
    assert 3 <= len(fast) <= 14
    assert len(told(*steps(100_000, 0.5))) <= 900  # fourteen hours: one a minute


def test_every_loss_that_is_no_number_is_said() -> None:
    lines = told(*(Step(n, 1000, 0.1, math.nan if n > 5 else 1.0, 1e-4) for n in range(1, 10)))
    assert sum("loss nan" in line for line in lines) == 4


def test_the_events_of_a_run() -> None:
    lines = told(
        Started("train", 5, 1.0, "box"),
        ModelReady(135_000_000, 4_880_000, "cpu", "float32", load_seconds=4.0),
        DatasetReady("messages", 330, 40, 2, 21_000, 8_400, cut_rows=1),
        Sample(0, 0, "p", "before"),
        Sample(0, 1, "p", "not shown"),
        Evaluation(20, 0.5),
        Evaluation(40, 0.7),
        Sample(40, 0, "p", ""),
        Checkpoint(40, "checkpoints/step-40"),
        Warned("slow", "It is slow.", "So.", "Do."),
        Device("cpu"),
        Exported("gguf_q8_0", "exports/gguf_q8_0/x.gguf", 144_000_000, 269_000_000, 2.0, "ollama create x"),
        Proved("gguf_q8_0", "same", "It answers as the trained model did.", "llama.cpp"),
        Proved(
            "merged",
            "broken",
            "Its eos token is 0.",
            "Transformers",
            failed=("Its eos token is 0.", "And so on."),
        ),
    )
    assert lines == [
        "start      train by worker 5 on box",
        "model      135 M weights · 4.88 M trained (3.6 %) · float32 on cpu · loaded in 4 s",
        "dataset    330 rows to train on · 40 held out · 2 dropped · 1 cut · 21 K tokens, 40 % of them learned",
        "sample     before training · before",
        "evaluate   step 20 · held-out loss 0.500 · the lowest so far",
        "evaluate   step 40 · held-out loss 0.700",
        "sample     step 40 · (an empty answer)",
        "save       checkpoint at step 40",
        "warning    It is slow.",
        "           So.",
        "           Do.",
        "export     gguf_q8_0 · 137.3 MiB (the base model: 256.5 MiB) · exports/gguf_q8_0/x.gguf",
        "           next: ollama create x",
        "proof      gguf_q8_0 · proved: It answers as the trained model did.",
        "proof      merged · BROKEN: Its eos token is 0.",
        "           And so on.",
    ]


def test_the_score_compares_both_sides_with_three_examples() -> None:
    example = ScoreExample("A kettle " + "that leaks " * 20, '{"a": 1}', "Sure! " * 40, '{"a": 1}')
    for width in (40, 80, 100):
        lines = told(Scored(40, ScoreSide(1, 2, 0), ScoreSide(40, 36, 30), (example,) * 5), width=width)
        text = "\n".join(lines)
        assert re.search(r"valid JSON +1/40 +2 % +40/40 +100 %", text)
        assert re.search(r"category right +2/40 +5 % +36/40 +90 %", text)
        assert re.search(r"exactly right +0/40 +0 % +30/40 +75 %", text)
        assert len([line for line in lines if line.startswith("tuned")]) == 3
        wrapped = [line for line in lines if line[:11].strip() in ("message", "expected", "base", "tuned")]
        assert max(map(len, wrapped)) <= width
    assert "0/0" in "\n".join(told(Scored(0)))  # nothing was scored: no division by it


def test_the_end_is_told() -> None:
    assert told(end=RunStatus("completed", "train", seconds=200)) == [
        "done       train completed in 3 min 20 s"
    ]
    assert "checkpoint at step 8" in told(end=RunStatus("stopped", "train", step=9, checkpoint_step=8))[0]
    assert told(end=RunStatus("failed", card=Card("No.", "One.\nTwo.", "Fix."))) == [
        "failed     No.",
        "           One.",
        "           Two.",
        "           Fix.",
    ]


words = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ["\x1b[31mred", "\x1b]52;c;QQ==\x07", "a\r\nb"]
)
numbers = st.floats(allow_nan=True, allow_infinity=True)
counts = st.integers(-5, 10**9)
happenings = st.one_of(
    st.builds(
        Step,
        counts,
        counts,
        numbers,
        numbers,
        numbers,
        st.none() | numbers,
        tokens_per_second=st.none() | numbers,
    ),
    st.builds(Progress, words, numbers, numbers, words, words),
    st.builds(Started, words, counts, numbers, words, words),
    st.builds(ModelReady, counts, counts, words, words, load_seconds=st.floats(0, 1e6)),
    st.builds(DatasetReady, words, counts, counts, counts, counts, counts),
    st.builds(Evaluation, counts, numbers),
    st.builds(Sample, counts, st.just(0), words, words),
    st.builds(Warned, words, words, words, words),
    st.builds(Exported, words, words, counts, counts, command=words),
    st.builds(Proved, words, words, words, words, failed=st.lists(words, max_size=2).map(tuple)),
    st.builds(Ended, words, words, numbers, words),
    st.builds(Unknown, words),
    st.builds(
        Scored, counts, examples=st.lists(st.builds(ScoreExample, words, words, words, words)).map(tuple)
    ),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), happenings), max_size=8), words)
def test_whatever_comes_every_line_is_harmless(some: list[tuple[float, Event]], why: str) -> None:
    happened = [item for pair in some for item in pair]
    for line in told(*happened, end=RunStatus("failed", card=Card(why, why, why))):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", line)
