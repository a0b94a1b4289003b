"""What must be set before Unsloth is imported. The launcher sets the same; a worker started by hand sets it here."""

from __future__ import annotations

import os

from .. import paths


def prepare() -> None:
    """Fills in what the environment lacks; what is set already stays."""
    compiled = paths.private_dir(paths.cache() / "unsloth_compiled")
    for name, value in {
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_AUTO_INSTALL": "0",
        "UNSLOTH_COMPILE_LOCATION": str(compiled),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "WANDB_DISABLED": "true",
        # Threads that wait by spinning slow a shared machine down tenfold and more; the wizard is already one sharer.
        "GOMP_SPINCOUNT": "20000",
    }.items():
        os.environ.setdefault(name, value)
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        os.environ.setdefault("UNSLOTH_OFFLINE", "1")


def import_unsloth() -> None:
    """The one import of Unsloth, before transformers, trl and peft. Takes 8–40 s."""
    prepare()
    import unsloth  # pyright: ignore[reportUnusedImport]  # noqa: F401

    _keep_to_cores()


def _keep_to_cores() -> None:
    """No more threads than cores that this process may use: a container often sees more than it is given."""
    import torch

    from .. import system

    cores = system.snapshot(paths.cache()).cores
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)
