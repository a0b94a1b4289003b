"""Dataset files of every kind: found by content, read to their end or refused with a card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetui.core import dataset
from finetui.core.recipe import DatasetSection

from .dataset_rows import MESSAGES, PAIR, asked, lines, look, refused, texts, written


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
