"""Open models that are good to start from, chosen by hand. The one list of recommendations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CatalogModel:
    """A recommended model. `parameters` is a count, `context_length` in tokens; `good_at` fits on a line."""

    id: str
    title: str
    family: str
    parameters: int
    license: str
    context_length: int
    gated: bool
    base: bool
    good_at: str


CATALOG: tuple[CatalogModel, ...] = ()
"""Families in alphabetical order of no one: small to large over all, by parameters."""
