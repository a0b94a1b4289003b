"""Rows of every shape: their format, the conversations they become, and how they are split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetui.core import dataset
from finetui.core.dataset import Format, LoadedDataset, Turn
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection

from .dataset_rows import MESSAGES, PAIR, asked, lines, refused, written

# Formats


@pytest.mark.parametrize(
    ("row", "format"),
    [
        (MESSAGES, "messages"),
        ({"conversations": MESSAGES["messages"]}, "messages"),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
            "sharegpt",
        ),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, "alpaca"),
        ({"instruction": "Hi", "context": None, "response": "Hello"}, "alpaca"),
        ({"prompt": "Hi", "completion": "Hello"}, "prompt_completion"),
        ({"Prompt": "Hi", "RESPONSE": "Hello"}, "prompt_completion"),
        ({"question": "Hi", "answer": "Hello", "id": 7}, "prompt_completion"),
        ({"input": "Hi", "output": "Hello"}, "prompt_completion"),
        (
            {"prompt": [MESSAGES["messages"][0]], "completion": [MESSAGES["messages"][1]]},
            "prompt_completion",
        ),
    ],
)
def test_formats_are_detected_and_read_alike(row: dict[str, Any], format: str) -> None:
    found = dataset.detect([row])
    assert found.format == format and found.reason
    turns = dataset.conversation(row, found.format, DatasetSection())
    assert turns.turns == (Turn("user", "Hi"), Turn("assistant", "Hello", learned=True))


def test_alpaca_joins_instruction_and_input() -> None:
    row = {"instruction": "Translate.", "input": "Guten Tag", "output": "Good day"}
    assert dataset.conversation(row, "alpaca", DatasetSection())[0].text == "Translate.\n\nGuten Tag"


def test_system_prompts() -> None:
    section = DatasetSection(system_prompt="Be brief.")
    own = {"messages": [{"role": "system", "content": "Mine"}, *MESSAGES["messages"]]}
    assert dataset.conversation(MESSAGES, "messages", section)[0] == Turn("system", "Be brief.")
    assert dataset.conversation(own, "messages", section)[0] == Turn("system", "Mine")
    column = {"system": "Column", **PAIR}
    assert dataset.conversation(column, "prompt_completion", section)[0] == Turn("system", "Column")


def test_learning_everything() -> None:
    turns = dataset.conversation(PAIR, "prompt_completion", DatasetSection(train_on="everything"))
    assert all(turn.learned for turn in turns)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no messages"),
        ([{"role": "user", "content": "a"}], "no assistant turn"),
        ([{"role": "assistant", "content": "a"}], "starts with an answer, no question before it"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}], "empty answer"),
        ([{"role": "user", "content": "\0"}, {"role": "assistant", "content": "a"}], "empty question"),
        ([{"role": "king", "content": "a"}], "unknown role king"),
        ([{"role": ["x"], "content": "a"}], "unknown role"),
        ([{"role": "user", "content": {"a": 1}}], "the content of a message is not text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "holds images or sound, not only text"),
        ([{"role": "assistant", "content": None, "tool_calls": [1]}], "a tool call names no function"),
        ("hello", "messages is not a list of messages"),
    ],
)
def test_rows_that_cannot_be_used_say_why(messages: Any, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        dataset.conversation({"messages": messages}, "messages", DatasetSection())
    assert str(caught.value) == reason


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "a"}]}
    assert dataset.conversation(row, "messages", DatasetSection())[0].text == "one\ntwo"


def test_the_majority_of_rows_decides() -> None:
    assert dataset.detect([PAIR, MESSAGES, MESSAGES]).format == "messages"


FORMATS: tuple[Format, ...] = (
    *("messages", "sharegpt", "alpaca", "prompt_completion", "text", "preference"),
)
_names = st.sampled_from(
    ["messages", "conversations", "prompt", "completion", "Instruction", "input", "output", "role", "from"]
    + ["content", "value", "system", "chosen", "text", "tool_calls", "\ud800", "x\x1b[31m"]
)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**4000)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["user", "assistant", "gpt", "human", "[", "[{'role': 1}]", '[{"role":"user"}]', "\ud800", "\0"]
    )
    | st.binary(max_size=4)
)
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names | st.integers(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.dictionaries(_names | st.integers(), _values, max_size=6), max_size=4))
def test_rows_of_any_shape_raise_only_what_is_promised(rows: list[dict[Any, Any]]) -> None:
    try:
        dataset.detect(rows)
    except FinetuiError as error:
        assert error.code in ("dataset-format", "dataset-empty")
    for row in rows:
        for format in FORMATS:
            try:
                turns = dataset.conversation(row, format, DatasetSection(system_prompt="S"))
            except ValueError:
                continue
            assert any(turn.learned and turn.text for turn in turns)
            assert "".join(turn.text for turn in turns).encode()  # no lone surrogate is left


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=300), name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt"])
)
def test_bytes_of_any_kind_raise_only_cards(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    file = tmp_path_factory.getbasetemp() / name
    for start in (b"", b"[{", b'{"prompt":', b"prompt,completion\n", b"\xff\xfe", b"\xef\xbb\xbf["):
        file.write_bytes(start + content)
        try:
            list(dataset.read_rows(file))
        except FinetuiError as error:
            assert error.code.startswith("dataset-")


# Splits


def test_what_is_counted_is_what_is_loaded(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "completion": f"a{i}" if i % 5 else ""} for i in range(100)]
    section = DatasetSection(source=written(tmp_path, "a.jsonl", lines(*rows)), row_limit=50)
    facts, loaded = dataset.inspect(section), dataset.load(section, 7)
    assert (facts.rows, facts.train_rows, facts.evaluation_rows) == (80, 45, 5)
    assert (len(loaded.train), len(loaded.evaluation)) == (45, 5)
    assert not {c[0].text for c in loaded.train} & {c[0].text for c in loaded.evaluation}
    again = dataset.from_rows(rows, section, 7)
    assert (again.train, again.evaluation) == (loaded.train, loaded.evaluation)


def test_a_held_out_file_takes_nothing_from_the_rows(tmp_path: Path) -> None:
    train = written(tmp_path, "train.jsonl", lines(*[PAIR] * 30))
    held = written(tmp_path, "held.csv", "question,answer\na,b\nc,\nd,e\n")
    section = DatasetSection(source=train, evaluation_source=held)
    facts, loaded = dataset.inspect(section), dataset.load(section, 1)
    assert (facts.rows, facts.train_rows, facts.evaluation_rows) == (30, 30, 2)
    assert (len(loaded.train), len(loaded.evaluation)) == (30, 2)
    assert loaded.evaluation_dropped[0].reason == "empty answer"
    assert refused(train, evaluation_source=str(tmp_path / "no.csv")).what.startswith("The held-out file")


def test_evaluation_rows_of_a_hub_dataset(tmp_path: Path) -> None:
    loaded = dataset.from_rows([asked(i) for i in range(9)], DatasetSection(), 1, evaluation_rows=[MESSAGES])
    assert isinstance(loaded, LoadedDataset)
    assert (len(loaded.train), len(loaded.evaluation)) == (9, 1)


def test_progress_counts_rows() -> None:
    seen: list[int] = []
    dataset.from_rows([PAIR] * 1000, DatasetSection(), 1, progress=seen.append)
    assert seen == [256, 512, 768]


def test_inspect_can_be_cancelled() -> None:
    with pytest.raises(FinetuiError) as caught:
        dataset.inspect(DatasetSection(source="nobody/nothing"), cancelled=lambda: True)
    assert caught.value.code == "cancelled"
