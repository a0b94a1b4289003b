"""Bad input on the command line, end to end: what, why and fix on stderr, the right exit code, nothing half-made."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from finetui.core.runs import state, store
from finetui.core.runs.event_log import read_all
from finetui.core.runs.events import DatasetReady, Ended, Exported, Progress, Sample, Warned
from finetui.tui.commands import exits
from tests.hub_server import Hub, running
from tests.tui import recorded
from tests.worker import tiny

TOKEN = "hf_canaryOnTheCommandLine"
NASTY = "[/ [@click=app.quit]x[/] \x1b]52;c;aGk=\x07\x1b[2J\x9b31m\u202egnp"
RECIPE = """\
name: tiny
model: {source: model, max_length: 64}
dataset: {source: rows.jsonl}
training: {epochs: 100, max_steps: 1, warmup_steps: 0, batch_size: 4, evaluate_every_steps: 0, save_every_steps: 0, sample_count: 0}
"""


@dataclass
class Place:
    """A folder with a recipe, a model and rows; `finetui` runs in it with a token in its environment."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def finetui(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "finetui.tui", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, **self.environment, **more},
            timeout=600,
            check=False,
        )
        said = done.stdout + done.stderr
        assert "Traceback" not in said and TOKEN not in said
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", said)
        return done

    def train(self, *settings: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.finetui("train", "recipe.yaml", *(w for s in settings for w in ("--set", s)), **more)

    def refused(self, code: int, hints: tuple[str, ...], *settings: str, **more: str) -> None:
        """`finetui train` with `settings` is refused before a run is made."""
        done = self.train(*settings, **more)
        assert done.returncode == code, done
        assert not done.stdout
        assert len(done.stderr.splitlines()) >= 3, "what, why, fix"
        for hint in hints:
            assert hint in done.stderr, done.stderr
        assert not self.runs(), "no run is left behind"
        assert (self.folder / "recipe.yaml").read_text() == RECIPE

    def runs(self) -> list[Path]:
        return list(self.folder.glob("home/data/runs/*"))

    def no_token(self) -> None:
        """The token stands in no file of finetui's, and on no command line."""
        for file in (path for path in (self.folder / "home").rglob("*") if path.is_file()):
            assert TOKEN.encode() not in file.read_bytes(), file
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert TOKEN.encode() not in line.read_bytes(), line
            except OSError:
                continue


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    for name in ("HF_HUB_CACHE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    tiny.make(tmp_path / "model")
    tiny.write_rows(tmp_path / "rows.jsonl", 20)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN, "UNSLOTH_FORCE_CPU": "1"}
    return Place(tmp_path, environment)


@pytest.fixture
def hub(place: Place) -> Iterator[Hub]:
    with running() as server:
        place.environment |= {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "UNSLOTH_OFFLINE": "0"}
        yield server


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows_with_images() -> bytes:
    """Twenty conversations as Parquet, as the hub keeps them: the column `picture` names files that are not there."""
    rows: list[dict[str, Any]] = [
        row | {"picture": {"bytes": None, "path": "gone.png"}} for row in tiny.rows(20)
    ]
    rows[0]["messages"][0]["content"] = NASTY
    text = {"dtype": "string", "_type": "Value"}
    messages = {"feature": {"role": text, "content": text}, "_type": "List"}
    features = {"messages": messages, "picture": {"_type": "Image"}}
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("messages", pa.list_(turn)), ("picture", picture)],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema), file)
    return file.getvalue()


