"""The ledger's figures as lines: rows by their fate, tokens, lengths, ends, and what was spotted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from ....core.text import counted
from ...theme import glyphs
from ..preview import wrapped
from ..text import literal
from .findings import lines_words
from .lengths import histogram

if TYPE_CHECKING:
    from ....core.dataset_ledger import Ledger

LABEL_CELLS = 12


def figures(ledger: Ledger, cells: int, chart_rows: int) -> Content:
    """Everything that was counted, `cells` wide, the chart of lengths `chart_rows` lines high."""
    marks = glyphs()
    dot = f" {marks.middot} "
    lines: list[Content] = []

    def line(label: str, text: str, style: str = "$foreground") -> None:
        for n, part in enumerate(wrapped(literal(text, 1000), max(10, cells - LABEL_CELLS))):
            name = label if n == 0 else ""
            lines.append(Content.assemble((name.ljust(LABEL_CELLS), "$text-muted"), (part, style)))

    line("Rows", f"{ledger.read:,} read = {ledger.kept:,} kept + {ledger.dropped_rows:,} dropped", "bold")
    line("", f"{ledger.train_rows:,} to learn from{dot}{ledger.evaluation_rows:,} held out")
    if ledger.dropped:
        lines.append(Content.assemble(("Left out", "$text-muted")))
        for dropped in ledger.dropped:
            where = lines_words(dropped.lines, dropped.count)
            _hanging(
                lines, f"{dropped.count:,}", f"{dropped.reason} ({where})" if where else dropped.reason, cells
            )
    lines.append(Content(""))
    share = f" ({ledger.trained_share:.1%})" if ledger.tokens else ""
    line("Tokens", f"{ledger.tokens:,} an epoch{dot}{ledger.trained_tokens:,} learned{share}", "bold")
    q = ledger.quantiles
    if q.most:
        line(
            "A row has",
            f"{q.least:,} to {q.most:,} tokens{dot}half ≤ {q.p50:,}{dot}95 % ≤ {q.p95:,}{dot}99 % ≤ {q.p99:,}",
        )
    part = ledger.cut_rows / ledger.kept if ledger.kept else 0.0
    line(
        "Too long",
        f"{counted(ledger.cut_rows, 'row')} ({part:.1%}) over {ledger.max_length:,} tokens, {counted(ledger.cut_tokens, 'token')} lost"
        if ledger.cut_rows
        else f"none: all fit into {ledger.max_length:,} tokens",
        "$text-warning" if ledger.cut_rows else "$foreground",
    )
    if ledger.answers_lost:
        line("", f"the whole answer lost in {counted(ledger.answers_lost, 'row')}", "$text-warning")
    chart = histogram(ledger.histogram.edges, ledger.histogram.counts, ledger.max_length, cells, chart_rows)
    if chart is not None:
        lines += [Content(""), Content.assemble(("Rows by length, in tokens", "$text-muted")), chart]
    lines.append(Content(""))
    if ledger.kept:
        line(
            "End of text",
            f"in {_of(ledger.ends_present, ledger.kept)}, learned in {_of(ledger.ends_trained, ledger.kept)}",
        )
    if ledger.double_bos:
        line(
            "Double start",
            f"two start tokens at the head of {counted(ledger.double_bos, 'row')}",
            "$text-warning",
        )
    if ledger.system_folded:
        line(
            "System",
            f"in the first question of {counted(ledger.system_folded, 'row')}: the template has no place for a system prompt",
        )
    line(
        "Copies", f"{counted(ledger.duplicates, 'row')} like an earlier one" if ledger.duplicates else "none"
    )
    if ledger.evaluation_rows:
        line(
            "Leaks",
            f"{counted(ledger.leaked_rows, 'held-out row')} also in training"
            if ledger.leaked_rows
            else "none",
        )
    if ledger.secrets:
        lines.append(
            Content.assemble(("Spotted (the texts are shown nowhere but in their rows)", "$text-muted"))
        )
        for secret in ledger.secrets:
            where = lines_words(secret.lines, secret.count)
            _hanging(lines, f"{secret.count:,}", f"{secret.kind} ({where})", cells)
    if ledger.format:
        lines.append(Content(""))
        sure = f" ({ledger.format_confidence:.0%} sure)" if ledger.format_confidence else ""
        line("Format", f"{ledger.format}{sure}: {ledger.format_reason}")
        if ledger.mapping:
            line("Columns", ", ".join(f"{role} = {column}" for role, column in ledger.mapping))
    return Content("\n").join(lines)


def _of(count: int, all_rows: int) -> str:
    return "all rows" if count == all_rows else "no row" if not count else f"{count:,} of {all_rows:,} rows"


def _hanging(lines: list[Content], figure: str, text: str, cells: int) -> None:
    """A figure at the right of a narrow column, its words beside it."""
    for n, part in enumerate(wrapped(literal(text, 600), max(10, cells - LABEL_CELLS))):
        head = (figure if n == 0 else "").rjust(LABEL_CELLS - 2) + "  "
        lines.append(Content.assemble((head, "bold"), (part, "$foreground")))
