"""The bundle for a bug report holds what is needed to look for a fault, and nothing of the data or of who it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from finetui.core import recipe_file
from finetui.core.recipe import Recipe
from finetui.core.runs import care, event_log, events, launch, manifest, report, store
from finetui.core.runs.hiding import Names, without
from finetui.core.runs.store import RunFolder

ROW = "Frau Grünwald asked for her tax file 4711-B to be burned"
ANSWER = "The kestrel flies at midnight over Lindenau"
SHORT = "Zyxwvut"
PROMPT = "You are the confidential assistant of Acme Dental"
ASKED = "What did the board decide about plant seven?"
LEARNED = "The board decided to close plant seven in May."
NOTE = "never show this one to Bernadette"
HUB_TOKEN = "hf_canaryCanaryCanary123"
OTHER_TOKEN = "correct-horse-battery"
RUN = "Merger-of-plants"
MODEL = "acme-internal/plant-triage-7b"
USER, HOST = "wilhelmina", "ws-wilhelmina-17"
SECRETS = (
    ROW,
    "4711-B",
    "Grünwald",
    ANSWER,
    SHORT,
    PROMPT,
    "Acme Dental",
    ASKED,
    LEARNED,
    "plant seven",
    NOTE,
)
NAMES = (
    HUB_TOKEN, OTHER_TOKEN, USER, "layoffs", "private things", RUN, "merger-of-plants", MODEL, "plant-triage", "acme-internal",
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run that failed, with secrets wherever a run can hold some."""
    home = tmp_path / USER
    folder = home / "private things"
    folder.mkdir(parents=True)
    for name, value in {
        "HOME": str(home),
        "USER": USER,
        "LOGNAME": USER,
        "HOSTNAME": HOST,
        "FINETUI_HOME": str(home / "finetui"),
        "HF_TOKEN": HUB_TOKEN,
        "WANDB_API_KEY": OTHER_TOKEN,
    }.items():
        monkeypatch.setenv(name, value)
    rows = folder / "layoffs.jsonl"
    turns = [{"role": "user", "content": ROW}, {"role": "assistant", "content": ANSWER}]
    rows.write_text(json.dumps({"messages": turns, "who": SHORT}) + "\n")
    return made(rows)


def made(source: Path | str, model: str = MODEL) -> RunFolder:
    recipe = Recipe.model_validate(
        {
            "name": RUN,
            "model": {"source": model},
            "dataset": {"source": str(source), "system_prompt": PROMPT, "system_mode": "add"},
            "training": {"sample_prompts": [ASKED], "learning_rate": 0.0123},
        }
    )
    run = store.create(RUN)
    recipe_file.save(recipe, run.recipe)
    care.label(run, title="Plant seven", note=NOTE)
    quoted = f"KeyError: '{ROW[:30]}' while reading {source}, row “{ANSWER}”, token {HUB_TOKEN}"
    told = (
        events.Started("train", 4, 1.0, HOST, RUN),
        events.Progress("load", text=f"reading {ROW}"),
        events.Progress("load", text=f"models--{MODEL.replace('/', '--')} for {RUN}"),
        events.Exported(
            "gguf_q8_0",
            "exports/gguf_q8_0/merger-of-plants-q8_0.gguf",
            9,
            command="ollama run merger-of-plants",
        ),
        events.DatasetReady("messages", 1, 0, 0, 9, 3, system_prompt=f"{PROMPT}. No row says this."),
        events.Sample(1, 0, ASKED, LEARNED, ANSWER),
        events.Step(1, 2, 0.5, 1.25, 1e-4),
        events.Scored(1, examples=(events.ScoreExample(ASKED, ANSWER, LEARNED, LEARNED),)),
        events.Proved("merged", "differs", f"It answers {LEARNED}", "llama.cpp", failed=(f"of {ASKED}",)),
        events.Warned("rows-dropped", "1 row is left out.", f"It says {SHORT}.", "Look at it."),
        events.Ended("train", "failed", 3.0, "The run failed.", quoted, f"It is in {run.log}.", "run-failed"),
    )
    run.events.write_bytes(
        b"".join(event_log.encode(event_log.Record(n, float(n), e)) for n, e in enumerate(told, 1))
    )
    with run.events.open("ab") as file:
        file.write(
            json.dumps({"v": 1, "seq": 99, "ts": 1.0, "kind": "new-kind", "secret": ROW}).encode() + b"\n"
        )
    launch.sign(run, "train", 4, 1.0, "cold", None)
    run.log.write_text(
        f"==((====))==  Unsloth 2026.10.9: Fast Llama patching\n{OTHER_TOKEN} {HUB_TOKEN}\n"
        f"loading {MODEL}; finetui: exports of {run.id}\nfinetui: {RUN} cannot be told\n"
        f"map: {{'text': '{ROW}'}}\nprompt was {PROMPT} and then {LEARNED[:20]}\n"
        "Traceback (most recent call last):\n"
        f'  File "{Path.home()}/venv/lib/python3.11/site-packages/trl/trainer.py", line 12, in train\n'
        f'  File "{source}", line 3, in <module>\n'
        f"ValueError: cannot pack {SHORT} in {Path.home()}/private things/x.bin for {USER}@{HOST}\n"
    )
    return run


