"""The memory that exports and their proofs take, against what the budget foresaw, for the demo's model and one of half a billion weights.

The demo's model is trained for two steps. The large model is the same made wider (`tests/worker/stretched.py`): it says what
the small one says, so that nothing is trained again and proofs mean something. Each format is made, and then proved, by a
worker of its own. The figures hold the worker and all its children, pages of mapped files too.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from finetui.core import export_plan, proof_file, recipe_file
from finetui.core.recipe import ExportFormat
from finetui.core.runs import store
from finetui.core.runs.event_log import read_all
from finetui.core.runs.events import Exported, Proved
from finetui.core.runs.store import RunFolder
from finetui.core.worker.demo_model import prepare
from tests.worker import harness, stretched

from .export import trained
from .measure import Result
from .resident import Watched, watching

LARGE: tuple[ExportFormat, ...] = (
    "adapter",
    "adapter_gguf",
    "merged",
    "gguf_q8_0",
    "gguf_q4_k_m",
)
FORMATS: tuple[ExportFormat, ...] = (*LARGE, "gguf_iq2_xs")
WIDER = int(os.environ.get("FINETUI_BENCH_WIDER", "2"))
"""Twice as wide are 0.48 billion weights, three times 1.04, four times 1.81."""
_MIB = 1024**2


@dataclass(frozen=True)
class _Measured:
    """One format of one run: bytes as foreseen, what was seen, and the seconds that it took."""

    format: ExportFormat
    made_bytes: int
    made: Watched
    made_seconds: float
    proved_bytes: int
    proved: Watched
    proved_seconds: float
    verdict: str


def _watched(run: RunFolder, job: str, *words: str) -> Watched:
    """A worker at `job` on `run`, watched to its end."""
    worker = harness.start(job, run, *words)
    with watching(worker.pid) as watched:
        code = worker.wait()
    if code:
        sys.exit(f"{job} failed: {run.log.read_text(errors='replace')[-2000:]}")
    return watched


def _measure(run: RunFolder, formats: tuple[ExportFormat, ...]) -> list[_Measured]:
    recipe = recipe_file.load(run.recipe)
    alone = recipe.export.model_copy(update={"prove": False})
    recipe_file.save(
        recipe.model_copy(update={"export": alone}), run.recipe
    )  # a proof is a worker's of its own
    found: list[_Measured] = []
    for format in formats:
        [need] = export_plan.plan(run, recipe, (format,)).budget.needs
        made = _watched(run, "export", format)
        proved = _watched(run, "verify", format)
        told = [record.event for record in read_all(run.events)]
        exported = [e for e in told if isinstance(e, Exported)][-1]
        verdict = [e for e in told if isinstance(e, Proved)][-1]
        found.append(
            _Measured(
                format,
                need.ram_bytes or 0,
                made,
                exported.seconds,
                need.proof_ram_bytes or 0,
                proved,
                verdict.seconds,
                verdict.verdict,
            )
        )
        print(_lines(found[-1]), file=sys.stderr, flush=True)
    return found


def _lines(one: _Measured) -> str:
    def side(name: str, foreseen: int, seen: Watched, seconds: float) -> str:
        parts = ", ".join(
            f"{role} {held.peak // _MIB} ({held.own // _MIB} own + {held.mapped // _MIB} mapped)"
            for role, held in seen.roles.items()
            if role != "others"
        )
        return (
            f"  {one.format:<13}{name} {seen.together // _MIB:6d} MiB ({seen.own // _MIB:5d} own, {seen.missed // _MIB:4d} missed) of "
            f"{foreseen // _MIB:6d} foreseen, {seen.together / max(1, foreseen):5.2f}, {seconds:4.0f} s: {parts}"
        )

    return "\n".join(
        (
            side("made  ", one.made_bytes, one.made, one.made_seconds),
            side("proved", one.proved_bytes, one.proved, one.proved_seconds) + f" ({one.verdict})",
        )
    )


def _results(name: str, found: list[_Measured]) -> list[Result]:
    """The measured over the foreseen: at most 1.05, or the budget is too low; at least a half, or it frightens for nothing."""
    ratios = {
        f"{one.format} {side}": seen.together / max(1, foreseen)
        for one in found
        for side, foreseen, seen in (
            ("made", one.made_bytes, one.made),
            ("proved", one.proved_bytes, one.proved),
        )
    }
    high, low = max(ratios, key=lambda key: ratios[key]), min(ratios, key=lambda key: ratios[key])
    return [
        Result(f"export memory: {name}", ratios[high], 1.05, "× the budget", f"the highest, {high}"),
        Result(
            f"export memory: {name}, foreseen", 1 / ratios[low], 2.0, "× the truth", f"the most too high, {low}"
        ),
    ]  # fmt: skip


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = os.environ.get("FINETUI_BENCH_HOME", home)
        known = os.environ.get("FINETUI_BENCH_RUN")
        trained_run = store.find(known) if known else trained(Path(home), prove=True)
        results: list[Result] = []
        for times in (1, WIDER):
            name = f"SmolLM2-135M, {times} times as wide"
            print(name, file=sys.stderr, flush=True)
            model = prepare() if times == 1 else stretched.make(prepare(), Path(home) / "wide", times)
            run = _asked_once(stretched.widen_run(trained_run, model, times))
            results += _results(name, _measure(run, FORMATS if times == 1 else LARGE))
        return results


def _asked_once(run: RunFolder) -> RunFolder:
    """The run with one prompt to prove its exports by: what a consumer holds does not grow with their number."""
    reference = proof_file.load_reference(run)
    assert reference is not None, "the run was asked nothing"
    proof_file.save_reference(run, dataclasses.replace(reference, prompts=reference.prompts[:1]))
    return run
