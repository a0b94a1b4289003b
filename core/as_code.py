"""A draft as what it is without the wizard: the recipe's YAML, and the plain Unsloth script. Finished or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import recipe_file, script, script_look
from .draft import Draft
from .fields import fields
from .recipe import Recipe
from .script_file import Script
from .script_text import comment, file_stem
from .text import one_line


@dataclass(frozen=True)
class AsCode:
    """A draft as code. The script and the notebook are made when they are asked for: rows are read for them."""

    recipe: Recipe
    """With paths made absolute, and with the default where a value is wrong."""
    yaml: str
    missing: tuple[str, ...]
    """What is wrong still, in sentences. The YAML holds it as it was typed, the script has defaults there."""

    @property
    def yaml_name(self) -> str:
        return f"{self.recipe.name}.yaml"

    @property
    def script_name(self) -> str:
        return f"{file_stem(self.recipe.name)}.py"

    def script(self, notebook: bool = False) -> tuple[Script, str]:
        """What `finetui script` makes of the recipe, and why its rows could not be looked at, if so. Blocking."""
        seen = script_look.look(self.recipe.dataset)
        return script.make(self.recipe, seen, notebook), seen.problem

    def text(self, made: Script, notebook: bool = False) -> str:
        """The contents of the file: where something is missing, a script begins with what."""
        if notebook:
            return made.notebook()
        return self._said() + made.text

    def _said(self) -> str:
        if not self.missing:
            return ""
        return "".join(f"{comment(f'Not finished: {one}')}\n" for one in self.missing) + "\n"


def of_draft(draft: Draft, problems: Mapping[str, str], *bases: Path) -> AsCode:
    """`draft` as code. `problems` are sentences by field path, of the draft and of its name. Relative paths are looked
    for under the `bases`, then in the working folder (`runs.launch.resolved`)."""
    from .runs import launch

    whole = Draft()
    whole.name = draft.name
    for spec in fields():
        if spec.path not in draft.problems:
            whole.set(spec.path, draft[spec.path])
    recipe = launch.resolved(whole.recipe(), *bases)
    data = recipe.model_dump(mode="json")
    missing: list[str] = []
    for path, problem in problems.items():
        section, _, name = path.partition(".")
        if path in draft.problems:
            value = draft[path]
            data[section][name] = list(value) if isinstance(value, tuple) else value
        instead = "the name before it" if path == "name" else "its default"
        missing.append(f"{one_line(problem, 300)} The script takes {instead}.")
    made = AsCode(recipe, "", tuple(missing))
    return AsCode(recipe, made._said() + recipe_file.written(data), tuple(missing))
