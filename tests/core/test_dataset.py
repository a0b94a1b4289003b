"""Datasets of every kind and shape: read, detected, converted, counted, split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetui.core import dataset
from finetui.core.dataset import DatasetFacts, Format, LoadedDataset, Turn
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection

PAIR = {"prompt": "Where is my parcel?", "completion": "On its way."}
MESSAGES = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def asked(number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"Hi {number}"}, MESSAGES["messages"][1]]}


def written(folder: Path, name: str, content: str | bytes) -> str:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def look(source: str, **section: Any) -> DatasetFacts:
    return dataset.inspect(DatasetSection(source=source, **section))


def refused(source: str, **section: Any) -> FinetuiError:
    with pytest.raises(FinetuiError) as caught:
        look(source, **section)
    assert caught.value.what and caught.value.fix, "a card has a what and a fix"
    return caught.value


def texts(facts: DatasetFacts, row: int = 0) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in facts.first[row]]


# Files


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jsonl", lines(PAIR, PAIR), "JSONL"),
        ("a.json", lines(PAIR, PAIR), "JSONL"),
        ("a.txt", lines(PAIR, PAIR), "JSONL"),
        ("a.json", json.dumps([PAIR, PAIR]), "JSON"),
        ("a.json", json.dumps([PAIR, PAIR], indent=2), "JSON"),
        ("a.jsonl", json.dumps([PAIR, PAIR]), "JSON"),
        ("a.json", json.dumps({"version": 1, "data": [PAIR, PAIR]}, indent=1), "JSON"),
        ("a.json", json.dumps({"train": [PAIR, PAIR], "test": [PAIR]}), "JSON"),
        ("a.csv", "prompt,completion\nWhere is my parcel?,On its way.\nb,c\n", "CSV"),
        ("a.tsv", "prompt\tcompletion\nWhere is my parcel?\tOn its way.\nb\tc\n", "TSV"),
        ("a.jsonl", "\ufeff" + lines(PAIR, PAIR).replace("\n", "\r\n"), "JSONL"),
        ("a.jsonl", "\n\n" + lines(PAIR) + "\n   \n" + lines(PAIR).strip(), "JSONL"),
    ],
)
def test_the_kind_is_found_by_content(tmp_path: Path, name: str, content: str, kind: str) -> None:
    facts = look(written(tmp_path, name, content))
    assert facts.file_kind == kind
    assert facts.rows == 2 and facts.rows_exact
    assert texts(facts) == [("user", "Where is my parcel?"), ("assistant", "On its way.")]


def test_a_one_row_object_is_a_row_and_not_a_list_of_messages(tmp_path: Path) -> None:
    facts = look(written(tmp_path, "one.json", json.dumps(MESSAGES, indent=2)))
    assert facts.rows == 1 and facts.detection.format == "messages"


def test_several_lists_without_the_split_ask_which(tmp_path: Path) -> None:
    source = written(tmp_path, "a.json", json.dumps({"one": [PAIR], "two": [PAIR]}))
    assert "one, two" in refused(source).why
    assert look(source, split="two").rows == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_csv_delimiters_quotes_and_line_ends(tmp_path: Path, delimiter: str, ending: str) -> None:
    rows = [["Question", "Answer"], ['"one; two, three\nnext ""line"""', "yes"], ["b", "no"]]
    content = ending.join(delimiter.join(row) for row in rows) + ending
    facts = look(written(tmp_path, "a.csv", content))
    assert texts(facts) == [("user", 'one; two, three\nnext "line"'), ("assistant", "yes")]
    assert facts.rows == 2


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"]
)
def test_csv_encodings(tmp_path: Path, encoding: str) -> None:
    facts = look(written(tmp_path, "a.csv", "prompt,completion\nçà et là,déjà vu\nb,c\n".encode(encoding)))
    assert texts(facts) == [("user", "çà et là"), ("assistant", "déjà vu")]


def test_csv_cells_that_hold_messages(tmp_path: Path) -> None:
    as_json = json.dumps(MESSAGES["messages"]).replace('"', '""')
    as_python = repr(MESSAGES["messages"]).replace('"', '""')
    facts = look(written(tmp_path, "a.csv", f'messages\n"{as_json}"\n"{as_python}"\n'))
    assert facts.detection.format == "messages" and facts.rows == 2
    assert texts(facts, 0) == texts(facts, 1) == [("user", "Hi"), ("assistant", "Hello")]


