"""Adapter and merged exports: they load, and hold exactly what was learned; nothing half-made is ever listed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetui.core import recipe_file
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection
from finetui.core.runs.events import Event, Exported, Warned
from finetui.core.worker import dataset, export, merge, tensors, verify
from finetui.core.worker.events import EventWriter
from tests import waiting

from . import tiny
from .exporting import Tuned, make_run, prompt_ids, tuned_model


def do(tuned: Tuned, *formats: str) -> tuple[list[Exported], list[Event]]:
    events: list[Event] = []
    done = export.export(None, None, tuned.recipe, tuned.run, formats, events.append)
    assert [event for event in events if isinstance(event, Exported)] == done
    return done, events


def listed(tuned: Tuned) -> list[str]:
    return sorted(path.name for path in tuned.run.exports.iterdir())


def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float()


def test_the_adapter_loads_in_peft_and_says_the_same(tuned: Tuned) -> None:
    [done], _events = do(tuned, "adapter")
    folder = tuned.run.path / done.path
    base = AutoModelForCausalLM.from_pretrained(tuned.base, dtype=torch.float32)
    ids = prompt_ids(tuned, "Hello")
    assert torch.equal(
        logits(PeftModel.from_pretrained(base, str(folder)), ids), logits(tuned_model(tuned), ids)
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template
    assert done.bytes == sum(p.stat().st_size for p in folder.iterdir())


def test_the_prompt_of_all_rows_goes_along_where_the_recipe_has_none(tuned: Tuned, tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", tuned.base)
    told = {"role": "system", "content": "Say a colour."}
    rows = [{"messages": [told, *row["messages"]]} for row in tiny.rows(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = DatasetSection(source=str(tmp_path / "rows.jsonl"), evaluation_share=0.1)
    made = replace(made, recipe=made.recipe.model_copy(update={"dataset": section}))
    writer = EventWriter(made.run.events)
    tokenizer = AutoTokenizer.from_pretrained(tuned.base)
    writer.emit(dataset.prepare(made.recipe, tokenizer, writer, lambda: None).ready)
    [adapter, _gguf], _events = do(made, "adapter", "gguf_f16")
    assert (made.run.path / adapter.path / "system_prompt.txt").read_text() == "Say a colour."
    assert 'SYSTEM "Say a colour."' in (made.run.exports / "gguf_f16" / "Modelfile").read_text()


@pytest.mark.parametrize("format", ["adapter", "merged"])
def test_the_command_that_comes_with_it_answers(tuned: Tuned, format: str) -> None:
    [done], _events = do(tuned, format)
    ran = subprocess.run(["sh", "-c", done.command], capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("rslora", [False, True])
def test_merged_is_base_and_adapter(tiny_model: Path, tmp_path: Path, rslora: bool) -> None:
    tuned = make_run(tmp_path / "run", tiny_model, rslora=rslora)
    [done], _events = do(tuned, "merged")
    folder = tuned.run.path / done.path
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    expected = tuned_model(tuned).merge_and_unload().state_dict()
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(weight, expected[name], rtol=2**-7, atol=1e-6)
    ids = prompt_ids(tuned, "Hello")
    ours, before = logits(merged, ids), logits(base, ids)
    wanted = logits(tuned_model(tuned), ids)
    assert (ours - wanted).abs().max() < 0.05 * (wanted - before).abs().max()
    assert (
        AutoTokenizer.from_pretrained(folder).apply_chat_template(
            [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        == ids
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_less_than_a_step_of_sixteen_bit_is_merged_too(
    tiny_model: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    """Of changes of a twentieth of a step, rounding to the nearest number would keep none."""
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype).save_pretrained(base)
    before = load_file(base / "model.safetensors")
    tuned = make_run(tmp_path / "run", tiny_model)
    file = tuned.run.adapter / "adapter_model.safetensors"
    sides = load_file(file)
    step = 2**-7 if dtype == torch.bfloat16 else 2**-10
    for name, side in sides.items():
        if ".lora_B." in name:
            weight = before[name.removeprefix("base_model.model.").replace("lora_B.", "")].float()
            down = sides[name.replace("lora_B", "lora_A")].float()
            mean = (side.float() @ down).abs().mean() * tuned.recipe.lora.alpha / tuned.recipe.lora.rank
            side.mul_(weight.abs().mean() * step / 20 / mean)
            side[::2] = 0  # these rows are not changed
    save_file(sides, file)
    for folder in ("one", "again"):
        merge.merge(base, tuned.run.adapter, tmp_path / folder)
    after = load_file(tmp_path / "one" / "model.safetensors")
    again = load_file(tmp_path / "again" / "model.safetensors")
    found = tensors.merged(tmp_path / "one", base, tuned.run.adapter)
    assert found.learned is not None and abs(found.learned - 1) < max(0.1, 4 * found.noise) < 0.5
    for name, weight in after.items():
        assert weight.dtype == dtype and torch.equal(weight, again[name])
        adapted = f"base_model.model.{name.removesuffix('.weight')}.lora_B.weight" in sides
        assert torch.equal(weight[::2] if adapted else weight, before[name][::2] if adapted else before[name])


def test_merged_is_sixteen_bit_safetensors_without_code(tiny_model: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    )
    (base / "evil.py").write_text("raise SystemExit('the canary ran')")
    tuned = make_run(tmp_path / "run", tiny_model)
    export.export(None, None, tuned.recipe, tuned.run, ["merged"], lambda _event: None, base=base)
    folder = tuned.run.exports / "merged"
    assert "auto_map" not in json.loads((folder / "config.json").read_text())
    assert [p.name for p in folder.iterdir() if p.suffix in (".py", ".bin", ".pt")] == ["ask.py"]
    with safe_open(str(folder / "model.safetensors"), "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}


def test_large_models_are_written_in_shards(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "SHARD_BYTES", 40_000)
    merge.merge(tuned.base, tuned.run.adapter, tmp_path / "merged")
    verify.merged(tmp_path / "merged")
    names = sorted(p.name for p in (tmp_path / "merged").glob("*.safetensors"))
    assert len(names) > 2
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    expected = tuned_model(tuned).merge_and_unload().state_dict()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    assert all(torch.allclose(loaded[name], expected[name], rtol=2**-7, atol=1e-6) for name in loaded)


def test_a_diverged_adapter_is_not_merged(tiny_model: Path, tmp_path: Path) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)
    file = tuned.run.adapter / "adapter_model.safetensors"
    weights = load_file(file)
    weights[next(iter(weights))][0, 0] = float("nan")
    save_file(weights, file)
    with pytest.raises(FinetuiError) as caught:
        do(tuned, "merged")
    assert caught.value.code == "merge-not-finite"
    assert listed(tuned) == []


def test_what_the_file_merge_cannot_take_is_said(tiny_model: Path, tmp_path: Path) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)
    file = tuned.run.adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "use_dora": True}))
    with pytest.raises(merge.CannotMerge):
        merge.merge(tiny_model, tuned.run.adapter, tmp_path / "out")


def test_one_failure_is_a_warning_and_the_rest_is_done(tiny_model: Path, tmp_path: Path) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)
    file = tuned.run.adapter / "adapter_model.safetensors"
    weights = load_file(file)
    weights[next(iter(weights))][0, 0] = float("inf")
    save_file(weights, file)
    done, events = do(tuned, "adapter", "merged")
    assert [exported.format for exported in done] == ["adapter"]
    assert [event.code for event in events if isinstance(event, Warned)] == ["merge-not-finite"]


def test_a_run_without_an_adapter_has_nothing_to_export(tiny_model: Path, tmp_path: Path) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)
    shutil.rmtree(tuned.run.adapter)
    with pytest.raises(FinetuiError) as caught:
        do(tuned, "adapter")
    assert caught.value.code == "export-nothing"


def test_a_torn_adapter_is_noticed(tiny_model: Path, tmp_path: Path) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)
    file = tuned.run.adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FinetuiError) as caught:
        do(tuned, "adapter")
    assert caught.value.code == "export-damaged"
    assert listed(tuned) == []


def test_a_stop_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    tuned = make_run(tmp_path / "run", tiny_model)
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise Stop

    with pytest.raises(Stop):
        export.export(None, None, tuned.recipe, tuned.run, ["merged"], lambda _event: None, check=check)
    assert listed(tuned) == []


_EXPORT = """
import sys
from pathlib import Path
from finetui.core import recipe_file
from finetui.core.runs.store import RunFolder
from finetui.core.worker import export
run = RunFolder(Path(sys.argv[1]))
export.export(None, None, recipe_file.load(run.recipe), run, ["merged", "gguf_f16"], lambda event: print(event, flush=True))
"""


def test_a_killed_export_lists_nothing_and_is_cleared_away(tiny_model: Path, tmp_path: Path) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)
    recipe_file.save(tuned.recipe, tuned.run.recipe)
    process = subprocess.Popen(
        [sys.executable, "-c", _EXPORT, str(tuned.run.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if b"GGUF F16" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [name for name in listed(tuned) if not name.startswith(".")] == ["merged"]
    verify.merged(tuned.run.exports / "merged")
    assert any(name.startswith(".work-") for name in listed(tuned))
    do(tuned, "adapter")
    assert listed(tuned) == ["adapter", "merged"]


def test_children_end_with_the_worker(tmp_path: Path) -> None:
    parent = (
        "import sys\nfrom finetui.core.worker import child\n"
        "child.run([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'])"
    )
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen([sys.executable, "-c", parent], stderr=stderr)
    waiting.until(lambda: log.read_text().endswith("\n"), "for the child")
    child_pid = int(log.read_text())
    process.kill()
    process.wait()
    waiting.until(lambda: waiting.has_ended(child_pid), "for the end of the child")


def test_a_full_disk_is_a_card_and_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """With a limit on file size, writing fails as it does on a full disk."""
    tuned = make_run(tmp_path / "run", tiny_model)
    recipe_file.save(tuned.recipe, tuned.run.recipe)
    program = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        + _EXPORT.replace('["merged", "gguf_f16"]', '["adapter"]').replace("export.export", "run_it")
    )
    program = program.replace("run = RunFolder", "run_it = export.export\nrun = RunFolder")
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tuned.run.path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "FinetuiError: The disk is full." in ran.stderr, ran.stderr
    assert listed(tuned) == []


def test_too_little_space_is_refused_before_a_byte_is_written(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tuned.base)
    total, used = shutil.disk_usage(tmp_path)[:2]
    usage = type(shutil.disk_usage(tmp_path))(total, used, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(FinetuiError) as caught:
        do(run, "merged")
    assert caught.value.code == "no-space"
    assert listed(run) == []
