"""What can be chosen as a model, whichever list it stands in, as one row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Literal

from ....core import hub, model
from ....core.errors import FinetuiError
from ....core.model_adapter import AdapterFacts
from ....core.model_catalog import CATALOG
from ....core.model_facts import ModelFacts
from ....core.model_local import LocalModel
from ....core.model_runs import RunModel
from ....core.model_search import Hit
from ....core.recipe import DEMO
from ....core.text import bytes_words
from ..text import literal

Tab = Literal["recommended", "hub", "local", "runs"]
TAB_ORDER: tuple[Tab, ...] = ("recommended", "hub", "local", "runs")
TABS: dict[str, str] = {
    "recommended": "Recommended",
    "hub": "Hub search",
    "local": "On this machine",
    "runs": "My runs",
}


def row_key(source: str, adapter: str | None) -> str:
    """The key of a row with `source` and `adapter`."""
    return f"{source}\n{adapter or ''}"


@dataclass(frozen=True)
class Row:
    """One model. None and empty are not known. `source`, `revision` and `adapter` go into the recipe as they are."""

    source: str
    title: str
    revision: str | None = None
    adapter: str | None = None
    parameters: int | None = None
    license: str = ""
    context_length: int | None = None
    gated: bool = False
    base: bool | None = None
    words: str = ""
    """What it is good at, or where it comes from, in a sentence."""
    problem: str = ""
    """Why it cannot be tuned, where that is known already."""
    bytes: int | None = None
    downloads: int | None = None
    likes: int | None = None
    when: date | None = None
    """When it last changed, or its run ended."""
    loss: float | None = None
    on: str = ""
    """For a run: the model that it started from."""
    family: str = ""

    @property
    def key(self) -> str:
        """What tells it from every other row."""
        return row_key(self.source, self.adapter)

    def matches(self, words: Iterable[str]) -> bool:
        """Whether every one of `words` (small letters) is part of it."""
        text = f"{self.title} {self.source} {self.family} {self.license} {self.words} {self.on}".lower()
        return all(word in text for word in words)


@dataclass(frozen=True)
class Look:
    """What a look at a row's model found, so far."""

    facts: ModelFacts | None = None
    error: FinetuiError | None = None
    busy: bool = False
    adapter: AdapterFacts | None = None


@dataclass
class Browsing:
    """What the model screen keeps between two visits."""

    tab: Tab = "recommended"
    by_family: bool = False
    """The order of the recommended models; else by size alone."""
    filters: dict[Tab, str] = field(default_factory=dict)
    looks: dict[str, Look] = field(default_factory=dict)
    """By a row's key; only what was found, no failures."""
    hits: dict[str, tuple[Hit, ...]] = field(default_factory=dict)
    """By what was searched for."""
    local: tuple[LocalModel, ...] | None = None
    runs: tuple[RunModel, ...] | None = None
    named: tuple[str, ...] = ()
    """Folders that were typed or browsed to."""

    @property
    def cached(self) -> frozenset[str]:
        """Hub ids that are whole on this machine."""
        return frozenset(m.source for m in self.local or () if m.kind == "cache" and m.whole)


def demo_row() -> Row:
    facts = model.DEMO_FACTS
    return Row(
        DEMO,
        "Demo: SmolLM2 135M",
        parameters=facts.parameters,
        license=facts.license,
        context_length=facts.context_length,
        base=False,
        family="SmolLM2",
        words="Comes with finetui: nothing to download, trains on a laptop in minutes.",
    )


@cache
def catalog_rows(by_family: bool = False) -> tuple[Row, ...]:
    """The recommended models, small to large, over all or in each family; the demo first."""
    rows = [
        Row(
            one.id,
            one.title,
            parameters=one.parameters,
            license=one.license,
            context_length=one.context_length,
            gated=one.gated,
            base=one.base,
            family=one.family,
            words=one.good_at,
        )
        for one in sorted(CATALOG, key=lambda m: (m.family if by_family else "", m.parameters))
        if one.id.rpartition("/")[2] != model.DEMO_FACTS.title  # that is the demo
    ]
    return (demo_row(), *rows)


def hit_row(hit: Hit) -> Row:
    return Row(
        hit.id,
        hit.id,
        parameters=hit.parameters,
        license=hit.license,
        gated=hit.gated,
        base=hit.base,
        downloads=hit.downloads,
        likes=hit.likes,
        when=hit.updated,
    )


def local_row(found: LocalModel) -> Row:
    where = "In the hub's cache" if found.kind == "cache" else f"The folder {literal(found.source, 200)}"
    return Row(
        found.source,
        found.title,
        parameters=found.parameters,
        bytes=found.bytes,
        words=f"{where}, {bytes_words(found.bytes)}.",
        problem=found.problem,
    )


def run_rows(run: RunModel) -> list[Row]:
    """A run's adapter, and its merged model where one was exported."""
    when = run.ended.date() if run.ended is not None else None
    on = "demo" if run.base == DEMO else literal(run.base, 200).rpartition("/")[2]
    rows = []
    if run.adapter is not None:
        rows.append(
            Row(
                run.base,
                f"{run.name}: adapter",
                adapter=str(run.adapter),
                parameters=run.parameters,
                when=when,
                loss=run.best_loss,
                on=on,
                words="Goes on training this adapter, with its own rank, alpha and layers.",
            )
        )
    if run.merged is not None:
        rows.append(
            Row(
                str(run.merged),
                f"{run.name}: merged",
                parameters=run.parameters,
                when=when,
                loss=run.best_loss,
                on=on,
                words="Starts a new adapter on the merged model: what the run taught is part of it.",
            )
        )
    return rows


def is_typed(text: str) -> bool:
    """Whether `text` is written as a path or as owner/name, rather than as words to look for."""
    return text.startswith(("/", ".", "~")) or "/" in text.strip("/") or text.lower().endswith(".gguf")


def is_hub(source: str) -> bool:
    """Whether `source` is written as a hub id; no look at the disk."""
    return source != DEMO and not source.startswith(("/", ".", "~")) and hub.is_id(source)


def typed_row(text: str) -> Row:
    path = text.startswith(("/", ".", "~")) or text.count("/") != 1
    return Row(
        text,
        literal(text, 200),
        words="A folder on this machine." if path else "A model on the hub, by its id.",
    )
