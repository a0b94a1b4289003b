"""The precision in which a model answers on a processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import system
from . import base_weights

SPARE_BYTES = 1024**3


def cpu_dtype(folder: Path) -> Any:
    """The torch dtype for the model in `folder`: bfloat16 where the processor computes in it; elsewhere float32, which holds the
    same numbers and is up to nine times as fast, unless that does not fit into the memory that is free."""
    import torch

    packed = "quantization_config" in json.loads((folder / "config.json").read_bytes())
    if packed or system.computes_bf16():
        return torch.bfloat16
    needed = 4 * base_weights.count(folder) + SPARE_BYTES
    return torch.float32 if needed <= system.snapshot().memory_available_bytes else torch.bfloat16
