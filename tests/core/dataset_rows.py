"""Rows and files of them, and what the dataset step answers about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetui.core import dataset
from finetui.core.dataset import DatasetFacts
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection

PAIR = {"prompt": "Where is my parcel?", "completion": "On its way."}
MESSAGES = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def asked(number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"Hi {number}"}, MESSAGES["messages"][1]]}


def written(folder: Path, name: str, content: str | bytes) -> str:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def look(source: str, **section: Any) -> DatasetFacts:
    return dataset.inspect(DatasetSection(source=source, **section))


def refused(source: str, **section: Any) -> FinetuiError:
    with pytest.raises(FinetuiError) as caught:
        look(source, **section)
    assert caught.value.what and caught.value.fix, "a card has a what and a fix"
    return caught.value


def texts(facts: DatasetFacts, row: int = 0) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in facts.first[row]]
