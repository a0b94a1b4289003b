"""llama.cpp's tools at work, each in a process of its own: a model or an adapter becomes a GGUF, a GGUF is quantized, its
importance matrix is made. `llama_cpp` finds the tools."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ..errors import FinetuiError
from . import child, packages
from .child import Check, go_on
from .llama_cpp import Converter, Quantizer

_FULL: Final = re.compile(
    r"No space left on device|File too large|Disk quota exceeded|requested and \d+ written|iostream error|"
    r"No usable temporary directory"
)
"""How Python, NumPy and C++'s streams say that the disk takes no more."""


def convert(
    tool: Converter,
    model: Path,
    target: Path,
    outtype: str,
    on_share: Callable[[float], None],
    check: Check = go_on,
    *,
    name: str,
    begins: bool,
) -> None:
    """Writes the model folder `model` as the GGUF `target`, with `outtype` f16 or q8_0; `on_share` gets 0.0–1.0.

    `name` is what programs call the model. `begins`: whoever runs it puts the beginning-of-text token before what is asked
    (`Chat.begins`). Raises FinetuiError (gguf-convert) where the converter refuses, OSError where the disk is full, and
    what `check` raises.
    """
    argv = [*_converter_child(tool, name, "true" if begins else "false"), str(model)]
    argv += ["--outfile", str(target), "--outtype", outtype]
    what = "The model could not be converted to GGUF."
    _follow(argv, _converting(tool), r"Writing:\s+(\d+)%", what, on_share, check, target)


def convert_adapter(
    tool: Converter, adapter: Path, base: Path, target: Path, check: Check = go_on, *, name: str
) -> None:
    """Writes the adapter in the folder `adapter` as the GGUF `target`, in 32 bit. Of the folder `base` only configuration and
    tokenizer are read. `name` and what is raised: as of `convert`."""
    argv = [*_converter_child(tool, name, ""), str(adapter), "--base", str(base), "--outfile", str(target)]
    what = "The adapter could not be converted to GGUF."
    _follow([*argv, "--outtype", "f32"], _converting(tool), r"(?!)", what, lambda _share: None, check, target)


def _converter_child(tool: Converter, name: str, begins: str) -> list[str]:
    child_script = Path(__file__).with_name("converting_child.py")
    return [sys.executable, "-P", str(child_script), str(tool.script), name, begins]


def _converting(tool: Converter) -> dict[str, str]:
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return child.environment({"PYTHONPATH": str(tool.imports), **offline})


def quantize(
    tool: Quantizer,
    source: Path,
    target: Path,
    quantization: str,
    on_share: Callable[[float], None],
    check: Check = go_on,
    matrix: Path | None = None,
) -> None:
    """Writes the F16 GGUF `source` as `target`, quantized (`Q4_K_M` …), with the importance matrix `matrix` where there is one.
    Raises as `convert` does."""
    argv = tool.command(source, target, quantization, max(1, os.cpu_count() or 1), matrix)
    what = "The GGUF could not be quantized."
    _follow(argv, child.environment(), r"\[\s*(\d+)/\s*(\d+)\]", what, on_share, check, target)


def weigh(
    tool: Quantizer,
    model: Path,
    rows: Path,
    target: Path,
    on_share: Callable[[float], None],
    check: Check = go_on,
) -> None:
    """Writes the importance matrix of the F16 GGUF `model` over the token ids in the JSON file `rows` as `target`. `tool` is of
    `matrix_maker`. Raises as `convert` does."""
    argv = tool.child("matrix", str(model), str(rows), str(target), str(max(1, os.cpu_count() or 1)))
    what = "The importance matrix could not be made."
    _follow(argv, child.environment(), r"^\[\s*(\d+)/\s*(\d+)\]", what, on_share, check, target)


def _follow(
    argv: list[str],
    env: Mapping[str, str],
    pattern: str,
    what: str,
    on_share: Callable[[float], None],
    check: Check,
    target: Path,
) -> None:
    def on_line(line: str) -> None:
        if match := re.search(pattern, line):
            total = int(match[2]) if match.lastindex == 2 else 100
            on_share(min(1.0, int(match[1]) / max(1, total)))

    try:
        child.run(argv, env=env, on_line=on_line, check=check)
    except child.ChildFailed as error:
        if _FULL.search(error.tail):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise FinetuiError(
            what,
            packages.last_error(error.tail),
            "worker.log has its last words. The adapter and the merged model do not need this step.",
            code="gguf-convert",
        ) from error
