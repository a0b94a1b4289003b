"""A finished run whose exports stand ready to leave: real files of the kinds that exports are, without their meaning."""

from __future__ import annotations

import json
import os
from pathlib import Path

from finetui.core import proof_file
from finetui.core.proof import Proof
from finetui.core.runs.store import RunFolder

from .tui import recorded

SECRET_ROW = "My kettle leaks since Tuesday"
"""Stands in the proof's table, as held-out rows do."""
MODELFILE = (
    "FROM ./demo-Q8_0.gguf\n"
    'TEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"""\n'
    'SYSTEM "Answer in JSON."\n'
    'PARAMETER stop "<|im_end|>"\n'
)


def finished_run(
    formats: tuple[str, ...] = ("adapter", "merged", "gguf_q8_0"), size: int = 100_000
) -> RunFolder:
    """A run with these exports, each of about `size` random bytes and a proof beside it."""
    run = recorded.new().started().ready().train(1, 74).finished().run
    for format in formats:
        folder = run.exports / format
        folder.mkdir(mode=0o700)
        if format.startswith("gguf"):
            quantization = format.removeprefix("gguf_").upper()
            (folder / f"demo-{quantization}.gguf").write_bytes(b"GGUF" + os.urandom(size))
            (folder / "Modelfile").write_text(MODELFILE.replace("Q8_0", quantization))
        else:
            name = "adapter_model" if format == "adapter" else "model"
            (folder / f"{name}.safetensors").write_bytes(os.urandom(size))
            named = {"base_model_name_or_path": "/home/somebody/models/base", "r": 16}
            (folder / ("adapter_config.json" if format == "adapter" else "config.json")).write_text(
                json.dumps(named if format == "adapter" else {"model_type": "llama"})
            )
            (folder / "tokenizer.json").write_text("{}")
            (folder / "README.md").write_text("PEFT's own")
            (folder / "system_prompt.txt").write_text("Answer in JSON.")
            (folder / "ask.py").write_text("print('Hello!')\n")
        table = ((SECRET_ROW, "yes", "yes"),)
        made = Proof(format, "same", "It answers as the trained model did.", "PEFT", (), table, 1.0, 0.0, 1.0)
        proof_file.save(folder, made)
    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under `folder` by its relative path."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }
