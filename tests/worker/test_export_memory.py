"""What the budget foresees covers what an export and its proof hold, worker and children together."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetui.core import export_plan, recipe_file
from finetui.core.recipe import ExportFormat, ExportSection
from finetui.core.runs.events import Proved
from finetui.core.runs.store import RunFolder
from tests.bench.resident import Watched, watching

from . import harness, stretched

FORMATS: tuple[ExportFormat, ...] = ("merged", "gguf_q4_k_m")
WIDER = 40
MIB = 1024**2


@pytest.fixture(scope="module")
def wide(tiny_model: Path, tiny_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of a model of a hundred million weights in two layers."""
    recipe = harness.recipe(
        tiny_model, tiny_rows, max_steps=60, learning_rate=2e-2, evaluation_share=0.2
    )  # it is sure of its words, and soon proved
    small = harness.make_run(recipe)
    assert harness.finish(harness.start("train", small), small) == 0
    model = stretched.make(tiny_model, tmp_path_factory.mktemp("wide"), WIDER)
    return stretched.widen_run(small, model, WIDER)


def watched(run: RunFolder, job: str) -> Watched:
    worker = harness.start(job, run, *FORMATS)
    with watching(worker.pid) as seen:
        assert harness.finish(worker, run) == 0, run.log.read_text(errors="replace")[-3000:]
    return seen


def test_the_budget_covers_what_is_held(wide: RunFolder) -> None:
    recipe = recipe_file.load(wide.recipe)
    foreseen = export_plan.plan(wide, recipe, FORMATS).budget
    alone = recipe.model_copy(update={"export": ExportSection(formats=FORMATS, prove=False)})
    recipe_file.save(alone, wide.recipe)
    made, proved = watched(wide, "export"), watched(wide, "verify")
    assert {p.format: p.verdict for p in harness.events(wide, Proved)} == dict.fromkeys(FORMATS, "same")
    assert {"worker", "converter", "quantizer"} <= set(made.roles)
    assert {"worker", "Transformers", "llama.cpp"} <= set(proved.roles)
    for seen, bytes_foreseen in ((made, foreseen.ram_bytes), (proved, foreseen.proof_ram_bytes)):
        assert bytes_foreseen is not None
        words = {role: f"{held.peak // MIB} MiB, {held.own // MIB} own" for role, held in seen.roles.items()}
        assert seen.together <= 1.05 * bytes_foreseen, words
        assert bytes_foreseen <= 2.5 * seen.together, words
