"""The merged model in 4 bit: bitsandbytes' own numbers, opened by Transformers, proved, gone on with, and caught when broken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import (  # pyright: ignore
    quantize_4bit,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from finetui.core import talk
from finetui.core.runs.events import Exported, Proved, Warned
from finetui.core.worker import export, four_bit, merge, proof, tensors
from tests.worker import exporting, harness, proving
from tests.worker.broken import FOLDERS
from tests.worker.proving import Proven

FORMAT = "merged_4bit"


def parts_of(weight: torch.Tensor, name: str) -> dict[str, torch.Tensor]:
    """`weight` as bitsandbytes packs it in one go."""
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    return {name: packed} | {f"{name}.{key}": part for key, part in state.as_dict(packed=True).items()}


@pytest.fixture(scope="module")
def merged(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[exporting.Tuned, Path]:
    """A run, and its merged model in 16 bit."""
    folder = tmp_path_factory.mktemp("merged")
    tuned = exporting.make_run(folder / "run", tiny_model)
    merge.merge(tiny_model, tuned.run.adapter, folder / "merged")
    return tuned, folder / "merged"


@pytest.mark.parametrize("rows", [20, 10_000])
def test_it_is_what_bitsandbytes_makes(
    merged: tuple[exporting.Tuned, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    tuned, source = merged
    monkeypatch.setattr(merge, "PART_ELEMENTS", 64 * rows)
    four_bit.pack(source, tmp_path)
    expected: dict[str, torch.Tensor] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        expected |= parts_of(weight, name) if name.endswith("proj.weight") else {name: weight}
    found = load_file(tmp_path / "model.safetensors")
    assert set(found) == set(expected)
    for name, values in expected.items():
        if "quant_state" in name:
            assert json.loads(bytes(found[name].tolist())) == json.loads(bytes(values.tolist()))
        else:
            assert torch.equal(found[name], values), name
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes()

    ids = torch.tensor([exporting.prompt_ids(tuned, "Hello")])
    packing = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    opened = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    made = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, quantization_config=packing)
    assert type(opened.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert type(opened.lm_head) is torch.nn.Linear
    with torch.no_grad():
        assert torch.equal(opened(ids.to(opened.device)).logits, made(ids.to(made.device)).logits)
    weights = tensors.merged(tmp_path, tuned.base, tuned.run.adapter)
    assert weights.compared == len(load_file(source / "model.safetensors"))
    assert weights.learned == pytest.approx(1, abs=0.1) and 0.05 < weights.worst_error < 0.15


def test_shards_of_a_killed_one_are_kept(
    merged: tuple[exporting.Tuned, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tuned, source = merged
    monkeypatch.setattr(merge, "SHARD_BYTES", 32 * 1024)

    class Stop(Exception):
        pass

    def until(share: float) -> None:
        if share > 0.6:
            raise Stop

    with pytest.raises(Stop):
        four_bit.pack(source, tmp_path, until)
    assert not (tmp_path / "config.json").exists()
    whole = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.safetensors")}
    assert whole
    four_bit.pack(source, tmp_path)
    assert {file: file.stat().st_mtime_ns for file in whole} == whole
    assert len(list(tmp_path.glob("*.safetensors"))) > len(whole)
    AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_full_disk_leaves_no_export(
    merged: tuple[exporting.Tuned, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, _source = merged

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception) as caught:
        export.export(None, None, tuned.recipe, tuned.run, [FORMAT], lambda _event: None)
    assert getattr(caught.value, "code", "") == "no-space"
    assert not (tuned.run.exports / FORMAT).exists()


@pytest.fixture(scope="module")
def proven(tiny_model: Path, tiny_rows: Path) -> Proven:
    """A run that was exported in 4 bit alone."""
    return proving.prove_run(tiny_model, tiny_rows, [FORMAT])


def again(proven: Proven, folder: Path) -> str:
    return proof.prove(FORMAT, folder, proven.base, proven.run.adapter, proven.reference).verdict


def test_a_sound_one_is_proved_and_answers(proven: Proven) -> None:
    assert not harness.events(proven.run, Warned), harness.codes(proven.run)
    [done], [found] = harness.events(proven.run, Exported), harness.events(proven.run, Proved)
    print(found)
    assert (found.verdict, found.consumer) == ("same", "Transformers"), found
    assert [path.name for path in proven.run.exports.iterdir()] == [FORMAT], "the 16-bit one has gone"
    ran = subprocess.run(["sh", "-c", done.command], capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert talk.find(str(proven.run.exports / FORMAT)).sides == ("tuned",)


@pytest.mark.parametrize("fault", FOLDERS)
def test_another_tokenizer_is_caught(proven: Proven, tmp_path: Path, fault: str) -> None:
    folder = shutil.copytree(proven.run.exports / FORMAT, tmp_path / FORMAT)
    FOLDERS[fault](folder)
    assert again(proven, folder) == "broken"


@pytest.mark.parametrize("fault", ["truncated", "codes zeroed", "scales zeroed", "no scales", "unmerged"])
def test_other_weights_are_caught(proven: Proven, tmp_path: Path, fault: str) -> None:
    folder = shutil.copytree(proven.run.exports / FORMAT, tmp_path / FORMAT)
    file = folder / "model.safetensors"
    held = load_file(file)
    name = "model.layers.1.self_attn.v_proj.weight"
    if fault == "truncated":
        file.write_bytes(file.read_bytes()[:-5000])
    elif fault == "unmerged":
        base = load_file(proven.base / "model.safetensors")
        packed = [one for one in base if one.endswith("proj.weight")]
        for one in packed:
            held |= parts_of(base[one].bfloat16(), one)
        save_file(held, file, metadata={"format": "pt"})
    else:
        if fault == "no scales":
            del held[f"{name}.absmax"]
        else:
            zeroed = name if fault == "codes zeroed" else f"{name}.absmax"
            held[zeroed] = torch.zeros_like(held[zeroed])
        save_file(held, file, metadata={"format": "pt"})
    # Without its scales' codes a weight is off, and no more than that.
    assert again(proven, folder) == ("differs" if fault == "scales zeroed" else "broken")
