"""What a run came to: its score against the base model, its exports with what to do next, or why it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from textual.content import Content

from ....core.errors import FinetuiError
from ....core.export import ADAPTERS, FORMATS, next_commands
from ....core.recipe import Recipe
from ....core.runs.events import Exported, Proved, Scored
from ....core.runs.state import Card, RunStatus
from ....core.runs.store import RunFolder
from ....core.text import bytes_words, clean, counted, duration_words
from ...theme import glyphs
from ..text import literal
from .lines import Run, hanging, side_by_side, wrapped
from .story import Story, number


@dataclass(frozen=True)
class Use:
    """One way to use an export, as a shell command."""

    format: str
    title: str
    command: str


def uses(run: RunFolder, recipe: Recipe | None, exports: Sequence[Exported]) -> list[Use]:
    """Every way to use what was exported, the best of each export first.

    What the worker said comes first; the others are made from the recipe. An export whose path leaves the run's folder is
    none of ours, and has no command.
    """
    found: list[Use] = []
    for export in sorted(exports, key=lambda e: e.format in ADAPTERS):  # a whole model is the easier to use
        info = FORMATS.get(export.format)  # type: ignore[call-overload]
        path = (run.path / export.path).resolve()
        title = "Use it"
        more: list[Use] = []
        if info is not None and recipe is not None and path.is_relative_to(run.path.resolve()):
            ways = next_commands(
                info.format,
                path,
                recipe.name,
                recipe.model.source,
                recipe.dataset.system_prompt,
                recipe.lora,
                export.begins,
            )
            title = ways[0].title
            more = [Use(export.format, way.title, way.command) for way in ways]
        if export.command:
            first = Use(export.format, title, clean(export.command, 8000))
            more = [first, *more[1:]]
        found += more
    return found


def commands_text(run: RunFolder, ways: Sequence[Use]) -> str:
    """The commands as a shell file: each under what it is for."""
    lines = [f"# What to do with the exports of {run.id}"]
    for way in ways:
        lines += ["", f"# {title_of(way.format)}: {way.title}", way.command]
    return "\n".join(lines) + "\n"


def title_of(format: str) -> str:
    """What a format is called."""
    info = FORMATS.get(format)  # type: ignore[call-overload]
    return info.title if info is not None else literal(format, 40)


def card(found: Card, width: int) -> list[Content]:
    """What happened, why, and what to do; never cut."""
    return error(FinetuiError(found.what, found.why, found.fix), width)


def error(found: FinetuiError, width: int) -> list[Content]:
    """The three texts of an error."""
    marks = glyphs()
    lines = [
        Content.assemble(
            (f"{marks.cross} " if index == 0 else "  ", "bold $error"), (line, "bold $text-error")
        )
        for index, line in enumerate(wrapped(found.what or "The run ended.", width - 2))
    ]
    lines += [Content.assemble("  ", (line, "$foreground")) for line in wrapped(found.why, width - 2)]
    for index, line in enumerate(wrapped(found.fix, width - len(marks.right) - 1)):
        mark = f"{marks.right} " if index == 0 else " " * (len(marks.right) + 1)
        lines.append(Content.assemble((mark, "bold $accent"), (line, "$foreground")))
    return lines


def _of(count: int, rows: int) -> str:
    return f"{count}/{rows} ({100 * count / rows:.0f} %)" if rows > 0 else glyphs().dash


def score_table(score: Scored, width: int) -> list[Content]:
    """Base against tuned, measured on the held-out rows."""
    head = f"{max(0, score.rows):,} held-out rows, the same instructions for both"
    column = 14 if width < 60 else 18
    label = 16
    lines = [
        Content.assemble((head, "$text-muted")),
        Content.assemble(
            " " * label, ("base".rjust(column), "$text-muted"), ("tuned".rjust(column), "bold $success")
        ),
    ]
    for title, base, tuned in (
        ("valid JSON", score.base.valid, score.tuned.valid),
        ("category right", score.base.category_right, score.tuned.category_right),
        ("exactly right", score.base.exact, score.tuned.exact),
    ):
        lines.append(
            Content.assemble(
                (title.ljust(label), "$foreground"),
                (_of(base, score.rows).rjust(column), "$text-muted"),
                (_of(tuned, score.rows).rjust(column), "bold $success"),
            )
        )
    return lines


def examples(score: Scored, width: int) -> list[Content]:
    """Three held-out messages with both answers, side by side where there is room."""
    lines: list[Content] = []
    half = (width - 2) // 2
    rows = 4 if half >= 34 else 6
    wide = width >= 48
    if wide and score.examples:
        head: list[Run] = [
            ("base answers".ljust(half + 2), "bold $text-muted"),
            ("tuned answers", "bold $success"),
        ]
        lines += [Content(""), Content.assemble(*head)]
    for index, example in enumerate(score.examples[:3]):
        lines += [] if wide and not index else [Content("")]
        lines += [Content.assemble((line, "$foreground")) for line in wrapped(example.prompt, width, 2)]
        if wide:
            left, right = (
                wrapped(example.base, half, rows) or ["(nothing)"],
                wrapped(example.tuned, half, rows) or ["(nothing)"],
            )
            lines += side_by_side(left, right, half, ("$text-muted", "$success"))
        else:
            lines += hanging("base", example.base, width, "$text-muted", cells=6, most=3)
            lines += hanging("tuned", example.tuned, width, "$success", cells=6, most=3)
    return lines


def sizes(done: Sequence[Exported], ways: Sequence[Use], chosen: int, width: int) -> list[Content]:
    """The exports in brief, for a narrow pane: sizes, and the command of the chosen way."""
    marks = glyphs()
    lines: list[Content] = []
    for export in done:
        before = f"{bytes_words(export.base_bytes)} {marks.right} " if export.base_bytes else ""
        lines.append(
            Content.assemble((f"{marks.check} ", "$success"), (title_of(export.format), "$foreground"))
        )
        lines.append(
            Content.assemble((f"  {before}", "$text-muted"), (bytes_words(export.bytes), "bold $foreground"))
        )
    if ways:
        way = ways[chosen % len(ways)]
        lines += [Content(""), Content.assemble((way.title, "bold $accent"), ("   y copies", "$text-muted"))]
        lines += [Content.assemble((line, "$foreground")) for line in wrapped(way.command, width, 8)]
    return lines


NARROW = 90
"""Below so many cells a path and a proof get one line each, so that the next command stays in view."""


def proof(found: Proved | None, width: int) -> list[Content]:
    """What came of comparing an export with the trained model, in two lines at most; nothing where it was not."""
    if found is None:
        return []
    marks = glyphs()
    mark, style = {"same": (marks.check, "$success"), "differs": ("!", "$warning")}.get(
        found.verdict, (marks.cross, "$error")
    )
    words = literal(found.sentence, 300) + (f" ({literal(found.consumer, 30)})" if found.consumer else "")
    return hanging(f"  {mark}", words, width, style, cells=4, most=1 if width < NARROW else 2)


def exports(
    run: RunFolder,
    done: Sequence[Exported],
    ways: Sequence[Use],
    chosen: int,
    width: int,
    proofs: Mapping[str, Proved],
) -> list[Content]:
    """Each export with its size before and after and its proof, and the command of the chosen way to use one."""
    marks = glyphs()
    lines: list[Content] = []
    for export in done:
        size = (
            f"{bytes_words(export.base_bytes)} {marks.right} {bytes_words(export.bytes)}"
            if export.base_bytes
            else bytes_words(export.bytes)
        )
        title = title_of(export.format)
        lines.append(
            Content.assemble(
                (f"{marks.check} ", "$success"), (title.ljust(17), "bold $foreground"), (size, "$foreground")
            )
        )
        path = literal(str(run.path / Path(export.path)), 400)
        if width < NARROW and len(path) > width - 2:
            path = literal(f"{run.id}/{export.path}", 400)
        lines += hanging("", path, width, "$text-muted", cells=2, most=1 if width < NARROW else None)
        lines += proof(proofs.get(export.format), width)
    if ways:
        way = ways[chosen % len(ways)]
        head: list[Run] = [
            (f"{way.title}", "bold $accent"),
            (f" with the {title_of(way.format)}", "$text-muted"),
        ]
        if len(ways) > 1:
            head.append(
                (f"   {marks.previous} {chosen % len(ways) + 1} of {len(ways)} {marks.next}", "$accent")
            )
        head.append(("   y copies", "$text-muted"))
        lines += [Content(""), Content.assemble(*head)]
        lines += [Content.assemble((line, "$foreground on $surface")) for line in wrapped(way.command, width)]
    return lines


def summary(story: Story, status: RunStatus, width: int) -> list[Content]:
    """How the training went, in a sentence or two."""
    step, curves = story.step, story.curves
    took = f" in {duration_words(status.seconds)}" if status.job not in ("export", "verify") else ""
    verb = {"completed": "Completed", "stopped": "Stopped"}.get(status.standing, status.state.capitalize())
    parts = [f"{verb}{took}."]
    if step is not None and curves.steps:
        parts.append(
            f"Loss {number(curves.first_loss)} at the start, {number(story.smoothed_loss)} at the end, over {counted(step.step, 'step')}."
        )
    first, last = story.first_evaluation, story.evaluation
    if first is not None and last is not None and first is not last:
        parts.append(f"On held-out rows {number(first.loss)}, then {number(last.loss)}.")
    if story.best_kept is not None:
        parts.append(story.best_kept.sentence)
    return [Content.assemble((line, "$foreground")) for line in wrapped(" ".join(parts), width)]
