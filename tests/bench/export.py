"""What an export through finetui costs against the same steps bare, what further quantizations add, and what a proof takes.

The demo's model is trained for two steps. Both sides are whole processes, from the command to the file, on the same adapter:
`finetui export`, and a script that merges with Unsloth and calls llama.cpp's converter and quantizer.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from finetui.core.demo import heldout_path, train_path
from finetui.core.demo.recipe import demo_recipe
from finetui.core.export import FORMATS
from finetui.core.recipe import ExportFormat
from finetui.core.recipe_file import save
from finetui.core.runs import store
from finetui.core.runs.event_log import read_all
from finetui.core.runs.events import Exported, Proved
from finetui.core.runs.launch import worker_environment
from finetui.core.runs.store import RunFolder
from finetui.core.worker import llama_cpp

from .measure import FINETUI, Result, paired_ratio, wall_seconds

ROUNDS = int(os.environ.get("FINETUI_BENCH_ROUNDS", "3"))
ONE: tuple[ExportFormat, ...] = ("gguf_q4_k_m",)
THREE: tuple[ExportFormat, ...] = ("gguf_q4_k_m", "gguf_q5_k_m", "gguf_q6_k")


def trained(folder: Path, *, prove: bool) -> RunFolder:
    """A run of the demo of two steps. Its rows are named by their files: the demo's own are scored at the end."""
    recipe = demo_recipe()
    paths = {"source": str(train_path()), "evaluation_source": str(heldout_path())}
    training = recipe.training.model_copy(
        update={"max_steps": 2, "evaluate_every_steps": 0, "save_every_steps": 0, "sample_count": 0}
    )
    export = recipe.export.model_copy(update={"formats": ("adapter",), "prove": prove})
    changed = recipe.model_copy(
        update={
            "name": f"prove-{prove}",
            "dataset": recipe.dataset.model_copy(update=paths),
            "training": training,
            "export": export,
        }
    )
    save(changed, folder / "recipe.yaml")
    subprocess.run(
        [FINETUI, "train", str(folder / "recipe.yaml"), "--json"], check=True, stdout=subprocess.DEVNULL
    )
    return store.find("last")


def through_finetui(run: RunFolder, formats: tuple[ExportFormat, ...]) -> float:
    """Seconds of a whole `finetui export`, from nothing."""
    shutil.rmtree(run.exports, ignore_errors=True)
    wanted = [part for format in formats for part in ("--format", format)]
    return wall_seconds([FINETUI, "export", run.id, *wanted])


def bare(run: RunFolder, formats: tuple[ExportFormat, ...]) -> float:
    """Seconds of the same with Unsloth and llama.cpp alone."""
    converter, quantizer = llama_cpp.find_converter(), llama_cpp.find_quantizer()
    assert converter is not None and quantizer is not None, "an export before this one has fetched them"
    f16 = "WORK/f16.gguf"
    convert = [sys.executable, str(converter.script), "MERGED", "--outfile", f16, "--outtype", "f16"]
    commands = [(str(converter.imports), convert)]
    for format in formats:
        target = Path(f"WORK/{format}.gguf")
        name = FORMATS[format].quantization
        commands.append(("", quantizer.command(Path(f16), target, name, max(1, os.cpu_count() or 1))))
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "commands.json").write_text(json.dumps(commands))
        script = str(Path(__file__).with_name("bare_export.py"))
        environment = {**os.environ, **worker_environment()}
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            return wall_seconds(
                [sys.executable, "-P", script, str(run.adapter), work, f"{work}/commands.json"]
            )
        finally:
            os.environ.clear()
            os.environ.update(before)


def proof_share(run: RunFolder) -> tuple[float, float]:
    """Seconds of the exports of `run` and of their proofs."""
    through_finetui(run, ("merged", *THREE))
    told = [record.event for record in read_all(run.events)]
    exports = [event for event in told if isinstance(event, Exported) and event.format != "adapter"]
    proofs = [event for event in told if isinstance(event, Proved) and event.format != "adapter"]
    return sum(event.seconds for event in exports), sum(event.seconds for event in proofs)


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = os.environ.get("FINETUI_BENCH_HOME", home)
        plain = trained(Path(home), prove=False)
        through_finetui(plain, ONE)  # fetches the tools
        ratio, ours, theirs = paired_ratio(
            lambda: through_finetui(plain, ONE), lambda: bare(plain, ONE), ROUNDS
        )
        several = [through_finetui(plain, THREE) for _ in range(ROUNDS)]
        single = [through_finetui(plain, ONE) for _ in range(ROUNDS)]
        more = statistics.median(several) / statistics.median(single)
        exports, proofs = proof_share(trained(Path(home), prove=True))
        return [
            Result(
                "export: one quantization", ratio, 1.05, "×",
                f"{ours:.1f} s against {theirs:.1f} s of Unsloth's merge, llama.cpp's converter and quantizer",
            ),
            Result(
                "export: three quantizations", more, 1.6, "×",
                f"{statistics.median(several):.1f} s against {statistics.median(single):.1f} s of one",
            ),
            Result(
                "export: proofs", proofs / exports, 0.25, "× the exports",
                f"{proofs:.1f} s beside {exports:.1f} s; the goal is for models of 1B and up, and this is the demo's",
            ),
        ]  # fmt: skip
