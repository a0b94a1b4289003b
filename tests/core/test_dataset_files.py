"""Every kind of dataset file and folder, made by hand to be nasty: read, or refused in words, and never lost."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from finetui.core import dataset
from finetui.core.dataset import DatasetFacts, DroppedRow, Walk
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection


def row(number: int) -> dict[str, Any]:
    return {"prompt": f"q{number}", "completion": f"a{number}"}


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(r) + "\n" for r in rows).encode()


def written(folder: Path, name: str, content: bytes | str) -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


def look(source: str | Path, **section: Any) -> DatasetFacts:
    return dataset.inspect(DatasetSection(source=str(source), **section))


def refused(source: str | Path, **section: Any) -> FinetuiError:
    with pytest.raises(FinetuiError) as caught:
        look(source, **section)
    assert caught.value.what and caught.value.fix
    return caught.value


def walked(source: str | Path, **section: Any) -> list[dataset.Conversation | DroppedRow]:
    walk = Walk(DatasetSection(source=str(source), **section), 1)
    items = list(walk)
    assert walk.rows_read == walk.rows_kept + walk.rows_dropped
    assert walk.share == 1.0
    return items


def questions(source: str | Path, **section: Any) -> list[str]:
    return [item[0].text for item in walked(source, **section) if not isinstance(item, DroppedRow)]


def zstd(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKED = {"gzip": gzip.compress, "zstd": zstd}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jsonl", lines(*[row(i) for i in range(30)]), "JSONL"),
        ("a.json", json.dumps([row(i) for i in range(30)]).encode(), "JSON"),
        ("a.csv", ("prompt;completion\n" + "".join(f"q{i};a{i}\n" for i in range(30))).encode(), "CSV"),
        (
            "a.csv",
            ("prompt,completion\n" + "".join(f"q{i},a{i}\n" for i in range(30))).encode("utf-16"),
            "CSV",
        ),
    ],
)
def test_packed_files_are_read_by_content(
    tmp_path: Path, packing: str, name: str, content: bytes, kind: str
) -> None:
    for ending in (".gz", ".zst", ""):
        source = written(tmp_path, name + ending, PACKED[packing](content))
        facts = look(source)
        assert (facts.file_kind, facts.rows) == (kind, 30)
        assert questions(source) == [f"q{i}" for i in range(30)]


@pytest.mark.parametrize("packing", PACKED)
def test_a_bomb_is_stopped_long_before_it_fills_the_machine(tmp_path: Path, packing: str) -> None:
    bomb = PACKED[packing](lines(row(1)) + b" " * (200 * 1024 * 1024))
    source = written(tmp_path, "bomb.jsonl", bomb)
    with pytest.raises(FinetuiError) as caught:
        walked(source)
    assert caught.value.code == "dataset-broken" and "times its size" in caught.value.why


@pytest.mark.parametrize("packing", PACKED)
def test_half_an_archive_gets_a_card(tmp_path: Path, packing: str) -> None:
    content = b"".join(lines({"prompt": os.urandom(400).hex(), "completion": "a"}) for _ in range(2000))
    packed = PACKED[packing](content)
    source = written(tmp_path, "half.jsonl", packed[: len(packed) // 2])
    with pytest.raises(FinetuiError) as caught:
        walked(source)
    assert caught.value.code == "dataset-broken" and "unpacked" in caught.value.why


def test_several_archives_in_one_file_are_read_on(tmp_path: Path) -> None:
    packed = gzip.compress(lines(row(1))) + gzip.compress(lines(row(2)))
    assert questions(written(tmp_path, "two.jsonl.gz", packed)) == ["q1", "q2"]


@pytest.mark.parametrize("form", ["file", "stream"])
def test_arrow_in_both_forms(tmp_path: Path, form: str) -> None:
    table = pyarrow.Table.from_pylist([row(i) for i in range(300)])
    path = tmp_path / "rows.arrow"
    writer = pyarrow.ipc.new_file if form == "file" else pyarrow.ipc.new_stream
    with pyarrow.OSFile(str(path), "wb") as sink, writer(sink, table.schema) as out:
        out.write_table(table, max_chunksize=100)
    facts = look(path)
    assert (facts.file_kind, facts.rows) == ("Arrow", 300)
    assert questions(path) == [f"q{i}" for i in range(300)]
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(FinetuiError) as caught:
        walked(path)
    assert caught.value.code == "dataset-broken"


def saved(folder: Path, count: int, name: str = "data-00000-of-00001.arrow") -> None:
    folder.mkdir(parents=True)
    table = pyarrow.Table.from_pylist([row(i) for i in range(count)])
    with pyarrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink:
        with pyarrow.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (folder / "dataset_info.json").write_text("{}")


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    saved(tmp_path / "one", 7)
    assert look(tmp_path / "one").rows == 7
    saved(tmp_path / "dict" / "train", 20)
    saved(tmp_path / "dict" / "test", 3)
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert look(tmp_path / "dict").rows == 20
    assert look(tmp_path / "dict", split="test").rows == 3
    facts = look(tmp_path / "dict", evaluation_split="test")
    assert (facts.rows, facts.train_rows, facts.evaluation_rows) == (20, 20, 3)
    card = refused(tmp_path / "dict", split="other")
    assert card.code == "dataset-split" and "test, train" in card.why


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", "nope.arrow"])
def test_a_saved_folder_cannot_name_files_outside_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.arrow").write_bytes(b"ARROW1")
    saved(tmp_path / "one", 7, name)
    assert refused(tmp_path / "one").code == "dataset-broken"


def test_a_saved_folder_cannot_link_outside_it(tmp_path: Path) -> None:
    saved(tmp_path / "one", 7)
    inside = tmp_path / "one" / "data-00000-of-00001.arrow"
    inside.rename(tmp_path / "elsewhere.arrow")
    inside.symlink_to(tmp_path / "elsewhere.arrow")
    assert refused(tmp_path / "one").code == "dataset-broken"


# Folders


def test_a_folder_is_read_in_natural_order_and_says_what_it_took(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        written(tmp_path, f"part-{number}.jsonl", lines(row(number)))
    written(tmp_path, "sub/part-3.csv.gz", gzip.compress(b"prompt,completion\nq3,a3\n"))
    written(tmp_path, "README.md", "# About")
    written(tmp_path, "picture.png", b"\x89PNG")
    written(tmp_path, "empty.jsonl", b"")
    written(tmp_path, ".hidden.jsonl", lines(row(99)))
    facts = look(tmp_path)
    assert [c[0].text for c in facts.first] == ["q1", "q2", "q10", "q3"]
    assert facts.file_kind == "JSONL + CSV"
    for word in ("4 files", "part-1.jsonl", "README.md (notes beside the data)", "empty.jsonl (empty)"):
        assert word in facts.detection.reason
    walk = Walk(DatasetSection(source=str(tmp_path)), 1)
    places = [(Path(str(walk.files[c.file])).name, c.number) for c in walk if not isinstance(c, DroppedRow)]
    assert places == [("part-1.jsonl", 1), ("part-2.jsonl", 1), ("part-10.jsonl", 1), ("part-3.csv.gz", 2)]


def test_a_folder_keeps_its_splits_apart(tmp_path: Path) -> None:
    written(tmp_path, "data/train-00000-of-00002.jsonl", lines(row(0)))
    written(tmp_path, "data/train-00001-of-00002.jsonl", lines(row(1)))
    written(tmp_path, "data/test-00000-of-00001.jsonl", lines(row(2)))
    assert questions(tmp_path) == ["q0", "q1"]
    assert questions(tmp_path, split="test") == ["q2"]
    assert questions(tmp_path, evaluation_split="test") == ["q0", "q1", "q2"]
    assert refused(tmp_path, split="validation").code == "dataset-split"
    assert refused(tmp_path, evaluation_split="train").code == "dataset-split"


def test_a_file_that_is_not_understood_is_counted_beside_those_that_are(tmp_path: Path) -> None:
    written(tmp_path, "a.jsonl", lines({"colour": "red"}, {"colour": "blue"}))
    written(tmp_path, "b.jsonl", lines(row(1)))
    facts = look(tmp_path)
    assert facts.rows == 1 and facts.dropped_rows == 2 and "colour" in facts.dropped[0].reason


def test_a_loop_of_links_is_no_trap(tmp_path: Path) -> None:
    written(tmp_path, "a.jsonl", lines(row(1)))
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    facts = look(tmp_path)
    assert facts.rows == 1 and "no ordinary file" in facts.detection.reason


def test_names_of_files_cannot_reach_the_terminal(tmp_path: Path) -> None:
    written(tmp_path, "a\x1b]0;owned\x07[red]\n.jsonl", lines(row(1)))
    written(tmp_path, "b.jsonl", lines(row(2)))
    facts = look(tmp_path)
    assert "\x1b" not in facts.detection.reason and "\x07" not in facts.detection.reason


# Text


def test_plain_writing_becomes_blocks_of_paragraphs(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {i}. " + "word " * 100 for i in range(40)]
    source = written(tmp_path, "book.txt", "\r\n\r\n".join(paragraphs))
    facts = look(source)
    assert (facts.file_kind, facts.detection.format) == ("text", "text")
    assert "paragraphs together" in facts.detection.reason
    items = [item for item in walked(source) if not isinstance(item, DroppedRow)]
    text = "\n".join(item[0].text for item in items)
    assert text.split() == " ".join(paragraphs).split(), "not a word is lost, none is said twice"
    assert all(item[0].role == "text" and item[0].learned and len(item) == 1 for item in items)
    assert all(1000 < len(item[0].text) < 5000 for item in items[:-1])
    assert items[0].number == 1 and items[1].number > 2


def test_a_line_of_ten_megabytes_of_writing_is_no_row(tmp_path: Path) -> None:
    source = written(tmp_path, "one.md", "# Head\n" + "x" * (10 * 1024 * 1024) + "\n## Next\nend\n")
    texts = questions(source)
    assert sum(map(len, texts)) > 10 * 1024 * 1024 and max(map(len, texts)) < 10_000


# CSV


@pytest.mark.parametrize(
    ("content", "rows", "header"),
    [
        ("question,answer\nWhy?,Because.\n", 1, True),
        ("What is the time now?,It is noon.\nWho is there?,It is me.\n", 2, False),
        ("How do I pay my bill?;You pay it by card.\nWhere is the door here?;It is on the left.\n", 2, False),
        ("1,2 a\n3,4 b\n", 2, False),
        ("Frage,Antwort\nWo ist es?,Hier ist es.\n", 1, True),
    ],
)
def test_headers_are_worked_out(tmp_path: Path, content: str, rows: int, header: bool) -> None:
    source = written(tmp_path, "a.csv", content)
    if content.startswith("1,"):
        assert refused(source).code == "dataset-format"
        return
    facts = look(source)
    assert facts.rows == rows
    assert ("no header" in facts.detection.reason) is not header
    assert (facts.detection.confidence >= dataset.SURE) is header


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Où est l’été à Orléans ?"),
        ("cp1251", "Где находится библиотека города"),
        ("shift_jis", "これは質問です、どこですか"),
        ("euc_kr", "도서관은 어디에 있습니까 그리고"),
        ("gb18030", "图书馆在哪里请告诉我谢谢"),
        ("utf-16-be", "Where is it?"),
    ],
)
def test_encodings_are_worked_out_and_told(tmp_path: Path, encoding: str, text: str) -> None:
    rows = "".join(
        json.dumps({"prompt": f"{text} {i}", "completion": text}, ensure_ascii=False) + "\n"
        for i in range(20)
    )
    facts = look(written(tmp_path, "a.jsonl", rows.encode(encoding)))
    assert facts.first[0][1].text == text
    assert "UTF-8" in facts.detection.reason or "UTF-16" in facts.detection.reason


# JSON


def test_broken_lines_are_dropped_with_their_numbers(tmp_path: Path) -> None:
    source = written(
        tmp_path, "a.jsonl", lines(row(1)) + b'{"prompt": "x",\n' + lines(row(2)) + b"nonsense\n"
    )
    dropped = [(i.number, i.reason) for i in walked(source) if isinstance(i, DroppedRow)]
    assert [number for number, _ in dropped] == [2, 4] and all("broken JSON" in why for _, why in dropped)


def test_lines_that_are_lists_of_messages_and_columns_in_an_object(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert questions(written(tmp_path, "a.jsonl", lines(talk, talk))) == ["Hi", "Hi"]
    columns = {"prompt": ["a", "b"], "completion": ["c", "d"]}
    assert questions(written(tmp_path, "b.json", json.dumps(columns))) == ["a", "b"]


def test_parquet_with_nested_messages_two_columns_of_one_name_and_lying_sizes(tmp_path: Path) -> None:
    table = pyarrow.table(
        [pyarrow.array(["a"]), pyarrow.array(["b"]), pyarrow.array(["c"])], ["prompt", "prompt", "completion"]
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert questions(tmp_path / "a.parquet") == ["a"]
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[-8:-4] = (2**31 - 1).to_bytes(4, "little")
    (tmp_path / "a.parquet").write_bytes(content)
    assert refused(tmp_path / "a.parquet").code == "dataset-broken"
