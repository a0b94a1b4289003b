"""The events file: every record survives the trip, a torn one is waited for, a broken one is skipped and counted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetui.core.runs import event_log
from finetui.core.runs.event_log import EventReader, Record, decode, encode
from finetui.core.runs.events import (
    Ended,
    Sample,
    Scored,
    ScoreExample,
    ScoreSide,
    Started,
    Step,
    Unknown,
    Warned,
)

words = st.text(st.characters(codec=None), max_size=30)
"""Any characters, lone surrogates and controls included."""
numbers = st.floats(allow_nan=True, allow_infinity=True)
happenings = st.one_of(
    st.builds(Step, st.integers(0), st.integers(0), numbers, numbers, numbers, st.none() | numbers),
    st.builds(Sample, st.integers(0), st.integers(0), words, words, words),
    st.builds(Warned, words, words, words, words),
    st.builds(Started, words, st.integers(0), numbers, words, words),
    st.builds(Ended, words, words, numbers, words, words, words, words),
    st.builds(
        Scored,
        st.integers(0),
        st.builds(ScoreSide, st.integers(0)),
        st.builds(ScoreSide, st.integers(0)),
        st.lists(st.builds(ScoreExample, words, words, words, words), max_size=3).map(tuple),
    ),
)
records = st.builds(
    Record, st.integers(1, 10**9), st.floats(0, 4e9, allow_nan=False, allow_infinity=False), happenings
)


def same(a: Record, b: Record) -> bool:
    return repr(a) == repr(b)  # NaN is not equal to itself


@settings(deadline=None)
@given(records)
def test_a_record_survives_the_trip(record: Record) -> None:
    line = encode(record)
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and line.isascii()
    back = decode(line)
    assert back is not None and same(back, record)


def test_a_kind_from_the_future_is_kept() -> None:
    line = b'{"v":9,"seq":1,"ts":2.0,"kind":"chorus","voices":[1,2]}\n'
    back = decode(line)
    assert back is not None and back.event == Unknown("chorus", {"voices": [1, 2]})
    assert decode(encode(back)) == back


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"12",
        b"{}",
        b'{"seq":1,"ts":1}',
        b'{"seq":"1","ts":1,"kind":"step"}',
        b'{"seq":1,"ts":1,"kind":"step"}',
        b'{"seq":1,"ts":1,"kind":["step"]}',
        b'{"seq":1,"ts":1,"kind":"evaluation","step":true,"loss":1}',
        b'{"seq":1,"ts":1,"kind":"evaluation","step":1,"loss":"much"}',
        b'{"seq":1,"ts":1,"kind":"evaluation","step":1,"loss":[]}',
        b'{"seq":1,"ts":1,"kind":"score","rows":1,"base":7}',
        b'{"seq":1,"ts":1,"kind":"score","rows":1,"examples":7}',
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"x" * (event_log.MAX_LINE_BYTES + 1),
    ],
)
def test_what_is_no_event_is_none(line: bytes) -> None:
    assert decode(line) is None


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_none(line: bytes) -> None:
    decode(line)


@settings(deadline=None, max_examples=30)
@given(st.lists(records, min_size=1, max_size=3))
def test_torn_at_every_byte_the_whole_records_are_kept_and_the_rest_is_waited_for(
    tmp_path_factory: pytest.TempPathFactory, some: list[Record]
) -> None:
    path = tmp_path_factory.mktemp("torn") / "events.jsonl"
    lines = [encode(r) for r in some]
    whole = b"".join(lines)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        reader = EventReader(path)
        first = reader.read()
        assert len(first) == whole[:cut].count(b"\n")
        with path.open("ab") as file:
            file.write(whole[cut:])
        got = first + reader.read()
        assert len(got) == len(some) and all(same(a, b) for a, b in zip(got, some, strict=True))
        assert reader.skipped == 0


def test_a_line_broken_in_the_middle_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    one, two = (encode(Record(i, 1.0, Warned("w", "x"))) for i in (1, 2))
    for cut in range(1, len(one)):
        path.write_bytes(
            one + one[:cut] + b"\n" + two
        )  # a worker died while writing; the next began a new line
        reader = EventReader(path)
        assert [r.seq for r in reader.read()] == ([1, 1, 2] if cut == len(one) - 1 else [1, 2])
        assert reader.skipped == (0 if cut == len(one) - 1 else 1)


def test_small_reads_give_the_same_as_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(encode(Record(i, 1.0, Warned("w", "x" * i))) for i in range(1, 50)))
    reader = EventReader(path)
    got: list[int] = []
    while reader.offset < path.stat().st_size:
        got += [r.seq for r in reader.read(max_bytes=7)]
    assert got == list(range(1, 50))


def test_a_line_without_end_costs_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    after = encode(Record(1, 1.0, Warned("w", "x")))
    path.write_bytes(b"x" * (3 * event_log.MAX_LINE_BYTES) + b"\n" + after)
    reader = EventReader(path)
    got: list[Record] = []
    while reader.offset < path.stat().st_size:
        got += reader.read(max_bytes=1024 * 1024)
        assert len(reader._rest) <= event_log.MAX_LINE_BYTES + 1
    assert [r.seq for r in got] == [1] and reader.skipped == 1


def test_a_missing_file_is_empty_and_a_replaced_one_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.read() == []
    path.write_bytes(encode(Record(7, 1.0, Warned("w", "x" * 50))))
    assert [r.seq for r in reader.read()] == [7]
    path.write_bytes(encode(Record(1, 1.0, Warned("w", "x"))))
    assert [r.seq for r in reader.read()] == [1]


def test_numbers_that_json_does_not_have_come_back() -> None:
    back = decode(encode(Record(1, 1.0, Step(1, 1, 1.0, math.nan, math.inf, -math.inf))))
    assert back is not None and isinstance(back.event, Step)
    assert math.isnan(back.event.loss) and back.event.learning_rate == math.inf
    assert back.event.grad_norm == -math.inf
