"""How much of what a run learned is in its merged model: PEFT's merge, which rounds to the nearest 16-bit number, and ours.

    python -m tests.bench.merging RUN

RUN is a finished LoRA run over a base in 16 bit. Both merges are measured by `worker/tensors.py` against base and adapter.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetui.core import recipe_file
from finetui.core.runs import store
from finetui.core.worker import base_weights, merge, tensors


def _by_peft(base: Path, adapter: Path, target: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(target)
    AutoTokenizer.from_pretrained(base).save_pretrained(target)


def main(name: str) -> None:
    run = store.find(name)
    base = base_weights.folder(recipe_file.load(run.recipe))
    merges: dict[str, Callable[[Path, Path, Path], None]] = {"PEFT": _by_peft, "finetui": merge.merge}
    for kind, make in merges.items():
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            make(base, run.adapter, Path(folder))
            took = time.monotonic() - began
            found = tensors.merged(Path(folder), base, run.adapter)
            assert found.learned is not None
            print(
                f"{kind:<8} {found.learned:6.1%} ± {found.noise:.1%} of what was learned is in the weights; {took:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1])
