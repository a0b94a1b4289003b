"""Searching the hub for models that can be tuned here. Blocking: call it from a thread."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Hit:
    """A model that the hub found. None is not told by the hub."""

    id: str
    downloads: int | None = None
    """In the last 30 days, as the hub counts."""
    likes: int | None = None
    parameters: int | None = None
    license: str = ""
    gated: bool = False
    updated: date | None = None
    pipeline: str = ""
    library: str = ""
    base: bool | None = None
    """A base model, which was never shown conversations; False for an instruct model."""


def search(query: str, limit: int = 30) -> tuple[Hit, ...]:
    """The hub's text-generation models with safetensors that match `query`, the most downloaded first.

    Raises FinetuiError: hub-offline, hub-busy (with the time that the hub asks to wait), hub-failed.
    """
    raise NotImplementedError