def test_local_sources_that_cannot_be_used(place: Place) -> None:
    folder = place.folder
    tiny.make(folder / "base", chat_template=None)
    (folder / "none").mkdir()
    (folder / "x.gguf").write_bytes(b"GGUF" + bytes(60))
    (folder / "lora").mkdir()
    (folder / "lora" / "adapter_config.json").write_text('{"base_model_name_or_path": "their/base"}')
    cut = tiny.make(folder / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:9000])
    (folder / "empty.jsonl").write_bytes(b"")
    (folder / "header.csv").write_text("prompt,completion\n")
    (folder / "colours.jsonl").write_text(json.dumps({NASTY: "red"}) + "\n")
    name = "[@click=app.quit]x[bold].jsonl"
    (folder / name).write_text(NASTY + "\n")

    for setting, code, hints in (
        ("model.source=./nowhere", exits.NOT_FOUND, ("There is no folder", "nowhere")),
        ("model.source=none", exits.REFUSED, ("is not a model", "config.json")),
        ("model.source=x.gguf", exits.REFUSED, ("is a GGUF", "Choose the original model")),
        ("model.source=lora", exits.REFUSED, ("is an adapter", "Choose its base: their/base")),
        ("model.source=base", exits.REFUSED, ("has no chat template", "instruct version")),
        ("model.source=cut", exits.REFUSED, ("model.safetensors is cut off", "Download")),
        ("dataset.source=nowhere.jsonl", exits.NOT_FOUND, ("There is no file", "nowhere.jsonl")),
        ("dataset.source=empty.jsonl", exits.REFUSED, ("empty.jsonl is empty",)),
        ("dataset.source=header.csv", exits.REFUSED, ("has no rows", "examples")),
        ("dataset.source=colours.jsonl", exits.REFUSED, ("is not known", "[/ [@click=app.quit]x[/]")),
        (f"dataset.source={name}", exits.REFUSED, (f"{name} cannot be read", "Line 1")),
    ):
        place.refused(code, hints, setting)
    place.no_token()


def test_4bit_without_a_gpu(place: Place) -> None:
    """`nvidia-smi` and the driver are not asked where no device is to be seen."""
    hidden = {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": ""}
    done = place.train("model.precision=4bit", "training.max_steps=1", **hidden)
    said = done.stdout + done.stderr
    assert done.returncode in (exits.REFUSED, exits.FAILED), done
    assert "4-bit needs an NVIDIA GPU" in said and "16bit" in said


def test_a_recipe_with_mistakes_names_each_line(place: Place) -> None:
    text = f"name: x\nlora: {{rnak: 8}}\ntraining:\n  epochs: many\n{json.dumps(NASTY)}: 1\n"
    (place.folder / "bad.yaml").write_text(text)
    for words in (("recipe", "check", "bad.yaml"), ("train", "bad.yaml")):
        done = place.finetui(*words)
        assert done.returncode == exits.RECIPE and not done.stdout
        for hint in ("bad.yaml:2: lora.rnak", "did you mean rank", "bad.yaml:4:", "many", "bad.yaml:5:"):
            assert hint in done.stderr, done.stderr
    told = json.loads(place.finetui("recipe", "check", "bad.yaml", "--json").stdout)["error"]
    assert told["code"] == "recipe" and len(told["why"].splitlines()) == 3
    assert not place.runs()


def test_what_the_hub_refuses(place: Place, hub: Hub) -> None:
    model, rows = files_of(place.folder / "model"), (place.folder / "rows.jsonl").read_bytes()
    plain = {name: content for name, content in model.items() if name != "tokenizer_config.json"}
    hub.add("models", "me/gated", model, gated=True)
    hub.add("models", "me/base", plain | {"tokenizer_config.json": b"{}"})
    hub.add("models", "me/busy", model, status=429)
    hub.add("datasets", "me/rows", {"train.jsonl": rows, "test.jsonl": rows})
    hub.add("datasets", "me/gated", {"train.jsonl": rows}, gated=True)
    hub.add("datasets", "me/down", {"train.jsonl": rows}, status=503)
    hub.add("datasets", "me/cut", {"train.jsonl": rows[:700]})
    for settings, code, hints in (
        (("model.source=me/none",), exits.NOT_FOUND, ("no model named me/none",)),
        (("model.source=me/gated",), exits.REFUSED, ("is gated", "has not been granted", "Accept the terms")),
        (("model.source=me/base",), exits.REFUSED, ("has no chat template", "instruct version")),
        (("model.source=me/busy",), exits.REFUSED, ("slow down", "429")),
        (("dataset.source=me/none",), exits.NOT_FOUND, ("no dataset named me/none",)),
        (("dataset.source=me/gated",), exits.REFUSED, ("is gated", "Accept the terms")),
        (("dataset.source=me/down",), exits.REFUSED, ("could not answer", "503")),
        (("dataset.source=me/cut",), exits.REFUSED, ("rows of me/cut cannot be read", "row 6")),
        (
            ("dataset.source=me/rows", "dataset.split=dev"),
            exits.REFUSED,
            ("no split named dev", "train, test"),
        ),
    ):
        place.refused(code, hints, *settings)
    place.refused(exits.REFUSED, ("is gated", "set HF_TOKEN"), "model.source=me/gated", HF_TOKEN="")
    asked = [part for name, part in hub.ranges if name.endswith(".safetensors")]
    assert all(part.startswith("bytes=0-") and part != "bytes=0-" for part in asked), (
        "headers, and no weights"
    )
    place.no_token()


def test_no_hub(place: Place) -> None:
    for more, why in (
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}, "No answer from http://127.0.0.1:9"),
    ):
        for setting in ("model.source=me/any", "dataset.source=me/any"):
            place.refused(exits.REFUSED, ("me/any is not on this machine", why, "demo"), setting, **more)


