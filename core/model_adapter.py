"""An adapter on disk: what it was trained on, and with which shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .recipe import Recipe


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter_config.json says."""

    folder: Path
    base: str
    """The model that it belongs on: a hub id, or a path."""
    rank: int
    alpha: int
    target_modules: tuple[str, ...]
    rslora: bool = False
    parameters: int | None = None
    bytes: int = 0


def read_adapter(folder: Path) -> AdapterFacts:
    """The facts of the adapter in `folder`. Raises FinetuiError (adapter-missing, adapter-broken)."""
    raise NotImplementedError


def with_adapter(recipe: Recipe, facts: AdapterFacts, source: str | None = None) -> Recipe:
    """`recipe` going on from the adapter: its folder, its base (or `source`) as the model, and its shape as the LoRA's."""
    raise NotImplementedError


def check_adapter(recipe: Recipe) -> AdapterFacts | None:
    """The adapter that `recipe` goes on from, if any. Raises FinetuiError: adapter-missing, adapter-broken, adapter-base
    (it belongs on another model), adapter-shape (another rank, alpha or layers)."""
    raise NotImplementedError
