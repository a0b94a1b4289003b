"""`finetui models`: models to start from, and whether they fit here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...core.errors import FinetuiError
from . import exits, output
from .recipes import JsonOption, usage

if TYPE_CHECKING:
    from ...core.model_fit import Fit
    from ...core.system import Machine


@dataclass(frozen=True)
class _Row:
    """A line of the list. `told` is what `--json` gives; `size` is what the fit is judged by."""

    source: str
    title: str
    size: int | None
    words: tuple[str, ...]
    told: dict[str, Any]
    fits: dict[str, Fit | None] = field(default_factory=dict)
    problem: str = ""


def models(
    query: Annotated[
        str | None,
        typer.Argument(
            help="Words to search the hub for; with --local or --runs, what to look for there. "
            "Without any: the recommended models."
        ),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Models on this machine: the hub's cache and folders.")
    ] = False,
    runs: Annotated[bool, typer.Option("--runs", help="Finished runs to go on from.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List models to start from, and whether each fits in the memory that is free now, in 4-bit and in 16-bit.

    The exit code is 4 where nothing was found, and 6 where the hub cannot be searched: then the recommended models and
    those on this machine are searched alone.
    """
    from ...core import system

    if local and runs:
        raise usage(
            "--local and --runs are two lists.", "Only one is shown at a time.", "Leave one of them out."
        )
    machine = system.snapshot()
    unsearched: FinetuiError | None = None
    if local:
        rows = _local(query)
    elif runs:
        rows = _runs(query)
    elif query and query.strip():
        try:
            rows = _hub(query)
        except FinetuiError as error:
            if as_json:
                raise
            unsearched, rows = error, _known(query)
    else:
        rows = _recommended()
    rows = [_judged(row, machine) for row in rows]
    if as_json:
        output.data(
            {
                "free_bytes": machine.free_bytes,
                "total_bytes": machine.total_bytes,
                "gpu": machine.gpus[0].name if machine.gpus else None,
                "models": [
                    {**row.told, "fit": {k: asdict(f) if f else None for k, f in row.fits.items()}}
                    for row in rows
                ],
            }
        )
    elif rows:
        _print(rows)
    elif unsearched is None:
        where = "on this machine" if local else "among the runs" if runs else "on the hub"
        output.line(f"Nothing {where}" + (f" matches {query}." if query else "."))
    if unsearched is not None:
        raise unsearched
    raise typer.Exit(exits.OK if rows else exits.NOT_FOUND)


def _recommended() -> list[_Row]:
    from ...core.model import DEMO_FACTS
    from ...core.model_catalog import CATALOG

    demo = DEMO_FACTS
    first = {
        "id": demo.source,
        "title": demo.title,
        "parameters": demo.parameters,
        "license": demo.license,
        "context_length": demo.context_length,
        "gated": False,
        "base": False,
    }
    rows = [
        _Row(
            demo.source,
            demo.title,
            demo.parameters,
            (demo.license, _context(demo.context_length), "comes with finetui, nothing to download"),
            first,
        )
    ]
    for one in CATALOG:
        words = (one.license, _context(one.context_length), "base" if one.base else "", one.good_at)
        rows.append(_Row(one.id, one.title, one.parameters, words, asdict(one)))
    return rows


def _known(query: str) -> list[_Row]:
    """What matches without asking the hub."""
    local = _local(query)
    here = {row.source for row in local}
    return [
        *local,
        *(r for r in _recommended() if r.source not in here and _matches(query, r.source, r.title, *r.words)),
    ]


def _hub(query: str) -> list[_Row]:
    from ...core.model_search import search
    from ...core.text import count_words

    rows: list[_Row] = []
    for hit in search(query):
        told = asdict(hit) | {"updated": hit.updated.isoformat() if hit.updated else None}
        words = (
            hit.license,
            f"{count_words(hit.downloads)} downloads" if hit.downloads is not None else "",
            "gated" if hit.gated else "",
            "base" if hit.base else "",
            f"changed {hit.updated.isoformat()}" if hit.updated else "",
        )
        rows.append(_Row(hit.id, hit.id, hit.parameters, words, told))
    return rows


def _local(query: str | None) -> list[_Row]:
    from ...core.model_local import local_models
    from ...core.text import bytes_words

    rows: list[_Row] = []
    for one in local_models():
        words = ("hub cache" if one.kind == "cache" else "folder", f"{bytes_words(one.bytes)} on the disk")
        if _matches(query, one.source, one.title):
            rows.append(_Row(one.source, one.title, one.parameters, words, asdict(one), problem=one.problem))
    return rows


def _runs(query: str | None) -> list[_Row]:
    from ...core.model_runs import run_models
    from ..plain import number

    rows: list[_Row] = []
    for one in run_models():
        if not _matches(query, one.run_id, one.name, one.base):
            continue
        told = asdict(one) | {
            "ended": one.ended.isoformat() if one.ended else None,
            "adapter": str(one.adapter) if one.adapter else None,
            "merged": str(one.merged) if one.merged else None,
        }
        left = [name for name, path in (("adapter", one.adapter), ("merged", one.merged)) if path]
        words = (
            one.state,
            f"on {one.base}",
            " and ".join(left),
            f"loss {number(one.best_loss)}" if one.best_loss is not None else "",
        )
        rows.append(_Row(one.run_id, one.name, one.parameters, words, told))
    return rows


def _matches(query: str | None, *texts: str) -> bool:
    wanted = (query or "").lower().split()
    return all(any(word in text.lower() for text in texts) for word in wanted)


def _context(tokens: int | None) -> str:
    return f"{tokens:,} context" if tokens else ""


def _judged(row: _Row, machine: Machine) -> _Row:
    from dataclasses import replace

    from ...core.model_fit import fit

    if row.size is None or row.problem:
        return row
    return replace(
        row, fits={"4bit": fit(row.size, "4bit", machine), "16bit": fit(row.size, "16bit", machine)}
    )


def _print(rows: list[_Row]) -> None:
    from ...core.text import count_words, one_line

    for row in rows:
        size = count_words(row.size) if row.size else ""
        head = "  ".join(part for part in (one_line(row.source, 120), size) if part)
        output.line(head)
        details = [one_line(word, 160) for word in row.words if word]
        if details:
            output.line("    " + " · ".join(details))
        if row.problem:
            output.line("    cannot be tuned: " + one_line(row.problem, 300))
        judged = [f"{name} {found.words}" for name, found in _named(row.fits) if found is not None]
        if judged:
            output.line("    " + " · ".join(judged))


def _named(fits: dict[str, Fit | None]) -> list[tuple[str, Fit | None]]:
    return [("4-bit", fits.get("4bit")), ("16-bit", fits.get("16bit"))]
