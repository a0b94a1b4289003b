"""A finished run of the tiny model, to talk with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from finetui.core import proof_file
from finetui.core.proof import Reference, ReferencePrompt
from finetui.core.runs import events

from ..worker import exporting
from ..worker.conftest import tiny_model, tuned  # noqa: F401
from . import recorded

__all__ = ["run", "tiny_model", "tuned"]


@pytest.fixture
def run(tuned: exporting.Tuned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:  # noqa: F811
    """A finished run of the tiny model, with two held-out prompts."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    monkeypatch.chdir(tmp_path)
    recording = recorded.new(tuned.recipe).started()
    recording.add(
        events.Sample(0, 0, "Item 1: which colour?", "", "blue 1"), events.Ended("train", "completed", 9.0)
    )
    shutil.copytree(tuned.run.adapter, recording.run.adapter)
    prompts = tuple(
        ReferencePrompt(
            (("system", "One word."), ("user", f"Item {n}: which colour?")), "", (), "", (), (), True
        )
        for n in (1, 2)
    )
    proof_file.save_reference(recording.run, Reference(prompts, "", "16bit", {}))
    return recording.run.path
