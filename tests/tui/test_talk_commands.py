"""The talk and the score of many prompts on the command line, with a real child and the tiny model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from finetui.core import proof_file, recipe_file, talk, talk_score
from finetui.core.proof import Reference, ReferencePrompt
from finetui.core.recipe import DatasetSection
from finetui.core.runs import event_log, events
from finetui.core.runs.store import RunFolder
from tests import waiting
from tests.full_disk import Disk

from ..worker import tiny
from .talked import run, tiny_model, tuned

__all__ = ["run", "tiny_model", "tuned"]


def finetui(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "finetui.tui", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_commands(run: Path, tmp_path: Path) -> None:
    said = finetui("chat", run.name, "--max-new-tokens", "6", "--json", stdin="which?")
    assert said.returncode == 0, said
    assert json.loads(said.stdout)["tokens"] == 6
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"prompt": "a?", "completion": "b"}\n{"prompt": "c?", "completion": "{\\"d\\": 1}"}\n'
    )
    said = finetui("eval", run.name, str(prompts), "--max-new-tokens", "4", "--json")
    assert said.returncode == 0, said
    told = json.loads(said.stdout)
    assert told["prompts"] == 2 and told["base"]["count"] == told["tuned"]["count"] == 2
    assert [json.loads(line)["expected"] for line in Path(told["rows"]).read_text().splitlines()] == [
        "b",
        '{"d": 1}',
    ]
    prompts.write_text(
        '{"prompt": "a?", "completion": "b"}\n{"prompt": "", "completion": "b"}\n'
        + '{"prompt": "c?", "completion": ""}\n{"prompt": "d?", "completion": "e"}'
    )
    said = finetui("eval", run.name, str(prompts), "--max-new-tokens", "1")
    assert said.returncode == 0 and said.stdout.startswith("2 prompts"), said
    assert "Not asked: row 2: " in said.stderr and "Not asked: row 3: empty answer" in said.stderr
    assert finetui("eval", run.name, "nowhere.jsonl").returncode == 4
    assert finetui("chat", "nowhere", stdin="x").returncode == 4
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    said = finetui("chat", str(tmp_path / "broken.gguf"), stdin="x")
    assert said.returncode == 6 and "Traceback" not in said.stderr and "no GGUF" in said.stderr


def test_an_eval_without_a_file_scores_the_runs_own_held_out_rows(run: Path, tmp_path: Path) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", 40)
    recipe = recipe_file.load(run / "recipe.yaml")
    section = DatasetSection(source=str(rows), evaluation_share=0.1)
    recipe_file.save(recipe.model_copy(update={"dataset": section}), run / "recipe.yaml")
    (run / "reference.json").unlink()
    (run / "events.jsonl").unlink()
    said = finetui("eval", run.name, "--max-new-tokens", "2", "--json")
    assert said.returncode == 0, said
    told = json.loads(said.stdout)
    assert told["prompts"] == told["asked"] == 4 and told["left_out"] == []
    held = {one.question for one in talk_score.own(talk.find(str(run))).asked}
    assert held < {row["messages"][0]["content"] for row in tiny.rows(40)}
    kept = ReferencePrompt((("user", "Item 99: which colour?"),), "", (), "", (), (), True)
    proof_file.save_reference(RunFolder(run), Reference((kept,), "", "16bit", {}))
    changed = talk_score.own(talk.find(str(run)))
    assert [one.question for one in changed.asked] == ["Item 99: which colour?"] and changed.left_out
    event = events.DatasetReady("messages", 40, 0, 0, 400, 100)
    (run / "events.jsonl").write_bytes(event_log.encode(event_log.Record(1, 1.0, event)))
    said = finetui("eval", run.name)
    assert said.returncode == 4 and "held no rows out" in said.stderr


def test_an_interrupted_eval_keeps_what_was_scored(run: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "Item {n}?", "completion": "b"}}\n' for n in range(400)))
    argv = [sys.executable, "-m", "finetui.tui", "eval", run.name, str(prompts), "--max-new-tokens", "4"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    waiting.until(lambda: [f for f in run.glob("talks/eval-*.jsonl") if f.read_text().count("\n") > 1])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    (kept,) = run.glob("talks/eval-*.jsonl")
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert process.returncode == 130 and 1 < len(rows) < 400, err
    assert out.startswith(f"{len(rows)} of 400 prompts") and str(kept) in out and "Traceback" not in err


def test_an_eval_goes_on_after_a_full_disk_and_a_kill(run: Path, tmp_path: Path, disk: Disk) -> None:
    prompts = tmp_path / "prompts.jsonl"
    count = 100
    prompts.write_text("".join(f'{{"prompt": "Item {n}?", "completion": "b"}}\n' for n in range(count)))
    shutil.copytree(run, disk.here / "data/runs" / run.name)
    argv = [sys.executable, "-m", "finetui.tui", "eval", run.name, str(prompts), "--max-new-tokens", "4"]
    options = {"env": {**os.environ, "FINETUI_HOME": str(disk.path)}}
    heard = {**options, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def kept() -> list[str]:
        """The rows on the disk, all of them whole."""
        files = list(disk.here.glob(f"data/runs/{run.name}/talks/eval-*.jsonl"))
        assert len(files) < 2
        lines = files[0].read_text().splitlines(keepends=True) if files else []
        return [json.loads(line)["messages"][-1]["content"] for line in lines if line.endswith("\n")]

    process = disk.start(argv, **heard)
    waiting.until(lambda: len(kept()) > 1)
    disk.fill()
    out, err = process.communicate(timeout=300)
    there = kept()
    assert process.returncode == 6 and out.startswith(f"{count} prompts"), err
    assert os.strerror(28) in err or os.strerror(27) in err, err
    assert "Traceback" not in err and err.count("could not be written") == 1 and 1 < len(there) < count, err
    again = [*argv, "--resume", err.split("--resume ")[1].strip()]

    disk.empty()
    process = disk.start(again, **heard)
    waiting.until(lambda: len(kept()) > len(there))
    [model] = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    waiting.until(lambda: waiting.has_ended(model.pid), "for the end of the model's process")
    assert len(kept()) < count

    said = disk.run([*again, "--json"], **options)
    assert said.returncode == 0 and json.loads(said.stdout)["prompts"] == count, said
    assert kept() == [f"Item {n}?" for n in range(count)], "each once, in order"
    prompts.write_text('{"prompt": "Another?", "completion": "b"}\n')
    said = disk.run(again, **options)
    assert said.returncode == 2 and "Row 1 of the score is of another prompt" in said.stderr, said
