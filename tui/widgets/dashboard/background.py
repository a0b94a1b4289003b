"""What the dashboard does off the event loop: looks a run's recipe and model up, resumes it, writes commands down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....core import atomic, recipe_file
from ....core.errors import FinetuiError
from ....core.export import FORMATS
from ....core.export_plan import Plan
from ....core.model_facts import ModelFacts
from ....core.outcome import Situation, memory_estimate
from ....core.recipe import ExportFormat, Recipe
from ....core.runs.events import Exported
from ....core.runs.store import RunFolder
from ....core.system import Machine
from .result import Use, commands_text


@dataclass(frozen=True)
class Known:
    """What is known of a run besides its events. None is not known."""

    recipe: Recipe | None = None
    facts: ModelFacts | None = None
    machine: Machine | None = None

    def predicted_bytes(self, longest_tokens: int) -> int | None:
        """The memory predicted for its training, whose longest row has `longest_tokens`."""
        if self.recipe is None:
            return None
        here = Situation(facts=self.facts, machine=self.machine, longest_tokens=longest_tokens)
        estimate = memory_estimate(self.recipe, here)
        return estimate.total_bytes if estimate is not None else None


def look_up(run: RunFolder) -> Known:
    """Reads the recipe and looks at the base model; what cannot be had stays unknown. Blocking."""
    from ....core import model, system

    try:
        recipe = recipe_file.load(run.recipe)
    except FinetuiError:
        return Known()
    try:
        chosen = recipe.model
        facts = model.inspect(chosen.source, chosen.revision, chosen.remote_code)
    except FinetuiError:
        return Known(recipe)
    return Known(recipe, facts, system.snapshot())


def plan_export(
    run: RunFolder,
    recipe: Recipe,
    formats: Sequence[ExportFormat],
    checkpoint: str | None,
    importance: bool | None = None,
) -> Plan:
    """What an export would do. Raises FinetuiError. Blocking."""
    from ....core import export_plan

    return export_plan.plan(run, recipe, formats, checkpoint, importance=importance)


def export(
    run: RunFolder,
    formats: Sequence[str],
    checkpoint: str | None,
    importance: bool | None = None,
    *,
    replace: bool,
) -> None:
    """Starts the export of `formats`. Raises FinetuiError. Blocking."""
    from ....core.runs import launch

    launch.start(run, "export", formats, options=launch.export_options(checkpoint, replace, importance))


def copy_commands(run: RunFolder, ways: Sequence[Use]) -> str:
    """Writes the commands to a file in the run's folder. Returns what to say, with its path. Blocking."""
    target = run.exports / "commands.sh"
    try:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        atomic.write_text(target, commands_text(run, ways))
    except OSError as error:
        return f"Copied to the clipboard; {target} could not be written: {error.strerror or error}."
    return f"Copied to the clipboard where the terminal allows it; also in {target}"


def ordered(exports: Iterable[Exported]) -> list[Exported]:
    """Exports in the order of the formats; unknown formats last."""
    order = list(FORMATS)
    return sorted(
        exports, key=lambda e: (order.index(e.format) if e.format in order else len(order), e.format)
    )


def disk_free_bytes(folder: Path) -> int | None:
    """Free space where `folder` stands. Blocking."""
    from ....core import system

    return system.disk_free_bytes(folder)


def step_to_fix(code: str) -> str:
    """The step of the wizard whose settings can mend a failure of this code."""
    if code.startswith(("dataset", "recipe")):
        return "dataset"
    if code.startswith(("model", "hub", "demo", "precision", "tokenizer", "no-chat")):
        return "model"
    if code.startswith(("export", "gguf", "merge", "llama-cpp")):
        return "export"
    return "training"
