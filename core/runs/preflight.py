"""Before a run starts: refuses what no worker is needed to refuse, and writes the base model's commit into the recipe."""

from __future__ import annotations

from collections.abc import Callable

from .. import dataset, export_budget, model, model_adapter, system, training
from ..dataset import DatasetFacts
from ..errors import FinetuiError
from ..model_facts import ModelFacts
from ..recipe import Recipe


def ready(
    recipe: Recipe,
    facts: ModelFacts | None = None,
    rows: DatasetFacts | None = None,
    *,
    tell: Callable[[training.Plan], None] = lambda _plan: None,
    warn: Callable[[str], None] = lambda _said: None,
) -> Recipe:
    """`recipe` as it is to be started: checked against this machine, its model and its rows, with the base model pinned.

    `facts` and `rows` are what is known of model and dataset already; what is not given is looked at. `tell` hears what
    the recipe means for its rows, where their number is known for sure; `warn` what may go wrong later. Blocking: files, and
    the hub. Raises FinetuiError for what cannot be trained: missing files, folders that are no model, …
    """
    machine = system.snapshot()
    for _, error in training.problems(recipe, machine):
        raise error
    chosen = recipe.model
    facts = facts or model.inspect(chosen.source, chosen.revision, chosen.remote_code)
    model_adapter.check_adapter(recipe)
    try:
        rows = rows or dataset.inspect(recipe.dataset)
        model.check_template(facts, rows.detection.format)
        counted = rows.train_rows if rows.train_rows is not None else rows.rows
        for _, error in training.problems(recipe, machine, facts, counted, rows.evaluation_rows):
            raise error
        if counted is not None and rows.rows_exact:
            tell(training.plan(recipe, counted))
    except FinetuiError as error:
        if error.code != "dataset-slow":  # a slow hub is the worker's to wait for
            raise
    if said := export_budget.memory_before_training(recipe, machine, facts):
        warn(said)
    return pinned(recipe, facts)


def pinned(recipe: Recipe, facts: ModelFacts) -> Recipe:
    """`recipe` with the commit of its hub model in place of a branch, a tag or nothing: a resume, an export or the same
    recipe next month has the same base, whatever the hub's owner does meanwhile."""
    if facts.kind != "hub" or not facts.revision:
        return recipe
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"revision": facts.revision})})
