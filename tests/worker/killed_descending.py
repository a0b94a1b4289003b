"""A worker that is given memory for few rows only, and may be killed where it writes down that it takes fewer at once:
`python -m tests.worker.killed_descending train|resume RUN FREE_CALLS call|return|never`.

After FREE_CALLS passes through a layer, one that sees more than two rows fails as torch's allocator does. The kill comes as
the recipe's rewrite is called, or as it returns.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

ROWS = 2


def main(job: str, path: str, free_calls: int, deadly: str) -> int:
    from finetui.core.worker import environment

    environment.import_unsloth()
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook

    from finetui.core import recipe_file
    from finetui.core.runs.store import RunFolder
    from finetui.core.worker.__main__ import work

    left = free_calls

    def scarce(module: torch.nn.Module, inputs: Any) -> None:
        nonlocal left
        if not type(module).__name__.endswith("MLP"):
            return
        left -= 1
        if left < 0 and inputs[0].shape[0] > ROWS:
            sys.setprofile(watch)
            torch.empty(1 << 50, dtype=torch.uint8)

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        if event == deadly and frame.f_code is recipe_file.save.__code__:
            os.kill(os.getpid(), signal.SIGKILL)

    register_module_forward_pre_hook(scarce)
    return work(job, RunFolder(Path(path)), (), 0.0)


if __name__ == "__main__":
    code = main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
    sys.stdout.flush()
    os._exit(code)
