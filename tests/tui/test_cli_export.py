"""`finetui export --dry-run` and what it asks before it begins: no worker, no torch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finetui.core import export_plan, recipe_file
from finetui.core.recipe import ExportSection, LoraSection, ModelSection, Recipe
from finetui.core.runs import events, store
from finetui.core.system import Gpu
from finetui.tui.commands import exits, exporting

from ..core.run_events import gone
from ..worker import tiny
from .command_line import Cli, cli, make_run

__all__ = ["cli"]


@pytest.fixture
def run(cli: Cli, tmp_path: Path) -> store.RunFolder:
    base = tiny.make(tmp_path / "base")
    found = make_run(
        gone(),
        events.Step(7, 7, 1.0, 2.5, 1e-4),
        events.Evaluation(7, 0.5),
        events.Ended("train", "completed"),
    )
    recipe = Recipe(
        name="try",
        model=ModelSection(source=str(base)),
        export=ExportSection(formats=("merged", "gguf_q4_k_m")),
    )
    recipe_file.save(recipe, found.recipe)
    found.adapter.mkdir()
    (found.adapter / "adapter_model.safetensors").write_bytes(b"weights")
    return found


def test_a_dry_run_says_what_it_takes_and_starts_nothing(cli: Cli, run: store.RunFolder) -> None:
    said = cli("export", "try", "--dry-run", "--format", "q4_k_m,iq4_xs,adapter")
    assert said.code == exits.OK and not said.err, said
    assert "step 7, what the run ended with (held-out loss 0.5)" in said.out
    assert "small: perplexity +2.8 %, divergence 0.0313" in said.out
    assert "on the way" in said.out and "Merged, 16-bit, GGUF F16; removed at the end" in said.out
    assert "free" in said.out and not run.manifest.exists()


@pytest.mark.parametrize("words", [("--dry-run",), ()])
def test_what_would_fail_is_refused_before_it_begins(
    cli: Cli, run: store.RunFolder, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    packed = cli("export", "try", *words, "--format", "merged_4bit")
    assert packed.code == exits.REFUSED and "needs an NVIDIA GPU" in packed.err, packed
    recipe = recipe_file.load(run.recipe)
    recipe_file.save(recipe.model_copy(update={"lora": LoraSection(method="full")}), run.recipe)
    tiny.make(run.model)
    adapter = cli("export", "try", *words, "--format", "adapter")
    assert adapter.code == exits.REFUSED and "leaves no adapter" in adapter.err, adapter
    assert not run.manifest.exists()


def test_the_same_for_programs_with_the_recipes_formats(cli: Cli, run: store.RunFolder) -> None:
    (run.exports / "merged").mkdir()
    said = cli("export", "try", "--dry-run", "--json")
    told = json.loads(said.out)
    merged, small = told["formats"]
    assert (merged["format"], small["format"]) == ("merged", "gguf_q4_k_m")
    assert merged["there"] == "made by an older finetui" and not merged["kept"]
    assert merged["disk_bytes"] > small["disk_bytes"] > 0 and small["ram_bytes"] > 0
    assert told["disk_bytes"] == merged["disk_bytes"] + small["disk_bytes"] + told["on_the_way_bytes"]
    assert told["fits"] and told["weights"]["step"] == 7


def test_a_dry_run_tells_the_memory_of_a_gpu_where_there_is_one(
    run: store.RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_file.load(run.recipe)
    found = replace(export_plan.plan(run, recipe, ("merged", "gguf_q8_0")), gpu=None)
    exporting._show(found, False)
    assert "GPU" not in capsys.readouterr().out.replace("no GPU is needed", "")
    exporting._show(replace(found, gpu=Gpu(0, "card", 24 << 30, 4 << 30)), False)
    rows = capsys.readouterr().out.splitlines()
    [merged], [small], [total] = (
        [row for row in rows if row.split()[0] == word] for word in ("merged", "gguf_q8_0", "GPU")
    )
    assert "2.0 GiB of the GPU" in merged and "and no GPU" in small
    assert "2.0 GiB" in total and "20.0 GiB free" in total and "the CPU does" in total


def test_nothing_is_overwritten_where_nobody_can_be_asked(cli: Cli, run: store.RunFolder) -> None:
    (run.exports / "merged").mkdir()
    said = cli("export", "try", "--format", "merged")
    assert said.code == exits.REFUSED and "--replace" in said.err and not run.manifest.exists()


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("--checkpoint", "newest"), exits.USAGE, "result"),
        (("--checkpoint", "5"), exits.REFUSED, "steps 7"),
        (("other", "--detach"), exits.USAGE, "one after another"),
    ],
)
def test_what_cannot_be(cli: Cli, run: store.RunFolder, words: tuple[str, ...], code: int, hint: str) -> None:
    make_run(name="other")
    said = cli("export", "try", *words)
    assert said.code == code and hint in said.err, said
