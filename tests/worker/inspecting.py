"""Rows with something of everything, and an inspector that is waited for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetui.core.dataset_inspect import Inspector, Progress
from finetui.core.dataset_ledger import Ledger
from finetui.core.recipe import Recipe

from . import harness

KEY = "sk-" + "a1B2" * 8


def talk(*said: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]}


def written(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def until(inspector: Inspector, condition: Callable[[Progress], object]) -> Progress:
    end = time.monotonic() + harness.PATIENCE
    while True:
        now = inspector.poll()
        if condition(now):
            return now
        assert time.monotonic() < end, now
        time.sleep(0.02)


def complete(inspector: Inspector) -> Ledger:
    now = until(inspector, lambda p: p.error or (p.ledger and p.ledger.complete))
    assert now.error is None, str(now.error)
    assert now.ledger is not None
    return now.ledger


def ledger_of(recipe: Recipe) -> Ledger:
    inspector = Inspector.start(recipe)
    try:
        return complete(inspector)
    finally:
        inspector.close()


MIXED: list[Any] = [
    talk("one", "first answer"),
    talk("two", "mail me at jane.doe@corp.de"),
    talk("no answer"),
    talk("three", f"use {KEY} please"),
    talk("one", "first answer"),
    talk("long", "z" * 400),
    talk("four", ""),
    talk("q" * 300, "lost"),
    talk("five", "Fünf <|im_end|> oops"),
    talk("six", "needle in the hay"),
]
