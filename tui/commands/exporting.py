"""`finetui export`: what runs learned, as files to leave with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ...core.errors import FinetuiError
from . import exits, output
from .recipes import JsonOption, usage
from .training import DetachOption, start

if TYPE_CHECKING:
    from ...core.export_plan import Plan
    from ...core.recipe import ExportFormat
    from ...core.runs.store import RunFolder


def export(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…", help="Ids, their starts or ends, names, folders, or last; one after another."
        ),
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="adapter, merged, merged_4bit, gguf_f16, gguf_q8_0, gguf_q6_k, gguf_q5_k_m, gguf_q4_k_m, gguf_q3_k_m or another "
            "of llama.cpp's; may be given again, or several with commas. The recipe's otherwise.",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="WHICH",
            help="Whose weights: result (what the run ended with: its best, or its last), last, best, or a step. The recipe's otherwise.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Make exports again that are there already, and overwrite them.")
    ] = False,
    importance: Annotated[
        bool | None,
        typer.Option(
            "--importance/--no-importance",
            help="Quantize with an importance matrix from the training data. The recipe's otherwise; IQ3_XS and smaller "
            "always get one.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would take: disk, memory, quality.")
    ] = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write what a run learned as adapter, merged model or GGUF.

    An export that was cut off goes on where it was. What is there already, of the same weights, is kept.
    """
    from ...core.runs import chosen, store

    wanted = formats_of(formats) if formats is not None else ()
    if checkpoint is not None:
        chosen.parse(checkpoint)
    folders = list({run.path: run for run in map(store.find, runs)}.values())
    if detach and len(folders) > 1:
        raise usage(
            "--detach takes one run.",
            "Several exports at once would want their memory at once; they are made one after another.",
            "Leave --detach away, or start them one by one.",
        )
    code = exits.OK
    for folder in folders:
        try:
            found = _planned(folder, wanted, checkpoint, replace, importance)
            if dry_run:
                _show(found, as_json)
                continue
            code = code or _export(
                found, checkpoint, replace, importance, detach, as_json, several=len(folders) > 1
            )
        except FinetuiError as error:
            if len(folders) == 1:
                raise
            output.line(f"{folder.id}:", sys.stderr)
            output.card(error, as_json)
            code = code or exits.of_error(error.code)
        if code == exits.INTERRUPTED:
            break
    raise typer.Exit(code)


def _planned(
    run: RunFolder,
    wanted: tuple[ExportFormat, ...],
    checkpoint: str | None,
    replace: bool,
    importance: bool | None,
) -> Plan:
    from ...core import export_plan, recipe_file

    recipe = recipe_file.load(run.recipe)
    formats = wanted or recipe.export.formats
    return export_plan.plan(run, recipe, formats, checkpoint, replace=replace, importance=importance)


def _export(
    found: Plan,
    checkpoint: str | None,
    replace: bool,
    importance: bool | None,
    detach: bool,
    as_json: bool,
    *,
    several: bool,
) -> int:
    from ...core.runs import launch, state

    now = state.status(found.run)
    if now.live:
        raise launch.busy(found.run, now)
    if (error := found.no_space) is not None:
        raise error
    if found.replaced and not replace:
        if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise found.needs_replace()
        error = found.needs_replace()
        output.line(f"{error.what} {error.why}")
        if not typer.confirm("Replace?", default=False):
            output.line("Left as it is.")
            return exits.OK
        replace = True
    if as_json and several:
        output.data({"run": found.run.id, "path": str(found.run.path)})
    stream = sys.stderr if as_json else sys.stdout
    output.line(f"Exporting {found.weights.words}.", stream)
    for words in (found.weights.note, found.warning):
        if words:
            output.line(words, stream)
    options = launch.export_options(checkpoint, replace, importance)
    return start(found.run, "export", detach, as_json, formats=found.formats, options=options)


def _show(found: Plan, as_json: bool) -> None:
    """What an export would take."""
    from ...core.export import FORMATS
    from ...core.quantizations import LOSS_SOURCE
    from ...core.text import bytes_words

    if as_json:
        output.data(found.table())
        return

    def size(count: int | None) -> str:
        return "—" if count is None else bytes_words(count)

    def on_gpu(count: int | None) -> str:
        if found.gpu is None:
            return ""
        return " and no GPU" if count == 0 else f" and {size(count)} of the GPU"

    output.line(f"{found.run.id}: {found.weights.words}")
    if found.weights.note:
        output.line(found.weights.note)
    standing = {one.format: one for one in found.there}
    for need in found.budget.needs:
        info = FORMATS[need.format]
        there = standing.get(need.format)
        if need.there:
            output.line(f"  {need.format:<12} {'is there, of these weights':>10}")
            continue
        old = f" · replaces the one {there.words}" if there is not None else ""
        output.line(
            f"  {need.format:<12} {size(need.disk_bytes):>10}   memory {size(need.ram_bytes)}, "
            f"to prove it {size(need.proof_ram_bytes)}{on_gpu(need.proof_gpu_bytes)}{old}"
        )
        output.line(f"  {'':<12} {info.summary} · {info.loss}")
    budget = found.budget
    if budget.shared:
        output.line(
            f"  on the way   {size(budget.shared_bytes):>10}   {', '.join(budget.shared)}; removed at the end"
        )
    if budget.base_bytes != 0:
        output.line(
            f"  to prove     {size(budget.base_bytes):>10}   a GGUF of the base model; removed at the end"
        )
    output.line(f"  disk         {size(budget.disk_bytes):>10}   {size(found.free_disk_bytes)} free")
    output.line(
        f"  memory       {size(budget.ram_bytes):>10}   {size(found.free_ram_bytes)} free; no GPU is needed"
    )
    if found.gpu is not None and budget.proof_gpu_bytes != 0:
        output.line(
            f"  GPU memory   {size(budget.proof_gpu_bytes):>10}   {size(found.gpu.free_bytes)} free; only to prove with, and where "
            "that is short the CPU does"
        )
    output.line(f"Loss of quality: {LOSS_SOURCE}; a small model loses more.")
    error = found.no_space
    for words in (error.what if error else "", found.warning):
        if words:
            output.line(words)


def formats_of(given: list[str]) -> tuple[ExportFormat, ...]:
    """The export formats that were named. Raises FinetuiError (usage)."""
    import difflib
    import typing

    from ...core.recipe import ExportFormat

    known: tuple[ExportFormat, ...] = typing.get_args(ExportFormat)
    wanted: list[ExportFormat] = []
    for name in (p.strip().lower().replace("-", "_") for item in given for p in item.split(",")):
        named: list[ExportFormat] = [f for f in known if name in (f, f.removeprefix("gguf_"))]
        wanted += named
        if name and not named:
            near = difflib.get_close_matches(name, known, n=1)
            raise usage(
                f"There is no export format {name!r}.",
                f"Formats: {', '.join(known)}.",
                f"Did you mean {near[0]}?" if near else "Name one of them with --format.",
            )
    if not wanted:
        raise usage(
            "No format was named.", f"Formats: {', '.join(known)}.", "Name one of them with --format."
        )
    return tuple(dict.fromkeys(wanted))
