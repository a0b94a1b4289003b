"""`finetui label`, `clean` and `delete`: what a person does with runs that are over."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import output
from .recipes import JsonOption, usage
from .training import RunArgument

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN…", help="Ids, their starts or ends, names, or last.")
]


def label(
    run: RunArgument,
    title: Annotated[
        str | None, typer.Option("--title", help="What lists show in place of its name.")
    ] = None,
    note: Annotated[str | None, typer.Option("--note", help="What it was for, or what came of it.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Add a tag; may be given again.")] = None,
    untag: Annotated[list[str] | None, typer.Option("--untag", help="Take a tag away.")] = None,
    archive: Annotated[
        bool | None, typer.Option("--archive/--unarchive", help="Hide it from lists, or show it again.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Title, note, tags and archive of a run. Without options, shows them."""
    from ...core.runs import care, store
    from ...core.text import one_line

    folder = store.find(run)
    if title is None and note is None and not tag and not untag and archive is None:
        found = care.labels(folder)
    else:
        found = care.label(
            folder, title=title, note=note, add_tags=tag or (), remove_tags=untag or (), archived=archive
        )
    if as_json:
        output.data({"run": folder.id, **found.model_dump(mode="json")})
        return
    output.line(folder.id + (" (archived)" if found.archived else ""))
    for name, value in (("title", found.title), ("tags", " ".join(found.tags)), ("note", found.note)):
        if value:
            output.line(f"  {name:<6} {one_line(value, 4000)}")


def clean(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN…]", help="All runs that are over otherwise.")
    ] = None,
    yes: YesOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove checkpoints that nobody needs any more. The newest and the best of each run stay.

    Adapters and exports are not touched. Says first what it frees.
    """
    from ...core.runs import care, store
    from ...core.text import bytes_words

    folders = [store.find(run) for run in runs] if runs else store.all_runs()
    plans = [plan for plan in map(care.cleaning, folders) if plan.remove]
    total = sum(plan.bytes for plan in plans)
    if not as_json:
        for plan in plans:
            output.line(plan.words)
        output.line(f"{bytes_words(total)} in all." if plans else "Nothing to clean.")
    freed = 0
    if plans and not dry_run:
        ask(f"Remove {bytes_words(total)} of checkpoints?", yes)
        freed = sum(map(care.clean, plans))
        if not as_json:
            output.line(f"Freed {bytes_words(freed)}.")
    if as_json:
        output.data(
            {
                "freed_bytes": freed,
                "runs": [
                    {
                        "run": plan.run.id,
                        "bytes": plan.bytes,
                        "remove": [path.name for path in plan.remove],
                        "keep": [path.name for path in plan.kept],
                    }
                    for plan in plans
                ],
            }
        )


def delete(runs: RunsArgument, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Delete runs with all that they hold: adapter, checkpoints, exports, log."""
    from ...core.runs import care, store
    from ...core.text import bytes_words

    folders = list({run.path: run for run in map(store.find, runs)}.values())
    sizes = [care.sizes(folder) for folder in folders]
    total = sum(size.total for size in sizes)
    if not as_json:
        for folder, size in zip(folders, sizes, strict=True):
            parts = [
                f"{name} {bytes_words(value)}"
                for name, value in (
                    ("adapter", size.adapter),
                    ("checkpoints", size.checkpoints),
                    ("exports", size.exports),
                )
                if value
            ]
            output.line(
                f"{folder.id}: {bytes_words(size.total)}" + (f" ({', '.join(parts)})" if parts else "")
            )
    ask(
        f"Delete {len(folders)} {'run' if len(folders) == 1 else 'runs'}, {bytes_words(total)}, for good?",
        yes,
    )
    freed = sum(map(care.delete, folders))
    if as_json:
        output.data({"deleted": [folder.id for folder in folders], "freed_bytes": freed})
    else:
        output.line(f"Deleted. Freed {bytes_words(freed)}.")


def ask(question: str, yes: bool, why: str = "This cannot be undone") -> None:
    """Goes on where the person says so. Raises FinetuiError (usage) where nobody can be asked."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise usage(f"{why}, and nobody is here to be asked.", "There is no terminal.", "Add --yes.")
    if not typer.confirm(question, default=False):
        output.line("Left as it is.")
        raise typer.Exit(0)
