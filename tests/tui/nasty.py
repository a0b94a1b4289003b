"""Dataset files made by hand to be nasty. Each builder writes one into a folder and returns what the person would name."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

Builder = Callable[[Path], Path]
ESCAPES = "\x1b]52;c;aGk=\x07\x1b[31mred\x1b[0m \x9b2J \u202ertl [@click=app.quit]x[/] [bold]loud[/bold]"
MEBIBYTE = 1024 * 1024


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


def chats(count: int) -> list[dict[str, Any]]:
    return [chat(f"question {n}", f"answer {n}") for n in range(count)]


def lines(rows: Iterable[Any]) -> list[str]:
    return [row if isinstance(row, str) else json.dumps(row) for row in rows]


def write(path: Path, rows: Iterable[Any], newline: str = "\n", encoding: str = "utf-8") -> Path:
    path.write_bytes("".join(line + newline for line in lines(rows)).encode(encoding))
    return path


def packed(rows: Iterable[Any]) -> bytes:
    return "".join(line + "\n" for line in lines(rows)).encode()


# ── Encodings and line ends ──


def utf16_with_crlf(folder: Path) -> Path:
    return write(folder / "notepad.jsonl", chats(30), "\r\n", "utf-16")


def utf16_without_mark(folder: Path) -> Path:
    return write(
        folder / "naked.csv",
        ["question,answer", *(f"wie {n}?,so {n}" for n in range(30))],
        encoding="utf-16-be",
    )


def spreadsheet_csv(folder: Path) -> Path:
    """As a German spreadsheet saves it: a byte order mark, semicolons, CRLF, line breaks and quotes in cells."""
    rows = ["Frage;Antwort", *(f'"Was ist\r\n{n};{n}?";"Das ""{n}"", was sonst"' for n in range(30))]
    return write(folder / "Tabelle.csv", rows, "\r\n", "utf-8-sig")


def windows_csv(folder: Path) -> Path:
    return write(
        folder / "caf\u00e9.csv",
        ["question,answer", *(f"où est le café {n}?,là-bas à droite – {n} €" for n in range(30))],
        encoding="cp1252",
    )


def japanese_tsv(folder: Path) -> Path:
    rows = ["question\tanswer", *(f"これは何ですか {n}\tこれはペンです、そうです {n}" for n in range(30))]
    return write(folder / "日本.tsv", rows, encoding="shift_jis")


def old_mac_csv(folder: Path) -> Path:
    return write(folder / "mac.csv", ["question,answer", *(f"how {n}?,so {n}" for n in range(30))], "\r")


def line_separators_in_text(folder: Path) -> Path:
    """Characters that some readers take for line ends stand raw in strings; a byte order mark stands on every line."""
    rows = [
        "\ufeff" + json.dumps(chat(f"a\u2028b\u2029c\x85d {n}", f"e\x0bf\x0cg {n}"), ensure_ascii=False)
        for n in range(30)
    ]
    return write(folder / "separators.jsonl", rows)


# ── Tables ──


def headless_csv(folder: Path) -> Path:
    rows = [
        f'"What is the capital of country {n}, please?","It is the town called number {n}."'
        for n in range(30)
    ]
    return write(folder / "headless.csv", rows)


def bars_in_txt(folder: Path) -> Path:
    return write(
        folder / "bars.txt", ["instruction|input|output", *(f"add {n} and one||{n + 1}" for n in range(30))]
    )


def unclosed_quote(folder: Path) -> Path:
    rows = [
        "question,answer",
        *(f"how {n}?,so {n}" for n in range(20)),
        '"never closed,x',
        *(f"and {n}?,no {n}" for n in range(20)),
    ]
    return write(folder / "quote.csv", rows)


def ragged_csv(folder: Path) -> Path:
    rows = ["question,answer", *(f"how {n}?,so {n}" for n in range(30))]
    rows[5], rows[9] = "how 5?,so 5,and,more", "how 9?"
    return write(folder / "ragged.csv", rows)


def hostile_columns(folder: Path) -> Path:
    return write(
        folder / "columns.csv",
        ["\x1b[31mred \u202e[bold]x,[@click=app.quit]y[/],zz", *(f"{n},{n + 1},{n + 2}" for n in range(30))],
    )


def nested_parquet(folder: Path) -> Path:
    rows = [
        {
            "id": n,
            "conversations": [{"from": "human", "value": f"q {n}"}, {"from": "gpt", "value": f"a {n}"}],
            "meta": {"deep": [{"x": [n, None]}]},
        }
        for n in range(30)
    ]
    rows[6]["conversations"] = None
    path = folder / "nested.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)
    return path


def cut_parquet(folder: Path) -> Path:
    path = nested_parquet(folder)
    path.write_bytes(path.read_bytes()[:-100])
    return path.rename(folder / "cut.parquet")


def arrow_stream(folder: Path) -> Path:
    """As `datasets` keeps it: a stream without magic, large strings, and a null."""
    columns = {
        "prompt": pyarrow.array([f"write {n}" for n in range(30)], pyarrow.large_string()),
        "completion": pyarrow.array(
            [None if n == 4 else f" done {n}" for n in range(30)], pyarrow.large_string()
        ),
    }
    table = pyarrow.table(columns)
    path = folder / "data-00000-of-00001.arrow"
    with pyarrow.ipc.new_stream(path, table.schema) as out:
        out.write_table(table, max_chunksize=8)
    return path


def not_parquet(folder: Path) -> Path:
    return write(folder / "lying.parquet", chats(30))


def workbook_named_csv(folder: Path) -> Path:
    path = folder / "book.csv"
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("xl/workbook.xml", "<x/>")
    return path


def database_named_jsonl(folder: Path) -> Path:
    path = folder / "rows.db.jsonl"
    with sqlite3.connect(path) as database:
        database.execute("create table rows (question, answer)")
    return path


# ── JSON ──


def broken_line(folder: Path) -> Path:
    rows = lines(chats(31))
    rows[16] = rows[16][:-9]
    return write(folder / "broken.jsonl", rows)


def ten_megabyte_line(folder: Path) -> Path:
    rows: list[Any] = chats(30)
    rows[3] = chat("long", "x" * (11 * MEBIBYTE))
    return write(folder / "long-line.jsonl", rows)


def deep_line(folder: Path) -> Path:
    rows = lines(chats(30))
    rows[4] = '{"messages": ' + "[" * 200_000 + "]" * 200_000 + "}"
    return write(folder / "deep.jsonl", rows)


def deep_document(folder: Path) -> Path:
    path = folder / "deep.json"
    path.write_text('{"rows": ' + "[" * 200_000 + "]" * 200_000 + "}")
    return path


def deep_in_a_list(folder: Path) -> Path:
    path = folder / "deep-list.json"
    path.write_text("[" + ",".join([*lines(chats(5)), "[" * 200_000 + "]" * 200_000, *lines(chats(5))]) + "]")
    return path


def zeros_and_surrogates(folder: Path) -> Path:
    rows = lines(chats(30))
    rows[1] = (
        r'{"messages":[{"role":"user","content":"a\u0000b"},{"role":"assistant","content":"c\ud800d\udfff"}]}'
    )
    rows[2] = '{"messages":[{"role":"user","content":"raw \0 zero"},{"role":"assistant","content":"yes"}]}'
    rows[3] = "\0" * 40
    return write(folder / "zeros.jsonl", rows)


def escapes_everywhere(folder: Path) -> Path:
    rows = [chat(f"{ESCAPES} {n}", f"{ESCAPES} {n}", **{ESCAPES: ESCAPES}) for n in range(30)]
    rows[2] = {"messages": [{"role": ESCAPES, "content": "x"}], ESCAPES: 1}
    return write(folder / "[@click=app.quit]x[bold].jsonl", rows)


def numbers_only(folder: Path) -> Path:
    return write(folder / "numbers.jsonl", [str(n) for n in range(30)])


def strange_numbers(folder: Path) -> Path:
    rows = lines(chats(30))
    rows[0] = (
        rows[0][:-1] + ', "score": NaN, "big": 1e999, "messages": []}'
    )  # the last of two alike wins in JSON
    rows[1] = '{"n": ' + "9" * 5000 + "}"
    rows[2] = rows[2][:-1] + ', "score": -Infinity}'
    return write(folder / "numbers-inside.jsonl", rows)


def pretty_splits(folder: Path) -> Path:
    path = folder / "splits.json"
    path.write_text(json.dumps({"version": 2, "train": chats(30), "test": chats(3)}, indent=4))
    return path


def cut_list(folder: Path) -> Path:
    path = folder / "cut.json"
    path.write_text(json.dumps(chats(30), indent=2)[:-400])
    return path


def blank(folder: Path) -> Path:
    path = folder / "blank.jsonl"
    path.write_bytes(b"\xef\xbb\xbf \r\n\t\n" * 20)
    return path


def two_formats_in_one(folder: Path) -> Path:
    rows = [
        chat(f"question {n}", "yes") if n % 2 else {"instruction": f"do {n}", "input": "", "output": "done"}
        for n in range(40)
    ]
    return write(folder / "both.jsonl", rows)


# ── Packed ──


def zstandard(folder: Path) -> Path:
    path = folder / "rows.jsonl.zst"
    with pyarrow.CompressedOutputStream(str(path), "zstd") as out:
        out.write(packed(chats(30)))
    return path


def gzip_without_its_name(folder: Path) -> Path:
    path = folder / "export.csv"
    path.write_bytes(gzip.compress(packed(["question,answer", *(f"how {n}?,so {n}" for n in range(30))])))
    return path


def gzip_cut_off(folder: Path) -> Path:
    path = folder / "cut.jsonl.gz"
    whole = gzip.compress(packed(chat(f"{n} {os.urandom(40).hex()}", f"answer {n}") for n in range(3000)))
    path.write_bytes(whole[: len(whole) // 2])
    return path


def gzip_bomb(folder: Path) -> Path:
    path = folder / "bomb.jsonl.gz"
    with gzip.open(path, "wb", 9) as out:
        out.write(packed(chats(2)) + b'{"messages": "')
        for _ in range(200):
            out.write(b"a" * MEBIBYTE)
    return path


def gzip_in_gzip(folder: Path) -> Path:
    path = folder / "twice.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.compress(packed(chats(30)))))
    return path


# ── What was meant to be a dataset ──


def lfs_pointer(folder: Path) -> Path:
    """What a clone without Git LFS leaves in place of a file."""
    path = folder / "train.parquet"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 73400320\n")
    return path


def web_page(folder: Path) -> Path:
    """What a download without a login often is."""
    page = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n<body>Log in, then try again.</body></html>\n"
    (folder / "rows.csv").write_text(page)
    return folder / "rows.csv"


def picture_named_txt(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 20)
    return path


def only_zeros(folder: Path) -> Path:
    path = folder / "sparse.jsonl"
    path.write_bytes(bytes(200_000))
    return path


def old_mac_jsonl(folder: Path) -> Path:
    return write(folder / "mac.jsonl", chats(30), "\r")


# ── Folders, and what is no file ──


def mixed_folder(folder: Path) -> Path:
    mixed = folder / "everything.jsonl"  # a folder named like a file
    mixed.mkdir()
    write(mixed / "a.jsonl", chats(10))
    write(mixed / "b.csv", ["question,answer", *(f"how {n}?,so {n}" for n in range(10))])
    (mixed / "c.tsv.gz").write_bytes(
        gzip.compress(packed(["prompt\tcompletion", *(f"go {n}\tgone {n}" for n in range(10))]))
    )
    write(mixed / "test.jsonl", chats(5))
    (mixed / "README.md").write_text("# about")
    (mixed / "empty.jsonl").touch()
    (mixed / "loop.jsonl").symlink_to("loop.jsonl")
    (mixed / "around").symlink_to(mixed)
    (mixed / ".hidden.jsonl").write_text("{")
    os.mkfifo(mixed / "pipe.jsonl")
    return mixed


def empty_folder(folder: Path) -> Path:
    path = folder / "nothing.jsonl"
    path.mkdir()
    return path


def symlink_loop(folder: Path) -> Path:
    (folder / "one.jsonl").symlink_to("two.jsonl")
    (folder / "two.jsonl").symlink_to("one.jsonl")
    return folder / "one.jsonl"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.jsonl")
    return folder / "pipe.jsonl"


def device(folder: Path) -> Path:
    return Path("/dev/zero")


def name_of_three_hundred(folder: Path) -> Path:
    return folder / ("n" * 300 + ".jsonl")


def name_too_long(folder: Path) -> Path:
    return folder / ("n" * 3000 + ".jsonl")
