"""Two to six runs side by side: their curves, where their recipes differ, what they answer to the same prompts."""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import recipe_file
from ..errors import FinetuiError
from ..fields import fields, get
from ..recipe import Recipe
from . import event_log, events, summary
from .curves import Curves
from .history import History
from .store import RunFolder

MOST = 6


@dataclass
class Compared:
    """One of the runs: its summary, its curves and its newest answers by prompt."""

    run: RunFolder
    summary: summary.Summary
    recipe: Recipe | None
    curves: Curves
    answers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """A field of the recipe that is not the same in all runs; a value for each, in their order."""

    path: str
    title: str
    values: tuple[str, ...]


def read(run: RunFolder) -> Compared:
    """Reads one run whole. Blocking: some microseconds a step."""
    try:
        recipe: Recipe | None = recipe_file.load(run.recipe)
    except FinetuiError:
        recipe = None
    found = Compared(run, summary.summarize(run), recipe, Curves())

    def take(record: event_log.Record) -> None:
        event = record.event
        if isinstance(event, events.Step):
            found.curves.add_step(event, record.ts)
        elif isinstance(event, events.Started):
            found.curves.begin(record.ts)
        elif isinstance(event, events.Evaluation):
            found.curves.evaluated(event.step, event.loss)
        elif isinstance(event, events.Sample) and (event.prompt in found.answers or len(found.answers) < 20):
            found.answers[event.prompt] = event.answer

    try:
        end = run.events.stat().st_size
        History(run.events, end, found.curves, take).read()
    except (OSError, FinetuiError):
        pass
    return found


def differences(compared: list[Compared]) -> list[Difference]:
    """Where the recipes differ, in the order in which the fields are declared."""
    known = [one.recipe for one in compared]
    if None in known:
        return []
    found: list[Difference] = []
    for spec in fields():
        values = [get(recipe, spec.path) for recipe in known if recipe is not None]
        if any(value != values[0] for value in values):
            found.append(Difference(spec.path, spec.title, tuple(_words(value) for value in values)))
    return found


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else "—" if value is None else str(value)


def check(count: int) -> None:
    """Raises FinetuiError (usage) where so many runs cannot be compared."""
    if not 2 <= count <= MOST:
        raise FinetuiError(
            "Two to six runs can be compared.",
            f"{count} {'was' if count == 1 else 'were'} named.",
            "Name as many, for example finetui compare RUN RUN.",
            code="usage",
        )
