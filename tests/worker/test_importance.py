"""Importance matrices by a real llama.cpp: against activations in PyTorch, and in the quantizations that are made with them."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize

from finetui.core import export_record, leaving, recipe_file
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection, ExportFormat
from finetui.core.runs import care, event_log, store
from finetui.core.runs.event_log import Record
from finetui.core.runs.events import Ended, Event, Exported, Progress, Started, Warned
from finetui.core.worker import export, importance, llama_cpp

from .. import waiting
from . import harness, tiny
from .exporting import Tuned, llama_cpp_probabilities, make_run, tuned_model

FORMATS: tuple[ExportFormat, ...] = ("gguf_f16", "gguf_q3_k_s", "gguf_iq3_xxs", "gguf_iq2_xs")


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuned, list[Event]]:
    """A run over a model wide enough for these types, exported: what needs a matrix got one, Q3_K_S did not."""
    folder = tmp_path_factory.mktemp("weighed")
    base = tiny.make(folder / "base", hidden=256, intermediate=512)
    made = make_run(folder / "run", base)
    data = DatasetSection(source=str(tiny.write_rows(folder / "rows.jsonl", 40)))
    tuned = dataclasses.replace(made, recipe=made.recipe.model_copy(update={"dataset": data}))
    events: list[Event] = []
    export.export(None, None, tuned.recipe, tuned.run, FORMATS, events.append, base=base)
    return tuned, events


def matrix(tuned: Tuned) -> dict[str, np.ndarray[Any, Any]]:
    [file] = (tuned.run.path / "importance").glob("*")
    return {tensor.name: np.array(tensor.data).ravel() for tensor in GGUFReader(file).tensors}


def weights(tuned: Tuned, format: str) -> np.ndarray[Any, Any]:
    [file] = (tuned.run.exports / format).glob("*.gguf")
    [tensor] = (t for t in GGUFReader(file).tensors if t.name == "blk.1.ffn_down.weight")
    return dequantize(tensor.data, tensor.tensor_type)


def test_what_needs_a_matrix_is_made_and_runs_in_llama_cpp(weighed: tuple[Tuned, list[Event]]) -> None:
    tuned, events = weighed
    assert [e for e in events if isinstance(e, Warned)] == []
    assert [e.format for e in events if isinstance(e, Exported)] == list(FORMATS)
    for format in FORMATS:
        record = export_record.read(tuned.run.exports / format)
        assert record is not None and record.weighed == ("_iq" in format), format
    [file] = (tuned.run.exports / "gguf_iq2_xs").glob("*.gguf")
    types = {t.name: t.tensor_type.name for t in GGUFReader(file).tensors}
    assert types["blk.0.ffn_up.weight"] == "IQ2_XS"
    for format in ("gguf_iq2_xs", "gguf_iq3_xxs"):
        [file] = (tuned.run.exports / format).glob("*.gguf")
        assert llama_cpp_probabilities(file, [1, 2, 3]), format


def test_its_numbers_are_the_squares_of_what_goes_into_each_weight(
    weighed: tuple[Tuned, list[Event]],
) -> None:
    """Of rows as they are trained on, the last layer's too."""
    tuned, _events = weighed
    rows = importance._rows(tuned.recipe, tuned.run.adapter, lambda _said, _share: None, lambda: None)
    assert len(rows) > 30 and max(map(len, rows)) > 50
    model = tuned_model(tuned)
    sums: dict[str, torch.Tensor] = {}

    def listen(name: str) -> Any:
        def hook(_module: Any, given: Any) -> None:
            squares = given[0].detach().double().square().reshape(-1, given[0].shape[-1]).sum(0)
            sums[name] = sums.get(name, torch.zeros_like(squares)) + squares

        return hook

    names = {
        "attn_q": "self_attn.q_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    for layer in range(tiny.LAYERS):
        for ours, theirs in names.items():
            module = model.get_submodule(f"base_model.model.model.layers.{layer}.{theirs}")
            module.register_forward_pre_hook(listen(f"blk.{layer}.{ours}.weight"))
    with torch.no_grad():
        for row in rows:
            model(torch.tensor([row]))
    found = matrix(tuned)
    for name, expected in sums.items():
        assert found[f"{name}.counts"] == sum(map(len, rows)), name
        assert found[f"{name}.in_sum2"] == pytest.approx(expected.numpy(), rel=0.05), name


def test_of_a_mixture_each_expert_counts_by_the_tokens_that_it_is_asked(tmp_path: Path) -> None:
    """Against PyTorch's experts; and a quantization that needs the matrix runs in llama.cpp."""
    experts = 4
    base = tiny.make(tmp_path / "base", hidden=256, intermediate=256, experts=experts)
    made = make_run(tmp_path / "run", base)
    data = DatasetSection(source=str(tiny.write_rows(tmp_path / "rows.jsonl", 12)))
    tuned = dataclasses.replace(made, recipe=made.recipe.model_copy(update={"dataset": data}))
    events: list[Event] = []
    export.export(None, None, tuned.recipe, tuned.run, ["gguf_f16", "gguf_iq2_xs"], events.append, base=base)
    assert [e for e in events if isinstance(e, Warned)] == []

    rows = importance._rows(tuned.recipe, tuned.run.adapter, lambda _said, _share: None, lambda: None)
    shape = (tiny.LAYERS, experts, 256)
    counts, before, between = np.zeros(shape[:2]), np.zeros(shape), np.zeros(shape)

    def listen(layer: int) -> Any:
        def hook(module: Any, given: Any) -> None:
            hidden, chosen = given[0].detach(), given[1]
            for expert in range(experts):
                asked = hidden[(chosen == expert).any(-1)]
                gate, up = (asked @ module.gate_up_proj[expert].T).chunk(2, -1)
                inner = module.act_fn(gate) * up
                counts[layer, expert] += len(asked)
                before[layer, expert] += asked.double().square().sum(0).numpy()
                between[layer, expert] += inner.detach().double().square().sum(0).numpy()

        return hook

    model = tuned_model(tuned)
    for layer in range(tiny.LAYERS):
        block = model.get_submodule(f"base_model.model.model.layers.{layer}.mlp.experts")
        block.register_forward_pre_hook(listen(layer))
    with torch.no_grad():
        for row in rows:
            model(torch.tensor([row]))
    assert counts.sum() == tiny.LAYERS * 2 * sum(map(len, rows))
    assert counts.min() < 0.9 * counts.max(), "they are asked differently"
    found = matrix(tuned)
    for layer in range(tiny.LAYERS):
        for name, expected in (("gate", before), ("up", before), ("down", between)):
            at = f"blk.{layer}.ffn_{name}_exps.weight"
            # In 16 bit a token that is all but between two experts may go to the other.
            assert found[f"{at}.counts"] == pytest.approx(counts[layer], abs=0.02 * counts.max()), at
            sums = found[f"{at}.in_sum2"].reshape(experts, -1)
            assert sums == pytest.approx(expected[layer], rel=0.15, abs=0.02 * expected[layer].mean()), at
    [file] = (tuned.run.exports / "gguf_iq2_xs").glob("*.gguf")
    types = {t.name: t.tensor_type.name for t in GGUFReader(file).tensors}
    assert types["blk.0.ffn_up_exps.weight"] == "IQ2_XS"
    assert llama_cpp_probabilities(file, [1, 2, 3])


def _export_a_needing(tuned: Tuned, reached: Path) -> None:
    """In a process of its own: exports what needs a matrix, and stands still where its rows stand on the disk."""

    def check() -> None:
        if any(tuned.run.importance.glob(".making-*/rows.json")):
            reached.write_text("here")
            signal.pause()

    export.export(
        None,
        None,
        tuned.recipe,
        tuned.run,
        ["gguf_iq2_xxs"],
        lambda _event: None,
        base=tuned.base,
        check=check,
    )


def without_matrix(tuned: Tuned, folder: Path) -> Tuned:
    """The same run in `folder`, before its matrix was made."""
    run = type(tuned.run)(Path(shutil.copytree(tuned.run.path, folder)))
    shutil.rmtree(run.importance)
    return dataclasses.replace(tuned, run=run)


def test_what_a_killed_making_left_goes_with_the_next_use_and_with_a_cleaning(
    weighed: tuple[Tuned, list[Event]], tmp_path: Path
) -> None:
    """It holds the person's rows."""
    tuned = without_matrix(weighed[0], tmp_path / "run")
    recipe_file.save(tuned.recipe, tuned.run.recipe)
    ended = (Started("train", 1, 1.0, "elsewhere"), Ended("train", "completed", 3.0))
    records = (event_log.encode(Record(at, float(at), event)) for at, event in enumerate(ended, 1))
    tuned.run.events.write_bytes(b"".join(records))
    process = multiprocessing.get_context("fork").Process(
        target=_export_a_needing, args=(tuned, tmp_path / "reached")
    )
    process.start()
    waiting.until((tmp_path / "reached").exists, "for the rows")
    process.kill()
    process.join()
    [left] = tuned.run.importance.iterdir()
    assert json.loads((left / "rows.json").read_text())

    cleaning = care.cleaning(tuned.run)
    assert left in cleaning.remove and care.clean(cleaning) > 0 and not left.exists()
    left.mkdir()
    (left / "rows.json").write_text("[[1]]")
    with store.alone(tuned.run):  # as a worker that makes it just now
        leaving.finished(tuned.run)
        assert left.exists()
    leaving.finished(tuned.run)
    assert not left.exists()
    left.mkdir()
    worker = harness.start("export", tuned.run, "gguf_iq2_xxs")
    assert worker.wait(harness.PATIENCE) == 0, tuned.run.log.read_text()[-2000:]
    [file] = tuned.run.importance.iterdir()
    assert file.suffix == ".gguf" and (tuned.run.exports / "gguf_iq2_xxs").is_dir()


_EXPORT_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from finetui.core import recipe_file
from finetui.core.runs.store import RunFolder
from finetui.core.worker import export
size = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
run = RunFolder(Path(sys.argv[1]))
export.export(None, None, recipe_file.load(run.recipe), run, ["gguf_iq2_xxs"], print)
"""


def test_a_full_disk_is_a_card_and_leaves_nothing(weighed: tuple[Tuned, list[Event]], tmp_path: Path) -> None:
    """With a limit on file size, writing fails as it does on a full disk: of the rows, of the matrix, of the quantized file."""
    [file] = weighed[0].run.importance.glob("*")
    tuned = without_matrix(weighed[0], tmp_path / "run")
    recipe_file.save(tuned.recipe, tuned.run.recipe)
    rows = importance._rows(tuned.recipe, tuned.run.adapter, lambda _said, _share: None, lambda: None)
    of_rows, of_matrix = len(json.dumps(rows)), file.stat().st_size
    assert of_rows < of_matrix - 100
    there = sorted(path.name for path in tuned.run.exports.iterdir())
    for size in (of_rows - 100, of_matrix - 100, of_matrix + 100):
        ran = subprocess.run(
            [sys.executable, "-c", _EXPORT_ON_A_FULL_DISK, str(tuned.run.path), str(size)],
            capture_output=True,
            text=True,
            timeout=harness.PATIENCE,
            check=False,
        )
        assert "FinetuiError: The disk is full." in ran.stderr, ran.stderr
        made = [path.suffix for path in tuned.run.importance.iterdir()]
        assert made == ([".gguf"] if size > of_matrix else [])
        assert sorted(path.name for path in tuned.run.exports.iterdir()) == there


def test_a_matrix_that_is_asked_for_spares_what_counts_and_is_made_once(
    weighed: tuple[Tuned, list[Event]], tmp_path: Path
) -> None:
    tuned, _events = weighed
    run = type(tuned.run)(Path(shutil.copytree(tuned.run.path, tmp_path / "run")))
    tuned = dataclasses.replace(tuned, run=run)
    section = tuned.recipe.export.model_copy(update={"importance": True})
    recipe = tuned.recipe.model_copy(update={"export": section})
    [there] = export_record.there(run, ("gguf_q3_k_s",), export_record.learned_print(run.adapter), True)
    assert not there.same and "without an importance matrix" in there.words
    before = weights(tuned, "gguf_q3_k_s")
    [file] = (run.path / "importance").glob("*")
    made = file.stat().st_mtime_ns
    events: list[Event] = []
    export.export(None, None, recipe, run, ["gguf_q3_k_s"], events.append, base=tuned.base, replace=True)
    assert file.stat().st_mtime_ns == made
    assert not any("rows of the training data" in e.text for e in events if isinstance(e, Progress))
    exact, needed = weights(tuned, "gguf_f16"), matrix(tuned)["blk.1.ffn_down.weight.in_sum2"]

    def lost(found: np.ndarray[Any, Any]) -> float:
        return float((needed * np.square(found - exact)).sum())

    assert lost(weights(tuned, "gguf_q3_k_s")) < 0.95 * lost(before)


def test_rows_that_are_gone_are_a_card(weighed: tuple[Tuned, list[Event]], tmp_path: Path) -> None:
    tuned, _events = weighed
    gone = tuned.recipe.dataset.model_copy(update={"source": str(tmp_path / "gone.jsonl")})
    recipe = tuned.recipe.model_copy(update={"dataset": gone})
    run = type(tuned.run)(Path(shutil.copytree(tuned.run.path, tmp_path / "run")))
    shutil.rmtree(run.path / "importance")
    with pytest.raises(FinetuiError) as caught:
        export.export(None, None, recipe, run, ["gguf_iq2_xxs"], lambda _event: None, base=tuned.base)
    assert "gone.jsonl" in str(caught.value.what + caught.value.why)
    assert not (run.exports / "gguf_iq2_xxs").exists() and not list((run.path / "importance").glob("*"))


def test_without_the_libraries_it_says_what_a_person_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    broken = llama_cpp.LIBRARIES.folder / llama_cpp.LIBRARIES.proof
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"of another machine")
    with pytest.raises(FinetuiError) as caught:
        llama_cpp.matrix_maker(lambda _said: None)
    assert caught.value.code == "importance-unavailable"
    assert "llama-quantize --imatrix imatrix.gguf" in caught.value.fix and "gguf_q2_k" in caught.value.fix


def test_a_program_of_ones_own_is_given_the_matrix() -> None:
    tool = llama_cpp.Quantizer(program=Path("/own/llama-quantize"))
    command = tool.command(Path("a"), Path("b"), "IQ2_XS", 2, Path("m"))
    assert command == ["/own/llama-quantize", "--imatrix", "m", "a", "b", "IQ2_XS", "2"]


def test_another_library_is_not_taken_for_the_pinned_one(tmp_path: Path) -> None:
    """Its structures would be others: the child says so instead of writing into the wrong place."""
    assert os.access(sys.executable, os.X_OK)
    with pytest.raises(llama_cpp.child.ChildFailed) as caught:
        llama_cpp.child.run(llama_cpp.Quantizer(libraries=tmp_path, backend=tmp_path).child("check"))
    assert caught.value.returncode == 2
