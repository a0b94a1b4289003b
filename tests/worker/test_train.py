"""One whole run of the worker as a process of its own, looked at from every side."""

from __future__ import annotations

import json
import math
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from finetui.core.runs import events as kinds
from finetui.core.runs.event_log import read_all
from finetui.core.runs.store import RunFolder
from finetui.core.worker import machine
from finetui.core.worker.events import EventWriter

from . import harness


@pytest.fixture(scope="module")
def run(tiny_model: Path, tiny_rows: Path) -> RunFolder:
    made = harness.make_run(
        harness.recipe(
            tiny_model, tiny_rows, max_steps=12, evaluate_every_steps=5, save_every_steps=4, sample_count=2
        )
    )
    worker = harness.start("train", made)
    assert harness.finish(worker, made) == 0, made.log.read_text(errors="replace")[-3000:]
    return made


def test_the_stages_come_in_order(run: RunFolder) -> None:
    order = []
    for record in read_all(run.events):
        name = record.event.stage if isinstance(record.event, kinds.Progress) else record.event.kind
        if name not in order and name != "device":
            order.append(name)
    expected = [
        "started",
        "start",
        "load",
        "model",
        "dataset",
        "tokenize",
        "baseline",
        "sample",
        "train",
        "step",
    ]
    assert [name for name in order if name in expected] == expected
    assert order.index("save") < order.index("export") < order.index("ended") == len(order) - 1


def test_records_are_numbered_without_gaps(run: RunFolder) -> None:
    assert [r.seq for r in read_all(run.events)] == list(range(1, len(read_all(run.events)) + 1))


def test_there_is_one_end_and_it_is_good(run: RunFolder) -> None:
    (end,) = harness.events(run, kinds.Ended)
    assert (end.job, end.reason, end.what) == ("train", "completed", "")


def test_started_names_the_process(run: RunFolder) -> None:
    (started,) = harness.events(run, kinds.Started)
    assert started.pid > 0 and started.create_time > 0 and started.host and started.name == "tiny"


def test_model_and_dataset_facts(run: RunFolder) -> None:
    (model,) = harness.events(run, kinds.ModelReady)
    # rank 4: q and o 4·(64+64), k and v 4·(64+32), gate, up and down 4·(64+128); two layers
    assert model.trainable == 2 * 4 * (2 * 128 + 2 * 96 + 3 * 192)
    assert model.parameters == 107_840
    assert (model.architecture, model.chat_template, model.context_length) == (
        "LlamaForCausalLM",
        "ChatML",
        2048,
    )
    (data,) = harness.events(run, kinds.DatasetReady)
    assert (data.rows, data.evaluation_rows, data.dropped, data.cut_rows) == (36, 4, 0, 0)
    assert 0 < data.trained_tokens < data.tokens / 4
    assert data.fingerprint.startswith("sha256:")


def test_steps_count_what_was_trained(run: RunFolder) -> None:
    steps = harness.events(run, kinds.Step)
    (data,) = harness.events(run, kinds.DatasetReady)
    assert [s.step for s in steps] == list(range(1, 13))
    assert {s.total_steps for s in steps} == {12}
    assert all(math.isfinite(s.loss) and s.grad_norm and s.seconds > 0 and s.tokens_per_second for s in steps)
    assert steps[8].epoch == 1.0  # 36 rows in batches of 4
    assert (steps[8].tokens, steps[8].trained_tokens) == (data.tokens, data.trained_tokens)
    assert steps[-1].loss < steps[0].loss - 0.5
    assert steps[0].learning_rate == 0.0 and steps[1].learning_rate == 5e-3 > steps[-1].learning_rate > 0


def test_evaluation_samples_and_checkpoints_keep_their_cadence(run: RunFolder) -> None:
    assert [e.step for e in harness.events(run, kinds.Evaluation)] == [5, 10, 12]
    samples = harness.events(run, kinds.Sample)
    assert [(s.step, s.index) for s in samples] == [(n, i) for n in (0, 5, 10, 12) for i in (0, 1)]
    assert len({s.prompt for s in samples}) == 2 and all("which colour" in s.prompt for s in samples)
    assert all("\x1b" not in s.answer for s in samples)
    looks = [e.loss for e in harness.events(run, kinds.Evaluation)]
    assert looks == sorted(looks, reverse=True), "each is a new low, and so kept"
    assert [c.step for c in harness.events(run, kinds.Checkpoint)] == [4, 5, 8, 10, 12]
    assert sorted(p.name for p in run.checkpoints.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-12"]


def test_the_machine_is_read(run: RunFolder) -> None:
    readings = harness.events(run, kinds.Device)
    assert len(readings) >= 2
    assert all(r.run_bytes and r.host_total_bytes and r.host_used_bytes for r in readings)


def test_the_machine_is_read_while_it_exports_too(run: RunFolder) -> None:
    kind_of = [record.event.kind for record in read_all(run.events)]
    assert "device" in kind_of[kind_of.index("export") :]


def test_what_exports_and_proves_counts_as_the_runs_memory(tmp_path: Path) -> None:
    monitor = machine.Monitor(EventWriter(tmp_path / "events.jsonl"), tmp_path).open()
    held = 256 * 1024**2
    program = f"import sys; much = b'x' * {held}; print('there', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None and child.stdout.readline() == b"there\n"
        alone = monitor.read().run_bytes or 0
        monitor.exporting()
        assert (monitor.read().run_bytes or 0) - alone >= held


def test_the_adapter_is_whole_and_private(run: RunFolder) -> None:
    names = {p.name for p in run.adapter.iterdir()}
    assert {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "chat_template.jinja",
    } <= names
    assert json.loads((run.adapter / "adapter_config.json").read_text())["r"] == 4
    assert stat.S_IMODE(run.adapter.stat().st_mode) == 0o700
    assert stat.S_IMODE(run.events.stat().st_mode) == 0o600


def test_the_run_folder_is_not_littered(run: RunFolder) -> None:
    known = {
        "recipe.yaml",
        "events.jsonl",
        "worker.log",
        "worker.lock",
        "crash.log",
        "control",
        "checkpoints",
        "adapter",
        "exports",
        "reference.json",
    }
    assert {p.name for p in run.path.iterdir()} == known


def test_an_export_job_loads_what_was_learned(run: RunFolder) -> None:
    assert harness.finish(harness.start("export", run, "adapter"), run) == 0
    assert (harness.ended(run).job, harness.ended(run).reason) == ("export", "completed")
    assert harness.events(run, kinds.Exported)[-1].format == "adapter"


def test_resuming_a_run_that_had_finished_only_finishes_again(run: RunFolder) -> None:
    """As after a stop in the middle of the exports."""
    before = len(harness.events(run, kinds.Step))
    learned = (run.adapter / "adapter_model.safetensors").read_bytes()
    assert harness.finish(harness.start("resume", run), run) == 0
    assert (harness.ended(run).job, harness.ended(run).reason) == ("resume", "completed")
    assert len(harness.events(run, kinds.Step)) == before
    assert harness.codes(run) == []
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == learned
