"""`finetui inspect`: a dataset as the model will see it, before anything is trained."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...core.errors import FinetuiError
from ...core.named_files import given_path
from . import exits, output
from .recipes import JsonOption, SetOption, changed

if TYPE_CHECKING:
    from ...core.dataset_inspect import Inspector, Progress
    from ...core.dataset_ledger import Ledger, SeenRow
    from ...core.recipe import Recipe

SHOWN_ROWS = 3
_BAR = 40
_MARKS = {"stop": "STOP", "warning": "warning", "note": "note"}


def inspect(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="demo, a file or a folder of files, or a hub dataset.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="Whose tokenizer and chat template: demo, a folder or a hub id."
        ),
    ] = None,
    settings: SetOption = None,
    rows: Annotated[
        int,
        typer.Option(
            "--rows", metavar="N", min=0, max=1000, help="Show so many rows as the model sees them."
        ),
    ] = SHOWN_ROWS,
    clean: Annotated[
        str | None,
        typer.Option(
            "--write-clean",
            metavar="FILE",
            help="Write the usable rows as JSONL, without copies and without secrets.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the model would see of a dataset, and what is wrong with it.

    Every row goes through the tokenizer, template and mask that training uses. The exit code is 0 where all is well, 8
    where there are warnings, 9 where training could not start.
    """
    from ...core.dataset_inspect import Inspector

    recipe = _recipe(data, model, settings)
    inspector = Inspector.start(recipe)
    try:
        try:
            ledger = finished(inspector)
        except FinetuiError as error:
            if not error.code.startswith("dataset-") or error.code.endswith("-missing"):
                raise
            output.card(error, as_json)
            raise typer.Exit(exits.UNUSABLE) from error
        seen = _rows(inspector, ledger, rows)
        copy = inspector.write_clean(given_path(clean), ("duplicates", "secrets")) if clean else None
        if as_json:
            output.data(_document(recipe, ledger, seen, copy))
        else:
            for line in _words(recipe, ledger, seen):
                output.line(line)
            if copy is not None:
                output.line(f"Wrote {copy.written:,} rows to {copy.path}; {copy.left_out:,} were left out.")
    finally:
        inspector.close()
    raise typer.Exit(
        exits.UNUSABLE if ledger.stops else exits.WARNINGS if ledger.worst == "warning" else exits.OK
    )


def _recipe(data: str, model: str | None, settings: list[str] | None) -> Recipe:
    from ...core.draft import Draft
    from ...core.errors import RecipeError
    from ...core.recipe import Recipe
    from ...core.runs import launch

    draft = Draft(Recipe())
    for path, value in (("dataset.source", data), ("model.source", model)):
        wrong = draft.set(path, value) if value is not None else None
        if wrong:
            raise RecipeError("This cannot be inspected.", (f"{path} {wrong}",))
    return launch.resolved(changed(draft.recipe(), settings))


def finished(inspector: Inspector) -> Ledger:
    """The complete ledger, with a line of progress where somebody watches. Raises the inspection's error."""
    watched = sys.stderr.isatty()
    while True:
        now = inspector.wait(0.5)
        if watched:
            _show(now)
        if now.error is not None:
            raise now.error
        if now.ledger is not None and now.ledger.complete:
            return now.ledger


def _show(now: Progress) -> None:
    done = now.ledger is not None and now.ledger.complete
    words = "" if done or now.error else now.stage or f"{now.rows_read:,} rows, {100 * now.share:.0f} %"
    with contextlib.suppress(OSError):
        sys.stderr.write(f"\r{words:<60}" + ("\r" if not words else ""))
        sys.stderr.flush()


def _rows(inspector: Inspector, ledger: Ledger, count: int) -> list[SeenRow]:
    return [inspector.row(index) for index in range(min(count, ledger.read))]