def texts(run: RunFolder) -> str:
    return "\n".join(f"{name}\n{text}" for name, text in report.make(run).items())


def test_nothing_private_is_in_it_and_what_is_needed_is(run: RunFolder) -> None:
    shown = texts(run)
    for secret in (*SECRETS, *NAMES, str(Path.home()), HOST):
        assert secret not in shown, (secret, shown[max(0, shown.find(secret) - 200) :][:400])
    for needed in (
        "Unsloth 2026.10.9",
        "site-packages/trl/trainer.py",
        "line 12",
        "ValueError: cannot pack",
        "0.0123",
    ):
        assert needed in shown, shown
    for needed in ('"code": "run-failed"', "KeyError", '"loss": 1.25', "rows-dropped", "torch", "Python"):
        assert needed in shown, shown
    assert "new-kind" not in shown
    held = recipe_file.parse(report.make(run)["recipe.yaml"])
    assert held.training.learning_rate == 0.0123 and held.dataset.system_mode == "add"


def test_a_recommended_model_is_told_and_the_file_has_no_name(run: RunFolder) -> None:
    model = "unsloth/Qwen2.5-0.5B-Instruct"
    assert f"source: {model}" in report.make(made("somebody/rows-on-the-hub", model))["recipe.yaml"]
    assert report.name(run) == f"finetui-report-{run.id[:15]}.zip"


def test_rows_that_cannot_be_gone_through_leave_only_the_frame(run: RunFolder) -> None:
    shown = texts(made("somebody/rows-on-the-hub"))
    for secret in (*SECRETS, *NAMES, "somebody/rows"):
        assert secret not in shown, secret
    assert "site-packages/trl/trainer.py" in shown and "ValueError: ‹left out›" in shown
    assert "lines left out" in shown and "could not be gone through" in shown and "run-failed" in shown


def test_a_run_with_nothing_in_it_can_be_reported(run: RunFolder) -> None:
    empty = store.create("empty")
    empty.recipe.write_text("no: recipe: at all")
    assert set(report.make(empty)) >= {"about.txt", "events.jsonl", "doctor.txt", "versions.txt"}


def test_the_command_writes_a_private_file_and_replaces_none(run: RunFolder, tmp_path: Path) -> None:
    target = tmp_path / "report.zip"
    words = [sys.executable, "-m", "finetui.tui", "report", run.id, "--output", str(target)]
    said = subprocess.run(words, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert said.returncode == 0, said
    assert target.stat().st_mode & 0o077 == 0
    with zipfile.ZipFile(target) as bundle:
        assert "recipe.yaml" in bundle.namelist() and bundle.testzip() is None
        shown = b"".join(bundle.read(name) for name in bundle.namelist()).decode()
    assert not [secret for secret in (*SECRETS, *NAMES) if secret in shown]
    again = subprocess.run(words, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert again.returncode == 6 and "--force" in again.stderr


def test_what_texts_share_is_hidden_and_the_rest_stays() -> None:
    rows = ["a long row that nobody else should ever read", "no"]
    found, whole = without(["before: a long row that nobody else, after", "no common words here"], rows, 5.0)
    assert whole
    assert found["before: a long row that nobody else, after"] == "before: ‹left out›, after"
    assert found["no common words here"] == "no common words here"
    assert without(["x"], (f"row {n}" for n in range(10**9)), 0.05)[1] is False


def test_many_rows_cost_little() -> None:
    import time

    log = [f"step {n}: the loss is {n / 7:.3f} and the rate {n / 9:.4f}" for n in range(3000)]
    rows = (f"Customer {n} wrote about order {n * 7919} and wants it replaced soon" for n in range(100_000))
    began = time.process_time()
    found, whole = without(log, rows, 60.0)
    assert whole and found[log[5]] == log[5]
    assert time.process_time() - began < 15


def test_names_stand_alone_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ann")
    names = Names()
    assert names.hide("ann and Ann's channel") == "‹name› and ‹name›'s channel"
    assert names.hide("see /srv/x/y.jsonl and /usr/lib/z.so") == "see ‹path›.jsonl and /usr/lib/z.so"
    assert manifest.this_host() not in names.hide(f"on {manifest.this_host()}")
