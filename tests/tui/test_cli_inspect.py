"""`finetui inspect`: for people and as JSON, with exit codes that tell clean, warnings and unusable apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..worker import tiny


def cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "finetui.tui", "inspect", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("model"))


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_clean_dataset(model: Path, tmp_path: Path) -> None:
    data = tiny.write_rows(tmp_path / "rows.jsonl", 40)
    done = cli(data, "--model", model, "--rows", "2")
    assert done.returncode == 0, done.stderr
    assert "40 read = 40 kept + 0 left out" in done.stdout and "messages" in done.stdout
    assert "Nothing is wrong with it." in done.stdout
    whole = cli(data, "--model", model, "--set", "training.max_steps=3", "--set", "training.batch_size=4")
    assert "training 3 steps = " in whole.stdout and "% of your data" in whole.stdout
    assert " tokens (4 special), " in done.stdout
    assert "  + red 0<|im_end|>" in done.stdout and "    Item 1: which colour?<|im_end|>" in done.stdout


def test_json_has_everything(model: Path, tmp_path: Path) -> None:
    data = tiny.write_rows(tmp_path / "rows.jsonl", 40)
    done = cli(data, "--model", model, "--json", "--rows", "3", "--set", "dataset.evaluation_share=0.2")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["verdict"] == "clean"
    assert found["format"]["name"] == "messages" and 0 < found["format"]["confidence"] <= 1
    ledger = found["ledger"]
    assert (ledger["read"], ledger["kept"], ledger["dropped_rows"]) == (40, 40, 0)
    assert (ledger["train_rows"], ledger["evaluation_rows"]) == (32, 8)
    assert set(ledger["quantiles"]) == {"least", "p5", "p50", "p95", "p99", "most"}
    assert len(found["rows"]) == 3
    first = found["rows"][0]
    assert "".join(s["text"] for s in first["spans"] if s["trained"]) == "red 0<|im_end|>"
    assert first["special_tokens"] == 4  # each of two turns is opened and closed


def test_copies_that_go_by_choice_are_not_among_the_unusable(model: Path, tmp_path: Path) -> None:
    data = tiny.write_rows(tmp_path / "rows.jsonl", 30)
    lines = data.read_text().splitlines()
    data.write_text("\n".join([*lines, lines[2], "{broken"]) + "\n")
    done = cli(data, "--model", model, "--set", "dataset.deduplicate=true")
    assert "32 read = 30 kept + 2 left out" in done.stdout
    warning = done.stdout.partition("1 row of 32 cannot be used")[2].splitlines()[1]
    assert "broken JSON" in warning and "copy" not in warning, done.stdout


def test_warnings_and_a_clean_copy(model: Path, tmp_path: Path) -> None:
    rows = tiny.rows(30)
    rows[3]["messages"][1]["content"] = "the key is sk-" + "a1B2" * 8
    rows.append({"messages": [{"role": "user", "content": "nothing"}]})
    data = written(tmp_path / "rows.jsonl", rows)
    clean = tmp_path / "clean.jsonl"
    done = cli(data, "--model", model, "--rows", "0", "--write-clean", clean)
    assert done.returncode == 8, done.stderr
    assert "warning" in done.stdout and "API key (1)" in done.stdout and "sk-" not in done.stdout
    assert "no assistant turn (line 31)" in done.stdout
    kept = [json.loads(line) for line in clean.read_text().splitlines()]
    assert kept == [*rows[:3], *rows[4:30]]
    assert cli(clean, "--model", model, "--rows", "0").returncode == 0
    again = cli(data, "--model", model, "--write-clean", clean)
    assert again.returncode == 6 and "already" in again.stderr


def test_what_cannot_be_trained_on(model: Path, tmp_path: Path) -> None:
    data = tiny.write_rows(tmp_path / "rows.jsonl", 30)
    done = cli(data, "--model", model, "--set", "model.max_length=20")
    assert done.returncode == 9
    assert "STOP" in done.stdout and "--set model.max_length=64" in done.stdout
    table = tmp_path / "table.csv"
    table.write_text("height,width\n1,2\n3,4\n")
    assert cli(table, "--model", model).returncode == 9
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert cli(empty, "--model", model, "--json").returncode == 9
    missing = cli(tmp_path / "missing.jsonl", "--model", model, "--json")
    assert missing.returncode == 4 and json.loads(missing.stdout)["error"]["fix"]
    assert cli(data, "--model", tmp_path / "no-model").returncode == 4
    assert cli(data, "--set", "dataset.nothing=1").returncode == 3


def test_nothing_in_the_data_reaches_the_terminal(model: Path, tmp_path: Path) -> None:
    nasty = "\x1b]52;c;aGk=\x07\x1b[31mred\x1b[0m \u202egnihton \x9b2J [/] [@click=app.quit]x[/]"
    rows = tiny.rows(25)
    rows[0]["messages"][1]["content"] = nasty
    rows[1] = {"messages": [{"role": nasty, "content": "x"}]}
    data = written(tmp_path / "rows.jsonl", rows)
    done = cli(data, "--model", model)
    assert "[@click=app.quit]x" in done.stdout
    for stream in (done.stdout, done.stderr):
        assert not [c for c in stream if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e")]
    machine = cli(data, "--model", model, "--json")
    assert machine.stdout.isascii() and "\x1b" not in machine.stdout