def _document(recipe: Recipe, ledger: Ledger, seen: list[SeenRow], copy: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from ...core import training

    plan = training.plan(recipe, ledger.train_rows)
    counted = asdict(ledger)
    findings = counted.pop("findings")
    for name in ("format", "format_reason", "format_confidence", "mapping"):
        counted.pop(name)
    return {
        "source": recipe.dataset.source,
        "model": recipe.model.source,
        "format": {
            "name": ledger.format,
            "reason": ledger.format_reason,
            "confidence": ledger.format_confidence,
            "mapping": dict(ledger.mapping),
        },
        "verdict": "unusable" if ledger.stops else "warnings" if ledger.worst == "warning" else "clean",
        "ledger": {
            **counted,
            "dropped_rows": ledger.dropped_rows,
            "trained_share": ledger.trained_share,
        },
        "plan": {"steps": plan.steps, "rows_seen": plan.rows_seen, "share": plan.share},
        "findings": findings,
        "rows": [asdict(row) for row in seen],
        "clean_copy": {"path": str(copy.path), "written": copy.written, "left_out": copy.left_out}
        if copy
        else None,
    }


def _words(recipe: Recipe, ledger: Ledger, seen: list[SeenRow]) -> Iterator[str]:
    from ...core import training
    from ...core.text import middle, one_line

    yield _entry("dataset", middle(one_line(recipe.dataset.source, 300), 80))
    yield _entry("model", middle(one_line(recipe.model.source, 300), 80))
    sure = f", {100 * ledger.format_confidence:.0f} % sure" if ledger.format_confidence else ""
    yield _entry("format", f"{ledger.format}{sure}: {one_line(ledger.format_reason, 160)}")
    if ledger.mapping:
        yield _entry("", ", ".join(f"{role} = {one_line(column, 40)}" for role, column in ledger.mapping))
    yield _entry("rows", f"{ledger.read:,} read = {ledger.kept:,} kept + {ledger.dropped_rows:,} left out")
    if ledger.source_rows != ledger.read:
        yield _entry("", f"made of {ledger.source_rows:,} rows of the source")
    yield _entry("", f"{ledger.train_rows:,} to train on, {ledger.evaluation_rows:,} held out")
    for dropped in ledger.dropped[:12]:
        lines = ", ".join(f"{n:,}" for n in dropped.lines[:5]) + (", …" if dropped.count > 5 else "")
        yield _entry("", f"{dropped.count:>9,}  {one_line(dropped.reason, 60)} (line {lines})")
    yield _entry(
        "tokens",
        f"{ledger.tokens:,} in one epoch, {ledger.trained_tokens:,} ({100 * ledger.trained_share:.0f} %) learned",
    )
    yield _entry("training", training.plan(recipe, ledger.train_rows).words)
    q = ledger.quantiles
    yield _entry(
        "length",
        f"{q.least:,} least, {q.p5:,} at 5 %, {q.p50:,} half, {q.p95:,} at 95 %, {q.p99:,} at 99 %, {q.most:,} most; "
        f"the limit is {ledger.max_length:,}",
    )
    yield from _bars(ledger)
    yield ""
    if not ledger.findings:
        yield "Nothing is wrong with it."
    for finding in ledger.findings:
        yield f"{_MARKS[finding.severity]:<8} {one_line(finding.sentence, 300)}"
        lines = f" First at {', '.join(f'{n:,}' for n in finding.lines[:5])}." if finding.lines else ""
        yield f"{'':<8} {one_line(finding.why, 400)}{lines}"
        for action in finding.actions:
            for path, value in action.change:
                shown = "" if value is None else str(value).lower() if isinstance(value, bool) else value
                yield f"{'':<8} → {action.label}: --set {path}={shown}"
    for row in seen:
        yield from _row(row)


def _entry(name: str, words: str) -> str:
    return f"{name:<9}{words}"


def _bars(ledger: Ledger) -> Iterator[str]:
    counts, edges = ledger.histogram.counts, ledger.histogram.edges
    most = max(counts, default=0)
    if not most:
        return
    marked = False
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        if not count:
            continue
        limit = not marked and ledger.max_length < high and ledger.quantiles.most > ledger.max_length
        marked = marked or limit
        bar = "#" * max(1, round(_BAR * count / most))
        yield _entry("", f"{low:>8,} {bar:<{_BAR}} {count:,}" + ("  < the limit" if limit else ""))


def _row(row: SeenRow) -> Iterator[str]:
    fate = f"left out: {row.dropped}" if row.dropped else "held out" if row.evaluation else "trained on"
    yield ""
    yield (
        f"line {row.number:,}: {row.tokens:,} tokens ({row.special_tokens:,} special), {row.trained_tokens:,} learned (+)"
        + (f", {row.full_tokens - row.tokens:,} cut off (x)" if row.full_tokens > row.tokens else "")
        + f"; {fate}"
    )
    text = ""
    mark = ""
    for span in row.spans:
        new = "x" if span.cut else "+" if span.trained else " "
        if new != mark:
            yield from _marked(mark, text)
            text = ""
        mark = new
        text += span.text
    yield from _marked(mark, text)


def _marked(mark: str, text: str) -> Iterator[str]:
    """`text` with its mark at the head of each line; a line break alone says nothing."""
    from ...core.text import clean

    if text.strip("\n"):
        yield from (f"  {mark} {line}" for line in clean(text, 4000).removesuffix("\n").split("\n"))
