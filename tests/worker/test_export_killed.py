"""Exports that are killed with signal 9 go on where they were, and a merge takes no more memory than its largest tensor."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from finetui.core import export_record
from finetui.core.errors import FinetuiError
from finetui.core.runs import chosen
from finetui.core.runs.events import Event, Exported, Progress
from finetui.core.worker import export, llama_cpp, merge, tensors, verify
from finetui.core.worker.workbench import Workbench

from .exporting import Tuned, make_run

SHARD_BYTES = 40_000
PATIENCE = 300.0
FORMATS = ("gguf_q8_0", "gguf_q4_k_m", "gguf_q2_k")


def _work(run: Path) -> Path:
    return next(iter((run / "exports").glob(".work-*")), run / "exports" / "none")


def _two_shards(run: Path) -> bool:
    return len(list(_work(run).glob("merged.making/model*.safetensors"))) >= 2


def _converting(run: Path) -> bool:
    return any(_work(run).glob("gguf_f16.making/*.gguf"))


def _quantizing_again(run: Path) -> bool:
    return (run / "exports" / "gguf_q4_k_m").is_dir() and (_work(run) / "gguf_q2_k.making").is_dir()


def _never(_run: Path) -> bool:
    return False


def _until(tuned: Tuned, reached: Callable[[Path], bool], log: Path) -> None:
    """In a process of its own: exports, and stands still where `reached` is true."""
    merge.SHARD_BYTES = SHARD_BYTES  # type: ignore[misc]

    def check() -> None:
        if reached(tuned.run.path):
            log.write_text(log.read_text() + "here\n")
            signal.pause()

    def emit(event: Event) -> None:
        with log.open("a") as file:
            file.write(f"{event.text if isinstance(event, Progress) else type(event).__name__}\n")

    export.export(None, None, tuned.recipe, tuned.run, FORMATS, emit, check=check)
    log.write_text(log.read_text() + "done\n")


def kill_at(tuned: Tuned, reached: Callable[[Path], bool]) -> str:
    """Exports until `reached`, then kill -9. Returns what was said until then."""
    log = tuned.run.path / "said"
    log.write_text("")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_until, args=(tuned, reached, log))
    process.start()
    end = time.monotonic() + PATIENCE
    while not (log.is_file() and log.read_text().endswith(("here\n", "done\n"))):
        assert time.monotonic() < end and process.is_alive(), log.read_text() if log.is_file() else "nothing"
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -9 or log.read_text().endswith("done\n")
    return log.read_text()


def standing(tuned: Tuned) -> list[str]:
    names = sorted(p.name for p in tuned.run.exports.iterdir() if not p.name.startswith("."))
    for name in names:
        verify.gguf(next((tuned.run.exports / name).glob("*.gguf")))
        assert export_record.read(tuned.run.exports / name) is not None
    return names


def made(paths: list[Path]) -> dict[str, tuple[int, int]]:
    """Which files these are, and when they were written."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}


@pytest.fixture(scope="module")
def tools() -> None:
    llama_cpp.converter(lambda _said: None)
    llama_cpp.quantizer(lambda _said: None)


def test_killed_while_merging_converting_and_quantizing(
    tools: None, tiny_model: Path, tmp_path: Path
) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)
    run = tuned.run.path
    assert "merging" in kill_at(tuned, _two_shards)
    assert standing(tuned) == []
    shards = made(list(_work(run).glob("merged.making/model*.safetensors")))
    assert len(shards) >= 2

    kill_at(tuned, _converting)
    assert standing(tuned) == ["gguf_q8_0"]
    merged = _work(run) / "merged"
    verify.merged(merged)
    assert shards.items() <= made(list(merged.glob("*.safetensors"))).items()
    everything = made(list(merged.glob("*")))

    said = kill_at(tuned, _quantizing_again)
    assert "merging" not in said
    assert standing(tuned) == ["gguf_q4_k_m", "gguf_q8_0"]
    assert made(list(merged.glob("*"))) == everything
    f16 = made(list((_work(run) / "gguf_f16").glob("*.gguf")))
    first = made(list((tuned.run.exports / "gguf_q4_k_m").glob("*")))

    said = kill_at(tuned, _never)
    assert "merging" not in said and "converting" not in said and "to Q4_K_M" not in said
    assert f16 and standing(tuned) == sorted(FORMATS)
    assert made(list((tuned.run.exports / "gguf_q4_k_m").glob("*"))) == first
    assert not any(tuned.run.exports.glob(".*"))
    for format in FORMATS:
        file = next((tuned.run.exports / format).glob("*.gguf"))
        weights = tensors.gguf(file, tuned.base, tuned.run.adapter)
        assert not weights.missing and not weights.dead and weights.learned == pytest.approx(1, abs=0.1)


def test_other_weights_are_made_anew_and_never_written_over_unasked(tiny_model: Path, tmp_path: Path) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)

    def do(*, replace: bool = False) -> tuple[list[Exported], list[str]]:
        said: list[Event] = []
        done = export.export(None, None, tuned.recipe, tuned.run, ["merged"], said.append, replace=replace)
        return done, [event.text for event in said if isinstance(event, Progress)]

    kept = tuned.run.exports / "merged" / "model.safetensors"
    do()
    before = made([kept])
    done, said = do()
    assert done[0].kept and made([kept]) == before and not any("merging" in text for text in said)
    make_run(tmp_path / "run", tiny_model, seed=8)  # the run has learned more
    with pytest.raises(FinetuiError) as caught:
        do()
    assert caught.value.code == "export-there" and made([kept]) == before
    done, said = do(replace=True)
    assert not done[0].kept and made([kept]) != before and any("merging" in text for text in said)
    assert tensors.merged(kept.parent, tuned.base, tuned.run.adapter).learned == pytest.approx(1, abs=0.05)


