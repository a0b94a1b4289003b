"""Files of every format with anything in them: never a traceback, never a hang, and read = kept + dropped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetui.core import dataset
from finetui.core.dataset import DroppedRow, Walk
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection
from finetui.core.text import one_line

_text = st.text(max_size=30) | st.sampled_from(
    [
        *(
            "",
            " ",
            "\0",
            "\ud800",
            "\ufeff",
            "\x1b]52;c;eA==\x07",
            "[@click=app.quit]x[/]",
            "=cmd|'/c calc'!A1",
            "a\r\nb",
        ),
        *(
            '"',
            "'",
            '[{"role": "user", "content": "x"}]',
            "[{'from': 'gpt', 'value': 'x'}]",
            "[[[[",
            '{"name": "f"}',
        ),
        *("\n\nHuman: a\n\nAssistant: b", "\u202e", "x" * 3000, "user", "assistant", "gpt", "tool", "system"),
    ]
)
_names = st.sampled_from(
    [
        "messages",
        "conversations",
        "prompt",
        "completion",
        "Instruction",
        "input",
        "output",
        "role",
        "from",
        "content",
    ]
    + [
        "value",
        "system",
        "chosen",
        "rejected",
        "text",
        "tools",
        "tool_calls",
        "function",
        "name",
        "arguments",
    ]
    + ["thinking", "weight", "history", "question", "answer", "column 1", "translation", "x\x1b[31m", ""]
)
_scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | _text
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=5),
    max_leaves=12,
)
_message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool", "king"]) | _values,
        "content": _text | _values,
    },
    optional={"tool_calls": _values, "name": _values, "reasoning_content": _values, "weight": _values},
)
_row = (
    st.dictionaries(_names, _values, max_size=5)
    | st.fixed_dictionaries({"messages": st.lists(_message, max_size=5)}, optional={"tools": _values})
    | st.fixed_dictionaries({"prompt": _text, "completion": _text}, optional={"system": _text})
    | st.fixed_dictionaries(
        {"prompt": _text, "chosen": _text | st.lists(_message), "rejected": _text | st.lists(_message)}
    )
    | st.fixed_dictionaries({"text": _text})
)
_rows = st.lists(_row, max_size=8)
_sections = st.fixed_dictionaries(
    {
        "format": st.sampled_from(
            ["auto", "auto", "messages", "sharegpt", "alpaca", "prompt_completion", "text", "preference"]
        ),
        "system_mode": st.sampled_from(["keep", "add", "replace", "none"]),
        "system_prompt": st.none() | st.just("Be kind."),
        "train_on": st.sampled_from(["answers", "last_answer", "everything"]),
        "multi_turn": st.sampled_from(["keep", "split"]),
        "join_rows": st.integers(1, 3),
        "deduplicate": st.booleans(),
        "shuffle": st.booleans(),
        "evaluation_share": st.sampled_from([0.0, 0.1, 0.5]),
        "row_limit": st.none() | st.integers(1, 5),
        "columns": st.none()
        | st.dictionaries(
            st.sampled_from(
                ["user", "assistant", "system", "messages", "text", "chosen", "rejected", "context"]
            ),
            st.sampled_from(["prompt", "completion", "messages", "text", "input.value", "nope"]),
            min_size=1,
            max_size=3,
        ),
    }
)


def walked(source: Path, options: dict[str, Any]) -> None:
    """Walks it to its end, and checks the books after every row."""
    try:
        walk = Walk(DatasetSection(source=str(source), **options), 3)
    except FinetuiError as error:
        assert error.what and error.code.startswith("dataset-"), error
        return
    kept = dropped = 0
    try:
        for item in walk:
            if isinstance(item, DroppedRow):
                dropped += 1
                assert item.reason and one_line(item.reason, 200) == item.reason and len(item.reason) <= 100
                assert item.number >= 1
                continue
            kept += 1
            assert any(turn.learned for turn in item), "a row in which nothing is learned is no row"
            for turn in (*item, *item.rejected):
                f"{turn.text}{turn.reasoning}{turn.calls}{turn.name}{turn.call_id}{item.tools}".encode()
                assert "\0" not in turn.text
                json.loads(turn.calls or "[]")
            json.loads(item.tools or "[]")
            assert not any(turn.learned for turn in item.rejected)
    except FinetuiError as error:
        assert error.what and error.code.startswith("dataset-"), error
        return
    assert walk.rows_read == walk.rows_kept + walk.rows_dropped and walk.rows_dropped == dropped
    assert sum(d.count for led in (walk.ledger, walk.left_out) for d in led.entries()) == dropped
    sides = walk.sides()
    assert len(sides) == kept and (not kept or 0 in sides)
    if walk.detection is not None:
        assert 0 <= walk.detection.confidence <= 1
        assert all(one_line(line, 300) == line for line in (walk.detection.reason, *walk.detection.columns))


def encoded(name: str, rows: list[Any]) -> bytes:
    if name.startswith("lines"):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if name.startswith("list"):
        return json.dumps(rows, indent=1).encode()
    if name.startswith("object"):
        return json.dumps({"train": rows, "about": "x"}).encode()
    out = io.StringIO()
    names = list(dict.fromkeys(str(key) for row in rows for key in row))
    writer = csv.writer(out, delimiter="\t" if name.endswith(".tsv") else ",", escapechar="\\")
    writer.writerow(names)
    for row in rows:
        writer.writerow(
            [cell if isinstance(cell := row.get(key), str) else json.dumps(cell) for key in names]
        )
    return out.getvalue().encode("utf-8", "surrogatepass")


_files = st.sampled_from(
    [
        "lines.jsonl",
        "lines.json",
        "lines.txt",
        "list.json",
        "list.jsonl",
        "object.json",
        "table.csv",
        "table.tsv",
        "table.txt",
        "table.md",
        "lines.jsonl.gz",
    ]
)
_relaxed = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


@settings(max_examples=300, deadline=None, suppress_health_check=_relaxed)
@given(name=_files, rows=_rows, options=_sections)
def test_rows_of_any_shape_in_files_of_any_kind(
    tmp_path: Path, name: str, rows: list[Any], options: dict[str, Any]
) -> None:
    content = encoded(name, rows)
    file = tmp_path / name
    file.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    walked(file, options)


@settings(max_examples=300, deadline=None, suppress_health_check=_relaxed)
@given(
    name=_files,
    rows=_rows,
    damage=st.lists(
        st.tuples(st.floats(0, 1), st.binary(max_size=6), st.integers(0, 40)), min_size=1, max_size=4
    ),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-16-le", "utf-8-sig", "cp1252", "utf-32"]),
)
def test_damaged_bytes_of_any_kind(
    tmp_path: Path, name: str, rows: list[Any], damage: list[tuple[float, bytes, int]], encoding: str
) -> None:
    content = encoded(name, rows).decode("utf-8", "replace").encode(encoding, "replace")
    if name.endswith(".gz"):
        content = gzip.compress(content, 1)
    for where, inserted, removed in damage:
        at = int(where * len(content))
        content = content[:at] + inserted + content[at + removed :]
    file = tmp_path / name
    file.write_bytes(content)
    walked(file, {})


@settings(max_examples=60, deadline=None, suppress_health_check=_relaxed)
@given(files=st.dictionaries(_files, _rows, min_size=1, max_size=4), options=_sections)
def test_folders_of_anything(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, list[Any]], options: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    for name, rows in files.items():
        content = encoded(name, rows)
        (folder / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    walked(folder, options)


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_tables_of_any_columns(tmp_path: Path, kind: str) -> None:
    random_numbers = random.Random(5)
    columns: list[list[Any]] = [
        ["a", None, "b\0"],
        [1, 2, None],
        [[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], [], None],
        [float("nan"), float("inf"), 0.5],
        [b"\xff\0", None, b"x"],
        [{"de": "x", "en": None}, None, {"de": "y", "en": "z"}],
        [[["a", "b"]], [], None],
    ]
    names = [
        "prompt",
        "completion",
        "messages",
        "text",
        "chosen",
        "rejected",
        "translation",
        "history",
        "tools",
    ]
    for _ in range(40):
        picked = random_numbers.sample(names, 3)
        table = pyarrow.table([pyarrow.array(random_numbers.choice(columns)) for _ in picked], picked)
        file = tmp_path / f"rows.{'parquet' if kind == 'parquet' else 'arrow'}"
        if kind == "parquet":
            pyarrow.parquet.write_table(table, file)
        else:
            writer = pyarrow.ipc.new_file if kind == "file" else pyarrow.ipc.new_stream
            with pyarrow.OSFile(str(file), "wb") as sink, writer(sink, table.schema) as out:
                out.write_table(table)
        walked(file, {"format": random_numbers.choice(["auto", "messages", "text", "preference"])})


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_damaged_tables_get_an_answer(tmp_path: Path, kind: str) -> None:
    """Whatever the table reader does with damage, even if it dies of it, the wizard gets rows or a card."""
    table = pyarrow.Table.from_pylist([{"prompt": f"q{i}", "completion": "a" * i} for i in range(300)])
    file = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, file)
    else:
        with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table)
    good = file.read_bytes()
    random_numbers = random.Random(11)
    for _ in range(6):
        damaged = bytearray(good)
        for _ in range(20):
            damaged[random_numbers.randrange(8, len(damaged))] = random_numbers.randrange(256)
        file.write_bytes(damaged)
        try:
            facts = dataset.inspect(DatasetSection(source=str(file)), timeout_seconds=120)
        except FinetuiError as error:
            assert error.what and error.code.startswith("dataset-"), error
        else:
            assert facts.rows is not None and 0 < facts.rows <= 300


@pytest.mark.parametrize("shape", ["[" * 200_000, '{"messages":' * 200_000, '{"a":[' * 100_000])
def test_depth_is_no_trap(tmp_path: Path, shape: str) -> None:
    good = '{"prompt": "a", "completion": "b"}\n'
    file = tmp_path / "a.jsonl"
    file.write_text(good + shape + "\n" + good)
    items = list(Walk(DatasetSection(source=str(file)), 1))
    assert [item.reason for item in items if isinstance(item, DroppedRow)] == ["nested too deeply"]
    cell = json.dumps(shape)
    file.write_text(good + f'{{"prompt": {cell}, "completion": "b"}}\n{{"messages": {cell}}}\n')
    walked(file, {})
