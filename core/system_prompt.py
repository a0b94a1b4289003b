"""The system prompt that a run was trained with, said alike by talks, exports, cards and commands. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from . import proof_file, recipe_file
from .conversation import Turns
from .recipe import Recipe
from .runs import event_log
from .runs.events import DatasetReady
from .runs.store import RunFolder

_LONGEST: Final = 32_768
"""Characters. What is longer is data, and no command line takes it."""


def shared(conversations: Iterable[Turns]) -> str:
    """The system prompt that all of `conversations` have; empty where one has another, or none."""
    first = ""
    for turns in conversations:
        own = turns[0].text if len(turns) and turns[0].role == "system" else ""
        if not own or (first and own != first):
            return ""
        first = own
    return first if len(first) <= _LONGEST else ""


def of(recipe: Recipe, ready: DatasetReady | None) -> str:
    """The prompt that all rows were trained with; where they had several, the recipe's, which those without got."""
    if ready is not None and ready.system_prompt:
        return ready.system_prompt
    return "" if recipe.dataset.system_mode == "none" else recipe.dataset.system_prompt or ""


def of_run(run: RunFolder, recipe: Recipe) -> str:
    """As `of`, from the run's files. A run whose events do not tell has the prompt that its held-out prompts share. Blocking."""
    told = [r.event for r in event_log.read_all(run.events) if isinstance(r.event, DatasetReady)]
    ready = told[-1] if told else None
    found = of(recipe, ready)
    if found or (ready is not None and ready.system_prompt is not None):
        return found
    reference = proof_file.load_reference(run)
    asked = [prompt.messages for prompt in reference.prompts] if reference is not None else []
    systems = {said[0][1] if said and said[0][0] == "system" else "" for said in asked}
    return systems.pop() if len(systems) == 1 else ""


def trained(run: RunFolder) -> Recipe:
    """The run's recipe with that prompt. Raises RecipeError."""
    recipe = recipe_file.load(run.recipe)
    return put_in(recipe, of_run(run, recipe))


def put_in(recipe: Recipe, prompt: str) -> Recipe:
    """`recipe` with `prompt`, which is that of the training, in the place of its own: the rows stay what they were."""
    if prompt == (recipe.dataset.system_prompt or ""):
        return recipe
    mode = "replace" if prompt else recipe.dataset.system_mode
    changed = {"system_prompt": prompt or None, "system_mode": mode}
    return recipe.model_copy(update={"dataset": recipe.dataset.model_copy(update=changed)})
