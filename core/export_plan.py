"""What an export of a run would do, before it does it: whose weights, what stands there already, what it takes. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import export, export_budget, export_record, model, refusals_export, system
from .errors import FinetuiError
from .export_budget import Budget
from .export_record import There
from .model_facts import ModelFacts
from .quantizations import LOSS_SOURCE
from .recipe import ExportFormat, Recipe
from .runs import chosen
from .runs.chosen import Chosen
from .runs.store import RunFolder
from .system import Gpu


@dataclass(frozen=True)
class Plan:
    """An export of `run` that has not begun. Free bytes are None where they are not known."""

    run: RunFolder
    formats: tuple[ExportFormat, ...]
    weights: Chosen
    there: tuple[There, ...]
    budget: Budget
    free_disk_bytes: int | None
    free_ram_bytes: int | None
    gpu: Gpu | None = None
    """The freest of the machine; None where it has none."""

    @property
    def replaced(self) -> tuple[There, ...]:
        """What stands there and is of other weights: it would have to go."""
        return tuple(one for one in self.there if not one.same)

    @property
    def no_space(self) -> FinetuiError | None:
        """The card for a disk that will not hold it."""
        titles = ", ".join(export.FORMATS[format].title for format in self.formats)
        return export_budget.too_little_space(
            self.budget.disk_bytes,
            self.free_disk_bytes,
            self.run.exports,
            titles,
            f"Free some space, or take fewer formats: finetui export {self.run.id} --dry-run shows what each takes.",
        )

    @property
    def warning(self) -> str:
        """Sentences where memory, or disk for the proof, is short; nothing where they are not."""
        memory = export_budget.too_little_memory(self.budget, self.free_ram_bytes)
        disk = export_budget.too_little_to_prove(self.budget, self.free_disk_bytes)
        return f"{memory} {disk}".strip()

    def needs_replace(self) -> FinetuiError:
        """The card for exports that would be overwritten."""
        named = ", ".join(f"{export.FORMATS[one.format].title} ({one.words})" for one in self.replaced)
        several = len(self.replaced) > 1
        return FinetuiError(
            f"{'Exports are' if several else 'An export is'} there already, of other weights: {named}.",
            f"What would be exported now is of {self.weights.words}. {'They were' if several else 'It was'} left alone.",
            f"Replace {'them' if several else 'it'} with --replace.",
            code="export-there",
        )

    def table(self) -> dict[str, Any]:
        """All of it as plain values, for programs."""
        return {
            "run": self.run.id,
            "weights": {
                "step": self.weights.step,
                "result": self.weights.result,
                "held_out_loss": self.weights.loss,
                "note": self.weights.note,
            },
            "formats": [
                {
                    "format": need.format,
                    "disk_bytes": need.disk_bytes,
                    "ram_bytes": need.ram_bytes,
                    "proof_ram_bytes": need.proof_ram_bytes,
                    "proof_gpu_bytes": need.proof_gpu_bytes,
                    "loss": export.FORMATS[need.format].loss,
                    "there": next((one.words for one in self.there if one.format == need.format), None),
                    "kept": need.there,
                }
                for need in self.budget.needs
            ],
            "loss_source": LOSS_SOURCE,
            "on_the_way": list(self.budget.shared),
            "on_the_way_bytes": self.budget.shared_bytes,
            "disk_bytes": self.budget.disk_bytes,
            "proof_disk_bytes": self.budget.proof_disk_bytes,
            "free_disk_bytes": self.free_disk_bytes,
            "ram_bytes": self.budget.ram_bytes,
            "proof_ram_bytes": self.budget.proof_ram_bytes,
            "free_ram_bytes": self.free_ram_bytes,
            "proof_gpu_bytes": self.budget.proof_gpu_bytes,
            "free_gpu_bytes": self.gpu.free_bytes if self.gpu is not None else None,
            "fits": self.no_space is None,
            "warning": self.warning,
        }


def plan(
    run: RunFolder,
    recipe: Recipe,
    formats: Sequence[ExportFormat],
    checkpoint: str | None = None,
    *,
    replace: bool = False,
    importance: bool | None = None,
) -> Plan:
    """What an export of `formats` would do. `importance` is the recipe's unless told. Reads events, headers and, where exports stand there, the weights. Blocking.

    Raises FinetuiError: export-nothing, export-checkpoint, run-folder, and those of `refusals_export`.
    """
    recipe = export.with_importance(recipe, importance)
    weights = chosen.choose(run, recipe, chosen.parse(checkpoint or recipe.export.checkpoint))
    standing: tuple[ExportFormat, ...] = tuple(
        format for format in formats if (run.exports / format).exists()
    )
    try:
        learned = export_record.learned_print(weights.folder) if standing else ""
        there = export_record.there(run, standing, learned, recipe.export.importance)
    except OSError as error:
        raise FinetuiError(
            "What the run learned cannot be read.",
            f"{error.filename or weights.folder}: {error.strerror or error}.",
            "Check the disk and who owns the folder.",
            code="run-folder",
        ) from error
    kept: tuple[ExportFormat, ...] = () if replace else tuple(one.format for one in there if one.same)
    facts, machine = _facts(recipe), system.snapshot(run.path)
    making = recipe.export.model_copy(update={"formats": tuple(f for f in formats if f not in kept)})
    refused = refusals_export.of_export(recipe.model_copy(update={"export": making}), machine, facts)
    if refused:
        raise refused[0]
    return Plan(
        run,
        tuple(formats),
        weights,
        there,
        export_budget.of_facts(recipe, facts, formats, there=kept),
        machine.disk_free_bytes,
        machine.memory_available_bytes,
        machine.freest_gpu,
    )


def _facts(recipe: Recipe) -> ModelFacts | None:
    """What is known of the base model; None where it cannot be looked at, as without the network."""
    try:
        return model.inspect(recipe.model.source, recipe.model.revision, recipe.model.remote_code)
    except FinetuiError:
        return None