def test_an_export_that_was_changed_since_is_not_taken_for_whole(tiny_model: Path, tmp_path: Path) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)
    export.export(None, None, tuned.recipe, tuned.run, ["merged"], lambda _event: None)
    file = tuned.run.exports / "merged" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FinetuiError) as caught:
        export.export(None, None, tuned.recipe, tuned.run, ["merged"], lambda _event: None)
    assert caught.value.code == "export-there"


def test_the_weights_of_a_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    tuned = make_run(tmp_path / "run", tiny_model)
    other = make_run(tmp_path / "other", tiny_model, seed=9)
    folder = tuned.run.checkpoints / "checkpoint-4"
    folder.parent.mkdir()
    other.run.adapter.rename(folder)
    weights = chosen.Chosen(folder, 4, False)
    [done] = export.export(
        None, None, tuned.recipe, tuned.run, ["merged"], lambda _event: None, weights=weights
    )
    record = export_record.read(tuned.run.exports / "merged")
    assert record is not None and (done.step, record.step, record.weights) == (
        4,
        4,
        "checkpoints/checkpoint-4",
    )
    found = tensors.merged(tuned.run.exports / "merged", tuned.base, folder)
    assert found.learned == pytest.approx(1, abs=0.05)


def test_the_workbench_keeps_its_own_and_puts_back_what_was_moved_aside(tmp_path: Path) -> None:
    mine, theirs = Workbench(tmp_path, "a" * 64), Workbench(tmp_path, "b" * 64)
    mine.open()
    (mine.begin("merged") / "model-00001-of-00002.safetensors").write_text("whole")
    (mine.begin("merged") / "model-00002-of-00002.safetensors.part").write_text("half")
    (mine.begin("merged_4bit") / "model-00001-of-00002.safetensors").write_text("whole")
    (mine.begin("gguf_f16") / "half.gguf").write_text("half")
    (mine.folder / "old-adapter").mkdir()
    mine.open()
    assert {str(p.relative_to(mine.folder)) for p in mine.folder.rglob("*.*")} == {
        "merged.making",
        "merged.making/model-00001-of-00002.safetensors",
        "merged_4bit.making",
        "merged_4bit.making/model-00001-of-00002.safetensors",
    }
    assert (tmp_path / "adapter").is_dir()
    mine.close(done=False)
    assert mine.folder.is_dir()
    theirs.open()
    assert not mine.folder.exists()
    theirs.close(done=False)
    assert not theirs.folder.exists()


# ---- memory ------------------------------------------------------------------------------------------------------

_MERGE = """
import json, sys
from pathlib import Path
from finetui.core.worker import merge
merge.SHARD_BYTES = 48 * 1024**2
merge.PART_ELEMENTS = 1024**2
base, adapter, target = map(Path, sys.argv[1:4])
def peak(name):
    return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1]) * 1024
Path("/proc/self/clear_refs").write_text("5")
before = peak("VmRSS")
merge.merge(base, adapter, target)
print(json.dumps({"before": before, "peak": peak("VmHWM")}))
"""


def sharded(folder: Path, layers: int, size: int) -> int:
    """A model of `layers` square weights in as many files, with its index. Returns its bytes."""
    folder.mkdir()
    weight_map: dict[str, str] = {}
    weights = torch.randn(size, size).to(torch.bfloat16)
    for layer in range(layers):
        name, file = (
            f"model.layers.{layer}.mlp.up_proj.weight",
            f"model-{layer + 1:05d}-of-{layers:05d}.safetensors",
        )
        save_file({name: weights}, folder / file, metadata={"format": "pt"})
        weight_map[name] = file
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "tokenizer_config.json").write_text("{}")
    return layers * size * size * 2


def adapter_for(folder: Path, layers: int, size: int, *, dora: bool) -> None:
    folder.mkdir()
    learned: dict[str, torch.Tensor] = {}
    for layer in range(layers):
        at = f"base_model.model.model.layers.{layer}.mlp.up_proj.lora_"
        learned |= {f"{at}A.weight": torch.randn(4, size), f"{at}B.weight": torch.randn(size, 4)}
        if dora:
            learned[f"{at}magnitude_vector"] = torch.rand(size) + 0.5
    save_file(learned, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_dora": dora}
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_a_merge_takes_the_memory_of_a_tensor_not_of_the_model(tmp_path: Path, kind: str) -> None:
    layers, size = 8, 4096
    model_bytes = sharded(tmp_path / "base", layers, size)
    adapter = tmp_path / "adapter"
    if kind == "full":
        sharded(adapter, layers, size)
    else:
        adapter_for(adapter, layers, size, dora=kind == "dora")
    ran = subprocess.run(
        [sys.executable, "-c", _MERGE, str(tmp_path / "base"), str(adapter), str(tmp_path / "merged")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    told = json.loads(ran.stdout)
    verify.merged(tmp_path / "merged")
    assert len(list((tmp_path / "merged").glob("*.safetensors"))) > 4
    grown, largest = told["peak"] - told["before"], size * size * 2
    assert grown < 4 * largest <= model_bytes / 2, f"{grown / 1e6:.0f} MB for {model_bytes / 1e6:.0f} MB"
    if kind == "lora":
        found = tensors.merged(tmp_path / "merged", tmp_path / "base", adapter)
        assert found.compared == layers and found.learned == pytest.approx(1, abs=0.01)
        assert found.worst_error < 0.006
