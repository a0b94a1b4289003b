"""Importance matrices by a real llama.cpp: against activations in PyTorch, and in the quantizations that are made with them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize

from finetui.core import export_record
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection, ExportFormat
from finetui.core.runs.events import Event, Exported, Progress, Warned
from finetui.core.worker import export, importance, llama_cpp

from . import tiny
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
