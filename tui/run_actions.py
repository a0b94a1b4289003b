"""What can be done with a run: what it can be asked for while it works; resume, retry, longer, again with changes; name, tag,
clean, delete.

The runs browser has a key for each, and a menu; the dashboard of a run has the menu, and the keys of a run at work. Each
function takes what is shown, the run, and what to call once something about the run has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import FinetuiError
from ..core.recipe import Recipe
from ..core.runs.lineage import Longer, Origin
from ..core.runs.store import RunFolder
from ..core.text import bytes_words, one_line
from .modals.actions import ActionsModal
from .modals.confirm import ConfirmModal
from .modals.failure import FailureModal
from .modals.text import TextModal
from .run_requests import REQUESTS, Action, Changed, Seen
from .starting import in_turn
from .widgets.menu import Item

if TYPE_CHECKING:
    from ..core.runs.care import Cleaning, Labels, Sizes
    from ..core.runs.retry import Retry
    from .app import FinetuiApp

BAD = ("failed", "crashed")
OVER = ("completed", "stopped", *BAD)
DRAFT_WORDS = "The settings of this run replace your draft."


# ── To train again ──


def resume(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """Goes on from the newest checkpoint; where something has changed since, asks first."""
    _resume(app, run, changed, anyway=False)


def _resume(app: FinetuiApp, run: RunFolder, changed: Changed, *, anyway: bool) -> None:
    from ..core.runs import launch, retry

    def failed(error: FinetuiError) -> None:
        if error.code != "changed-since":
            app.show_error(error)
            return

        def answered(answer: str | None) -> None:
            if answer == "anyway":
                _resume(app, run, changed, anyway=True)

        answers = [("cancel", "Leave it"), ("anyway", "Go on all the same")]
        app.push_screen(ConfirmModal(error.what, one_line(error.why, 600), answers), answered)

    in_turn(
        app,
        lambda: launch.check_resumable(run, anyway=anyway),
        lambda _, queued: retry.resume(run, queued=queued, anyway=anyway),
        lambda _: changed("Resuming from the newest checkpoint."),
        failed,
    )


def failure(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """The failure card: why it ended, and to try it again with what mends it."""
    from ..core.runs import retry

    def shown(plan: Retry) -> None:
        def answered(answer: str | None) -> None:
            if answer == "retry":
                _start_retry(app, plan, changed)
            elif answer == "change" and plan.job in ("export", "verify"):
                export(app, run)
            elif answer == "change":
                from .widgets.dashboard.background import step_to_fix

                begin_with(app, plan.recipe, step_to_fix(plan.card.code), Origin(run.id, "retry"))
            elif answer == "report":
                report(app, run, changed)

        app.push_screen(FailureModal(plan), answered)

    app.in_background(f"retry {run.id}", lambda: retry.plan(run), shown)


def export(app: FinetuiApp, run: RunFolder) -> None:
    """The run's own export, to be changed and made again."""
    from .screens.run_export import RunExportScreen

    app.push_screen(RunExportScreen(run))


def _start_retry(app: FinetuiApp, plan: Retry, changed: Changed) -> None:
    from ..core.runs import retry

    if plan.job == "resume" and not plan.new:
        resume(app, plan.run, changed)
        return

    def started(run: RunFolder) -> None:
        changed()
        if plan.new:
            app.open_run(run.path)

    if plan.job in ("export", "verify"):
        app.in_background("start", lambda: retry.start(plan), started)
    else:
        in_turn(app, lambda: None, lambda _, queued: retry.start(plan, queued=queued), started)


