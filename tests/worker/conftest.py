"""The tiny model and its rows; tests elsewhere import these fixtures from here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import tiny

if TYPE_CHECKING:
    from . import exporting


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a chat template, as a model folder; made once. Do not write into it."""
    return tiny.make(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def tiny_base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template: a base model."""
    return tiny.make(tmp_path_factory.mktemp("tiny-base-model"), chat_template=None)


@pytest.fixture(scope="session")
def tiny_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short conversations as a JSONL file."""
    return tiny.write_rows(tmp_path_factory.mktemp("tiny-rows") / "rows.jsonl", 40)


@pytest.fixture(scope="session")
def unsloth() -> None:
    """Unsloth imported into this process, first, as the worker does it."""
    from finetui.core.worker import environment

    before = dict(os.environ)
    environment.import_unsloth()
    for name in set(os.environ) - set(
        before
    ):  # what it sets is for its process, not for those of later tests
        if name.endswith("_OFFLINE"):
            del os.environ[name]


@pytest.fixture(scope="session")
def tuned(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> exporting.Tuned:
    """A finished run of the tiny model, whose adapter changes what it says. Exports may be added to it."""
    from . import exporting  # brings transformers and peft, which must not be there before Unsloth

    return exporting.make_run(tmp_path_factory.mktemp("tuned-run"), tiny_model)
