"""What sound and broken quantizations of a trained run show, to set the limits of `core/proof.py` by. Run by hand:

    python -m tests.bench.proof_limits RUN [QUANTIZATION …]

RUN is a finished run of the demo. Its model is padded (`tests/worker/padded.py`), so that every row is of the type that was asked
for, and quantized with its importance matrix: as trained; not merged; with the adapter's change twice; with one matrix zeroed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from finetui.core import export_record, proof_file, recipe_file
from finetui.core.proof import Proof
from finetui.core.quantizations import QUANTIZATIONS
from finetui.core.runs import store
from finetui.core.worker import converting, importance, llama_cpp, merge, proof
from finetui.core.worker.child import go_on
from finetui.core.worker.demo_model import prepare
from tests.worker import padded

TOKENS = int(os.environ.get("FINETUI_BENCH_TOKENS", "4096"))
"""Of the importance matrix."""
NAMES = ("Q3_K_M", "Q2_K", *(q.name for q in QUANTIZATIONS.values() if q.needs_matrix))


def _twice(base: Path, merged: Path, target: Path) -> Path:
    shutil.copytree(merged, target)
    kept, tensors = load_file(base / "model.safetensors"), load_file(merged / "model.safetensors")
    for name, tensor in tensors.items():
        before = kept[name].float()
        tensors[name] = (before + 2 * (tensor.float() - before)).to(tensor.dtype)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def _zero(file: Path) -> None:
    reader = GGUFReader(str(file), "r+")
    tensor = next(t for t in reader.tensors if t.name == "blk.12.ffn_down.weight")
    tensor.data[:] = 0
    reader.data.flush()


def _found(folder: Path, run: store.RunFolder, names: tuple[str, ...]) -> Iterator[tuple[str, str, Proof]]:
    """Quantization, what was done to it, and its proof."""
    base = padded.make(prepare(), folder / "base")
    trained = padded.pad_run(run, prepare(), base)
    recipe, reference = recipe_file.load(trained.recipe), proof_file.load_reference(trained)
    assert reference is not None
    merge.merge(base, trained.adapter, folder / "merged")
    models = {
        "sound": folder / "merged",
        "unmerged": base,
        "twice": _twice(base, folder / "merged", folder / "twice"),
    }
    tool, quantizer = llama_cpp.converter(print), llama_cpp.quantizer(print)
    for name, model in models.items():
        converting.convert(
            tool, model, folder / f"{name}.gguf", "f16", lambda _share: None, name=name, begins=False
        )
    key = export_record.learned_print(trained.adapter)
    with patch.object(importance, "TOKENS", TOKENS):
        matrix = importance.make(
            recipe, trained, key, trained.adapter, folder / "sound.gguf", lambda _said, _share: None, go_on
        )
    for kind in (*models, "zeroed"):
        model = folder / f"{'sound' if kind == 'zeroed' else kind}.gguf"
        for name in names:
            file = folder / f"{name}.gguf"
            converting.quantize(quantizer, model, file, name, lambda _share: None, matrix=matrix)
            if kind == "zeroed":
                _zero(file)
            yield name, kind, proof.prove(f"gguf_{name.lower()}", file, base, trained.adapter, reference)


def main(arguments: list[str]) -> None:
    run, names = store.find(arguments[0]), tuple(arguments[1:]) or NAMES
    print(f"{'':<9}{'':<9} agreement    gap  error  verdict")
    with tempfile.TemporaryDirectory() as folder:
        for name, kind, found in _found(Path(folder), run, names):
            weights = " ".join(c.sentence for c in found.checks if c.name in ("weights", "adapter merged"))
            failed = [c.name for c in found.checks if not c.passed]
            agreement = -1.0 if found.agreement is None else found.agreement
            print(
                f"{name:<9}{kind:<9} {agreement:9.3f} {found.gap or 0.0:6.3f}  {found.verdict:<8}{failed} {weights}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