def longer(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """A finished run trained on, as a new run."""
    from ..core.runs import lineage

    def begin(plan: Longer) -> None:
        def answered(answer: str | None) -> None:
            if answer == "start":
                in_turn(
                    app,
                    lambda: None,
                    lambda _, queued: lineage.start_longer(plan, queued=queued),
                    lambda made: app.open_run(made.path),
                )

        words = " ".join((plan.words, "The old run stays as it is."))
        app.push_screen(
            ConfirmModal("Train longer", words, [("start", "Start"), ("cancel", "Cancel")]), answered
        )

    def typed(text: str | None) -> None:
        if text is None:
            return
        try:
            epochs = float(text)
        except ValueError:
            epochs = 0.0
        if not 0 < epochs <= 1000:
            app.notify("So many epochs more: a number above 0.", severity="error", markup=False)
            return
        app.in_background(f"longer {run.id}", lambda: lineage.longer(run, epochs=epochs), begin)

    words = "How many epochs more? It goes on from the last checkpoint, as a new run."
    app.push_screen(TextModal("Train longer", words, "1", "Go on"), typed)


def duplicate(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """Its settings in the wizard, to be changed and started as a new run."""
    from ..core.runs import lineage

    of = Origin(run.id, "copy")
    app.in_background(
        f"copy {run.id}", lambda: lineage.copied(run), lambda r: begin_with(app, r, "model", of)
    )


def onward(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """A new run that starts from what this one has learned, with other rows."""
    from ..core.runs import lineage

    of = Origin(run.id, "adapter")
    app.in_background(
        f"onward {run.id}", lambda: lineage.onward(run), lambda r: begin_with(app, r, "dataset", of)
    )


def begin_with(app: FinetuiApp, recipe: Recipe, step: str, origin: Origin | None = None) -> None:
    """Opens the wizard at `step` with `recipe`; a draft that is there is not thrown away unasked."""

    def answered(answer: str | None) -> None:
        if answer == "retry":
            app.begin(recipe, step=step, origin=origin)

    if app.saved_draft is None:
        answered("retry")
        return
    answers = [("cancel", "Keep the draft"), ("retry", "Replace it")]
    app.push_screen(ConfirmModal("You have a draft", DRAFT_WORDS, answers), answered)


# ── What is written about it ──


def rename(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """Another name in lists."""
    words = "What lists show in place of its name. Its folder and its exports keep theirs."
    _label(app, run, changed, "Rename", words, lambda now: now.title, lambda text, _: {"title": text})


def note(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """What it was for, or what came of it."""
    words = "What it was for, or what came of it."
    _label(app, run, changed, "Note", words, lambda now: now.note, lambda text, _: {"note": text})


def tag(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """Its tags, as words in a line."""
    words = "Words to find it by, with blanks between: the filter takes #tag."

    def values(text: str, now: Labels) -> dict[str, Any]:
        wanted = text.split()
        return {"add_tags": wanted, "remove_tags": [one for one in now.tags if one not in wanted]}

    _label(app, run, changed, "Tags", words, lambda now: " ".join(now.tags), values)


def _label(
    app: FinetuiApp,
    run: RunFolder,
    changed: Changed,
    title: str,
    words: str,
    shown: Callable[[Labels], str],
    values: Callable[[str, Labels], dict[str, Any]],
) -> None:
    from ..core.runs import care

    def ask(now: Labels) -> None:
        def typed(text: str | None) -> None:
            if text is None:
                return
            given = values(text, now)
            app.in_background(f"label {run.id}", lambda: care.label(run, **given), lambda _: changed())

        app.push_screen(TextModal(title, words, shown(now)), typed)

    app.in_background(f"labels {run.id}", lambda: care.labels(run), ask)


def archive(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """Hides it from lists, or shows it again."""
    from ..core.runs import care

    def work() -> Labels:
        return care.label(run, archived=not care.labels(run).archived)

    def done(found: Labels) -> None:
        words = "Archived: lists leave it out; z shows it." if found.archived else "Shown in lists again."
        app.notify(words, markup=False)
        changed()

    app.in_background(f"archive {run.id}", work, done)


# ── Disk ──


def clean(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """Removes checkpoints that nobody needs; says first what that frees."""
    from ..core.runs import care

    def ask(plan: Cleaning) -> None:
        if not plan.remove:
            app.notify("Nothing to clean: only the best and the last checkpoint are there.", markup=False)
            return

        def answered(answer: str | None) -> None:
            if answer == "clean":
                app.in_background(f"clean {run.id}", lambda: care.clean(plan), freed)

        answers = [("clean", f"Free {bytes_words(plan.bytes)}"), ("cancel", "Leave them")]
        app.push_screen(ConfirmModal("Clean", f"{plan.words} Adapter and exports too.", answers), answered)

    def freed(size: int) -> None:
        app.notify(f"Freed {bytes_words(size)}.", markup=False)
        changed()

    app.in_background(f"clean {run.id}", lambda: care.cleaning(run), ask)


def delete(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """Deletes it with all that it holds; asks first, and says how much that is."""
    from ..core.runs import care

    def ask(size: Sizes) -> None:
        def answered(answer: str | None) -> None:
            if answer == "delete":
                app.in_background(f"delete {run.id}", lambda: care.delete(run), freed)

        held = [("adapter", size.adapter), ("checkpoints", size.checkpoints), ("exports", size.exports)]
        parts = ", ".join(f"{name} {bytes_words(count)}" for name, count in held if count)
        words = f"{run.id}: {bytes_words(size.total)}" + (f" ({parts})." if parts else ".")
        answers = [("cancel", "Keep it"), ("delete", "Delete for good")]
        app.push_screen(ConfirmModal("Delete this run?", words, answers), answered)

    def freed(size: int) -> None:
        app.notify(f"Deleted. Freed {bytes_words(size)}.", markup=False)
        changed()

    app.in_background(f"sizes {run.id}", lambda: care.sizes(run), ask)


def report(app: FinetuiApp, run: RunFolder, changed: Changed) -> None:
    """A bundle for a bug report, without the data."""
    from ..core.runs import report as bundle

    def work() -> Path:
        target = Path.cwd() / bundle.name(run)
        try:
            bundle.write(run, target)
        except FinetuiError:  # a folder that takes no files
            target = run.path / target.name
            bundle.write(run, target)
        return target

    def done(target: Path) -> None:
        words = (
            f"{target}: without rows, prompts, tokens, paths and names. Look through it before you send it."
        )
        app.notify(words, title="Report", timeout=20, markup=False)

    app.in_background(f"report {run.id}", work, done)


ACTIONS = (
    *REQUESTS,
    Action(
        "resume", "r", "Resume", "go on from its newest checkpoint", resume, ("stopped", *BAD), resumable=True
    ),
    Action("failure", "f", "Why it failed", "what happened, and retry with the fix", failure, failed=True),
    Action("longer", "l", "Train longer", "so many epochs more, as a new run", longer, ("completed",)),
    Action("duplicate", "d", "Duplicate", "its settings in the wizard, to change", duplicate),
    Action(
        "onward",
        "a",
        "From its adapter",
        "a new run that starts from what it learned",
        onward,
        OVER,
        adapter=True,
    ),
    Action("rename", "n", "Rename", "another name in lists", rename),
    Action("note", "e", "Note", "what it was for, or what came of it", note),
    Action("tag", "t", "Tags", "words to find it by", tag),
    Action("archive", "x", "Archive", "hide it from lists, or show it again", archive),
    Action("clean", "k", "Clean", "free disk; keeps best and last checkpoint", clean, OVER),
    Action("delete", "delete", "Delete", "for good; asks first", delete, OVER),
    Action("report", "g", "Report", "for a bug report, without your data", report),
)


def allowed(name: str, of: Seen | None) -> bool:
    """Whether the action `name` can be done with a run as it is seen; with one that is not known yet, none."""
    return of is not None and next(action for action in ACTIONS if action.name == name).allowed(of)


def act(app: FinetuiApp, run: RunFolder, name: str, changed: Changed) -> None:
    """Does what the action `name` does."""
    next(action for action in ACTIONS if action.name == name).do(app, run, changed)


def menu(app: FinetuiApp, run: RunFolder, title: str, seen: Seen, changed: Changed) -> None:
    """All that can be done with the run now, to choose from."""
    items = [
        Item(action.name, action.title, action.words, action.key[:3])
        for action in ACTIONS
        if action.allowed(seen)
    ]

    def chosen(name: str | None) -> None:
        if name:
            act(app, run, name, changed)

    app.push_screen(ActionsModal(title, items), chosen)