def test_a_home_that_cannot_be_written(place: Place) -> None:
    (place.folder / "file").write_text("")
    for home in (place.folder / "file", place.folder / "file" / "below", Path("/proc/none")):
        place.refused(exits.REFUSED, ("FINETUI_HOME",), FINETUI_HOME=str(home))
        assert place.finetui("runs", FINETUI_HOME=str(home)).returncode == exits.OK
    assert (place.folder / "file").read_text() == ""


def test_a_model_that_does_not_load_fails_the_run_with_a_card(place: Place) -> None:
    """Its files look whole; only loading shows that they do not belong together."""
    config = place.folder / "model" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 64', '"hidden_size": 32'))
    done = place.train()
    assert done.returncode == exits.FAILED, done
    assert "model does not load." in done.stdout and "config.json" in done.stdout
    (run,) = store.all_runs()
    seen = state.status(run)
    assert seen.state == "failed" and seen.card is not None and seen.card.code == "model-broken"
    assert seen.card.why and seen.card.fix and run.recipe.is_file()
    run.log.write_bytes(run.log.read_bytes() + NASTY.encode())
    attached = place.finetui("attach", "last", "--plain")
    assert attached.returncode == exits.FAILED and "does not load" in attached.stdout
    assert "does not load" in place.finetui("runs").stdout
    place.no_token()


def test_hub_model_and_hub_dataset_train(place: Place, hub: Hub) -> None:
    """A private model, a named configuration, and rows with a column of images, which nobody opens."""
    card = "---\nconfigs:\n- config_name: en\n  data_files: en.parquet\n- config_name: de\n  data_files: de.parquet\n---\n"
    hub.add("models", "me/tiny", files_of(place.folder / "model"), private=True)
    hub.add(
        "datasets",
        "me/several",
        {"README.md": card.encode(), "en.parquet": rows_with_images(), "de.parquet": rows_with_images()},
    )
    sources = ("model.source=me/tiny", "dataset.source=me/several")
    place.refused(exits.REFUSED, ("has several configurations", "en, de"), *sources)
    done = place.train(*sources, "dataset.config=de", "model.max_length=256")
    assert done.returncode == exits.OK, done
    (run,) = store.all_runs()
    events = [record.event for record in read_all(run.events)]
    (ready,) = (event for event in events if isinstance(event, DatasetReady))
    assert ready.rows + ready.evaluation_rows == 20
    assert [event.reason for event in events if isinstance(event, Ended)] == ["completed"]
    assert not [event for event in events if isinstance(event, Warned)]
    place.no_token()


def test_a_hostile_run_is_told_literally(place: Place) -> None:
    recording = recorded.new().started().ready().train(1, 2, every=0)
    recording.add(
        Warned("odd", NASTY, NASTY, NASTY),
        Progress("load", 1, 2, NASTY, NASTY),
        Sample(0, 0, NASTY, NASTY, NASTY),
        Exported("adapter", NASTY, 1, command=NASTY),
        Ended("train", "failed", 60.0, f"The end: {NASTY}", f"why {NASTY}", f"fix {NASTY}", "run-failed"),
    )
    literal = "[/ [@click=app.quit]x[/]"
    runs = place.finetui("runs")
    assert runs.returncode == exits.OK and f"The end: {literal}" in runs.stdout
    attached = place.finetui("attach", "last", "--plain")
    assert attached.returncode == exits.FAILED
    for label in ("warning", "sample", "export", "failed"):
        line = [line for line in attached.stdout.splitlines() if line.startswith(label)][-1]
        assert literal in line, line
    for words in (("runs", "--json"), ("attach", "last", "--json")):
        assert "@click" in place.finetui(*words).stdout
