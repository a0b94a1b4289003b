"""`finetui rename`, `note`, `tag`, `archive`, `clean` and `delete`: what a person does with runs that are over."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .recipes import JsonOption, usage
from .training import RunArgument

if TYPE_CHECKING:
    from ...core.runs.care import Labels
    from ...core.runs.store import RunFolder

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN…", help="Ids, their starts or ends, names, or last.")
]


def rename(
    run: RunArgument,
    title: Annotated[str, typer.Argument(help="What lists show. Empty shows the recipe's name again.")],
    as_json: JsonOption = False,
) -> None:
    """Give a run another name in lists. Its folder and its exports keep theirs."""
    from ...core.runs import care, store

    folder = store.find(run)
    _told(folder, care.label(folder, title=title), as_json)


def note(
    run: RunArgument,
    text: Annotated[str | None, typer.Argument(help="What it was for, or what came of it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a note to a run; without a text, show what is written about it."""
    from ...core.runs import care, store

    folder = store.find(run)
    _told(folder, care.labels(folder) if text is None else care.label(folder, note=text), as_json)


def tag(
    run: RunArgument,
    tags: Annotated[list[str], typer.Argument(metavar="TAG…", help="One word each, such as gpu or v2.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take these tags away.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add tags to a run, or take them away. finetui runs --tag lists by them."""
    from ...core.runs import care, store

    folder = store.find(run)
    found = care.label(folder, remove_tags=tags) if remove else care.label(folder, add_tags=tags)
    _told(folder, found, as_json)


def archive(
    runs: RunsArgument,
    undo: Annotated[bool, typer.Option("--undo", help="Show them in lists again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Hide runs from lists. Nothing of them is deleted; finetui runs --all shows them."""
    from ...core.runs import care, store

    for folder in map(store.find, runs):
        _told(folder, care.label(folder, archived=not undo), as_json)


def _told(run: RunFolder, found: Labels, as_json: bool) -> None:
    """What is written about the run now."""
    from ...core.text import one_line

    if as_json:
        output.data({"run": run.id, **found.model_dump(mode="json")})
        return
    output.line(run.id + (" (archived)" if found.archived else ""))
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
    if plans and not dry_run and confirmed(f"Remove {bytes_words(total)} of checkpoints?", yes):
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
    count = f"{len(folders)} {'run' if len(folders) == 1 else 'runs'}"
    if not confirmed(f"Delete {count}, {bytes_words(total)}, for good?", yes):
        return
    freed = sum(map(care.delete, folders))
    if as_json:
        output.data({"deleted": [folder.id for folder in folders], "freed_bytes": freed})
    else:
        output.line(f"Deleted. Freed {bytes_words(freed)}.")


def confirmed(question: str, yes: bool, *, default: bool = False, flag: str = "--yes") -> bool:
    """Whether the person says so, now or by `flag`; `default` is what Enter answers. Raises FinetuiError (usage) where nobody can be asked."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise usage("Nobody is here to be asked.", f"There is no terminal. {question}", f"Add {flag}.")
    if not typer.confirm(question, default=default):
        output.line("Left as it is.")
        return False
    return True