def test_csv_rows_with_too_many_cells_are_counted(tmp_path: Path) -> None:
    facts = look(written(tmp_path, "a.csv", "prompt,completion\na,b\nc,d,e\nf\ng,h\n"))
    assert facts.rows == 2
    reasons = {d.reason: (d.count, d.first) for d in facts.dropped}
    assert reasons == {
        "more cells than the header has columns": (1, (3,)),
        "empty answer": (1, (4,)),
    }


def test_parquet_is_looked_at_in_a_process_of_its_own(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([asked(i) for i in range(300)]), file)
    facts = look(str(file))
    assert (facts.file_kind, facts.rows, facts.evaluation_rows) == ("Parquet", 300, 30)
    assert texts(facts) == [("user", "Hi 0"), ("assistant", "Hello")]
    assert len(dataset.load(DatasetSection(source=str(file)), 1).train) == 270
    file.write_bytes(file.read_bytes()[:-20])
    assert refused(str(file)).code == "dataset-broken"


@pytest.mark.parametrize(
    ("name", "content", "code", "word"),
    [
        ("empty.jsonl", b"", "dataset-empty", "empty"),
        ("blank.jsonl", b"\xef\xbb\xbf \n\r\n\t", "dataset-empty", "empty"),
        ("list.json", b"[]", "dataset-empty", "no rows"),
        ("head.csv", b"prompt,completion\n", "dataset-empty", "no rows"),
        ("binary.jsonl", bytes(range(256)) * 50, "dataset-broken", "binary"),
        ("picture.csv", b"\x89PNG\r\n\x1a\n" + b"\0\1\2\3" * 100, "dataset-broken", "binary"),
        ("rows.jsonl.gz", b"\x1f\x8b\x08\0rest", "dataset-broken", "unpacked"),
        ("rows.jsonl.bz2", b"BZh91AY&SY", "dataset-broken", "bunzip2"),
        ("book.xlsx", b"PK\x03\x04rest", "dataset-broken", "CSV"),
        ("model.gguf", b"GGUF\3\0\0\0", "dataset-broken", "GGUF"),
        ("deep.json", b"[" * 200_000, "dataset-broken", "deep"),
        ("object.json", b'{"a":' * 200_000, "dataset-broken", "deep"),
        ("line.jsonl", b'\n{"prompt": "a",\n', "dataset-broken", "Line 2"),
        ("cut.json", json.dumps([PAIR] * 3, indent=1)[:-4].encode(), "dataset-broken", "Line 13"),
        ("comma.json", b'[{"prompt":"a","completion":"b"}\n {"prompt":"c"}]', "dataset-broken", "Line 2"),
        ("tail.json", b'[{"prompt":"a","completion":"b"}]\n[1]', "dataset-broken", ".jsonl"),
        ("number.json", b"12", "dataset-broken", "neither"),
        ("quote.csv", b'prompt,completion\na,b\n"open,c\nd,e\n', "dataset-broken", "line 3"),
        ("columns.csv", b"when,who\n1,2\n", "dataset-format", "when, who"),
        ("dpo.jsonl", b'{"chosen": "a", "rejected": "b"}\n', "dataset-format", "no prompt"),
        ("lists.jsonl", b"1\n2\n", "dataset-format", "not a JSON object"),
        (
            "unanswered.jsonl",
            lines({"prompt": "a", "completion": ""}).encode(),
            "dataset-format",
            "empty answer",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_what_cannot_be_used_gets_a_card(
    tmp_path: Path, name: str, content: bytes, code: str, word: str
) -> None:
    card = refused(written(tmp_path, name, content))
    assert card.code == code
    assert word in str(card)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    written(tmp_path, "rows.jsonl", lines(PAIR))
    assert refused(str(tmp_path / "nope.jsonl")).code == "dataset-missing"
    (tmp_path / "none").mkdir()
    assert refused(str(tmp_path / "none")).code == "dataset-missing"
    assert refused("~nobody-at-all/x.csv").code == "dataset-missing"
    assert refused("what is this?").code == "dataset-missing"
    assert dataset.source_kind("mlabonne/FineTome-100k") == "hub"
    assert dataset.source_kind("./rows") == "file"


def test_bad_rows_are_dropped_and_counted_never_silent(tmp_path: Path) -> None:
    source = written(
        tmp_path,
        "a.jsonl",
        lines(PAIR, [1], PAIR, {"prompt": "a", "completion": " "})
        + "[" * 200_000
        + "\n"
        + '{"prompt": "'
        + "a" * (10 * 1024 * 1024)
        + '", "completion": "b"}\n'
        + lines(PAIR),
    )
    facts = look(source)
    assert facts.rows == 3
    assert {d.reason: (d.count, d.first) for d in facts.dropped} == {
        "not a JSON object": (1, (2,)),
        "empty answer": (1, (4,)),
        "nested too deeply": (1, (5,)),
        "longer than 10 MB": (1, (6,)),
    }
    loaded = dataset.load(DatasetSection(source=source, evaluation_share=0.0), 1)
    assert len(loaded.train) == 3 and loaded.dropped == facts.dropped and loaded.dropped_rows == 4


def test_copies_that_go_by_choice_are_left_out_and_not_called_unusable(tmp_path: Path) -> None:
    rows = [json.dumps({"question": f"What is {n}?", "answer": f"A number, {n}."}) for n in range(5)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*rows, rows[0], rows[1], "{broken"]))
    found = dataset.inspect(DatasetSection(source=str(path), deduplicate=True))
    assert found.left_out == "3 rows are left out; 2 of them: a copy of an earlier row (rows 6, 7)"
    assert dataset.inspect(DatasetSection(source=str(path))).left_out.startswith(
        "1 row is left out: broken JSON"
    )


def test_unreadable_rows_at_the_start_do_not_decide_the_format(tmp_path: Path) -> None:
    facts = look(written(tmp_path, "a.jsonl", "1\n" * 300 + lines(PAIR)))
    assert facts.detection.format == "prompt_completion"
    assert (facts.rows, facts.dropped_rows) == (1, 300)


def test_text_that_no_tokenizer_takes_is_replaced(tmp_path: Path) -> None:
    content = '{"prompt": "a\\u0000b \\ud800", "completion": "\\ud83d\\ude00 \x00c"}\n'
    assert texts(look(written(tmp_path, "a.jsonl", content))) == [
        ("user", "ab \ufffd"),
        ("assistant", "😀 c"),
    ]


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    """A sparse gigabyte whose far end would be an error: the look ends before it, and says that it estimates."""
    file = tmp_path / "big.jsonl"
    row = lines({"prompt": "q" * 900, "completion": "a" * 60}).encode()
    with file.open("wb") as stream:
        stream.write(row * 200_000)
        stream.truncate(2 * 1024**3)
    facts = look(str(file))
    file.unlink()
    assert not facts.rows_exact
    assert facts.rows is not None and 1_800_000 < facts.rows < 2_500_000
    assert len(facts.first) == 20


def test_long_elements_of_a_list_and_long_lists(tmp_path: Path) -> None:
    rows = [{"prompt": "q" * 500_000, "completion": str(i)} for i in range(4)] + [PAIR] * 3000
    loaded = dataset.load(
        DatasetSection(source=written(tmp_path, "a.json", json.dumps(rows)), evaluation_share=0.0), 1
    )
    assert len(loaded.train) == 3004
    assert [c[1].text for c in loaded.train[:4]] == ["0", "1", "2", "3"]


def test_one_broken_element_of_a_long_list_is_named(tmp_path: Path) -> None:
    rows = [json.dumps(PAIR)] * 5000
    rows[3000] = '{"prompt": "a" "completion": "b"}'
    source = written(tmp_path, "a.json", "[" + ",\n".join(rows) + "]")
    card = refused(source)
    assert card.code == "dataset-broken" and "Line 3001, element 3001" in card.why
    written(tmp_path, "a.json", json.dumps([{"prompt": "a" * (11 * 1024 * 1024), "completion": "b"}, PAIR]))
    facts = look(source)
    assert facts.rows == 1 and facts.dropped[0].reason == "longer than 10 MB"


def test_a_large_object_is_looked_at_in_a_process_of_its_own(tmp_path: Path) -> None:
    rows = [{"prompt": "q" * 900, "completion": "a"}] * 10_000
    facts = look(written(tmp_path, "a.json", json.dumps({"data": rows})))
    assert facts.rows == 10_000 and facts.file_kind == "JSON"


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
