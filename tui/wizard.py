"""What the wizard's screens share: the draft, and what is known of the model, the dataset and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..core import training
from ..core.draft import Draft
from ..core.errors import FinetuiError
from ..core.fields import FieldSpec
from ..core.fields import field as declared
from ..core.fields import fields as declared_fields
from ..core.history import Change, History
from ..core.recipe import DEMO, STEPS, Recipe
from ..core.recipe_lora import FUSED_MODULES
from ..core.text import counted
from .inspecting import Inspection

if TYPE_CHECKING:
    from ..core.dataset import DatasetFacts
    from ..core.lengths import Lengths
    from ..core.memory import MemoryEstimate
    from ..core.model import ModelFacts
    from ..core.outcome import Outcome, Situation
    from ..core.pace import Pace
    from ..core.runs.lineage import Origin
    from ..core.system import Machine
    from ..core.training import Plan
    from .widgets.models.rows import Browsing

STEP_NAMES = {
    "model": "Model",
    "dataset": "Dataset",
    "lora": "LoRA",
    "training": "Training",
    "export": "Export",
}

NAME = FieldSpec(
    path="name",
    title="Name",
    help="what the run and the exported model are called",
    explain="The run's folder, the exported files and the Ollama model carry this name. Letters, digits, dots, hyphens and "
    "underscores.",
    unit="",
    advanced=False,
    kind="text",
    default="my-model",
    optional=False,
)
"""The recipe's name, as a field of the form; it belongs to no step."""

TOKENS_PER_CHARACTER = 0.27
"""English text, most tokenizers: about 3.7 characters a token. Used only where nothing has been tokenized yet."""


@dataclass
class Wizard:
    """The state behind the five screens."""

    draft: Draft = field(default_factory=Draft)
    origin: Origin | None = None
    """The run that the draft began as, where it did as one."""
    model_facts: ModelFacts | None = None
    model_error: FinetuiError | None = None
    model_busy: bool = False
    dataset_facts: DatasetFacts | None = None
    dataset_error: FinetuiError | None = None
    dataset_busy: bool = False
    inspection: Inspection = field(default_factory=Inspection)
    """The dataset read as the trainer will."""
    machine: Machine | None = None
    name_problem: str | None = None
    typed_name: str | None = None
    visited: set[str] = field(default_factory=set)
    focused: dict[str, str] = field(default_factory=dict)
    """The field that had the focus on each step, for coming back."""
    unfolded: set[str] = field(default_factory=set)
    """Steps whose advanced fields are open."""
    sources: dict[tuple[str, str], str] = field(default_factory=dict)
    """What was typed for each (step, kind of source), so that trying another kind loses nothing."""
    kinds: dict[str, str] = field(default_factory=dict)
    """The kind of source chosen on a step, where it cannot be told from the text alone."""

    history: History = field(default_factory=History)
    """What was done to the draft, to be undone."""
    said: str = ""
    """What was done last, such as an undoing, while the line at the bottom says it."""
    preset: tuple[str, dict[str, Any]] | None = None
    """The preset that was taken last, in words, and the values that it gave."""

    models: Browsing = field(default_factory=lambda: _browsing())
    """Where the model screen was, and what it found."""

    def value(self, path: str) -> Any:
        """The raw value at `path`; also for `name`."""
        if path == "name":
            return self.draft.name if self.typed_name is None else self.typed_name
        return self.draft[path]

    def set(self, path: str, value: Any) -> str | None:
        """Takes a raw value, as a change that can be undone. Returns what is wrong with it, or None."""
        before = self.value(path)
        wrong = self._put(path, value)
        self.history.note({path: before}, {path: self.value(path)})
        return wrong

    def apply(self, values: Mapping[str, Any], label: str) -> tuple[str, ...]:
        """Takes several raw values at once, as one change called `label`. Returns the paths that changed."""
        before = {path: self.value(path) for path in values}
        for path, value in values.items():
            self._put(path, value)
        after = {path: self.value(path) for path in values}
        self.history.note(before, after, label)
        return tuple(path for path in values if before[path] != after[path])

    def undo(self) -> Change | None:
        """Takes back the last change. Returns it, or None where there is none."""
        change = self.history.undo()
        if change is not None:
            self._restore(change.before)
        return change

    def redo(self) -> Change | None:
        """Makes the change again that was undone last. Returns it, or None where there is none."""
        change = self.history.redo()
        if change is not None:
            self._restore(change.after)
        return change

    def _restore(self, values: Mapping[str, Any]) -> None:
        for path, value in values.items():
            self._put(path, value)
            step, _, name = path.partition(".")
            if name == "source":  # the pickers show the draft's source again, not what was typed beside it
                self.kinds.pop(step, None)
                self.sources = {key: text for key, text in self.sources.items() if key[0] != step}

    def _put(self, path: str, value: Any) -> str | None:
        if path != "name":
            return self.draft.set(path, value)
        self.typed_name = str(value)
        try:
            self.draft.name = Recipe(name=str(value).strip()).name
            self.name_problem = None
        except ValidationError:
            self.name_problem = "takes 1 to 60 letters, digits, dots, hyphens and underscores, and starts with a letter or digit"
        return self.name_problem

    def problem(self, path: str) -> str | None:
        """What is wrong with the value at `path`."""
        return self.name_problem if path == "name" else self.draft.problems.get(path)

    def problems(self, step: str) -> list[tuple[str, str]]:
        """What is wrong on `step`: (path, sentence), in the order of the fields."""
        found = [(s.path, p) for s in declared_fields(step) if (p := self.draft.problems.get(s.path))]
        if step == "training" and self.name_problem:
            found.insert(0, ("name", self.name_problem))
        return found

    def sentence(self, path: str, problem: str) -> str:
        """A problem as a sentence that names its field."""
        title = NAME.title if path == "name" else declared(path).title
        return f"{title} {problem.rstrip('.')}."

    def changed(self, step: str) -> tuple[str, ...]:
        """The fields of `step` that differ from their defaults."""
        return tuple(p for p in self.draft.changed if p.startswith(step + "."))

    def recipe(self) -> Recipe | None:
        """The recipe, or None while something is wrong."""
        try:
            return self.draft.recipe()
        except FinetuiError:
            return None

    @property
    def is_demo(self) -> bool:
        return self.draft["model.source"] == DEMO and self.draft["dataset.source"] == DEMO

    def trouble(self, step: str) -> FinetuiError | None:
        """What was found wrong with what a step names: the model or the dataset cannot be used."""
        if step not in ("model", "dataset"):
            return None
        own = self.model_error if step == "model" else self.dataset_error or self.inspection.gate
        # Somebody who begins with a base model has not come to the rows yet: the demo's are then what does not fit.
        at_fault = "dataset" if self.draft["dataset.source"] == DEMO else "model"
        return own or (self.template_missing if step == at_fault else None)

    def refused(self) -> dict[str, FinetuiError]:
        """What cannot be trained as it is set, by field: on this machine, with this model, over these rows. It can be
        written down nevertheless, for another machine or other rows; only the start is refused."""
        recipe = self.recipe()
        if recipe is None or self.machine is None:
            return {}
        facts = None if self.model_busy else self.model_facts
        looked = self.dataset_facts if not self.dataset_busy else None
        rows = self.rows() if looked is not None else None
        held_out = looked.evaluation_rows if looked is not None else None
        found = training.problems(recipe, self.machine, facts, rows, held_out)
        return {path: next(error for place, error in found if place == path) for path, _ in found}

    @property
    def format(self) -> str | None:
        """The format of the rows, as set or as found; None while that is not known."""
        if self.draft["dataset.format"] != "auto":
            return str(self.draft["dataset.format"])
        known = self.dataset_facts is not None and not self.dataset_busy
        return self.dataset_facts.detection.format if known and self.dataset_facts else None

    @property
    def template_missing(self) -> FinetuiError | None:
        """The card for a model that knows no conversations, where the rows are such."""
        if self.model_facts is None or self.model_busy or self.format is None:
            return None
        return _template_missing(self.model_facts, self.format)

    # What the choices mean, in a few words.

    def summary(self, step: str) -> str:
        """What was chosen on `step`, for the rail."""
        d = self.draft
        if step == "model":
            if self.model_facts is not None:
                return self.model_facts.title
            return (
                "SmolLM2-135M-Instruct"
                if d["model.source"] == DEMO
                else str(d["model.source"]).rpartition("/")[2]
            )
        if step == "dataset":
            facts = self.dataset_facts
            title = (
                facts.title if facts else "demo" if d["dataset.source"] == DEMO else str(d["dataset.source"])
            )
            title = title.rpartition("/")[2]
            rows = self.rows()
            return f"{title} · {rows:,}" if rows else title
        if step == "lora":
            if d["lora.method"] == "full":
                return "full fine-tuning"
            modules = d["lora.target_modules"]
            whole = 4 if set(modules) & set(FUSED_MODULES) else 7
            layers = "all layers" if len(modules) == whole else f"{len(modules)} of {whole}"
            return f"r {d['lora.rank']} · {layers}"
        if step == "training":
            plan = self.plan()
            epochs, limit = d["training.epochs"], d["training.max_steps"]
            words = [counted(plan.steps, "step")] if plan else []
            if isinstance(epochs, (int, float)) and not (plan and plan.steps == limit):
                words.append(counted(epochs, "epoch"))
            return " · ".join(words)
        words = {"adapter": "adapter", "adapter_gguf": "adapter GGUF", "merged": "merged"}
        words |= {"merged_4bit": "merged 4-bit"}
        formats = [words.get(str(f)) or str(f).removeprefix("gguf_").upper() for f in d["export.formats"]]
        return ", ".join(formats)

    # Estimates. All are cheap; None is not known.

    def rows(self) -> int | None:
        """Rows that will be trained on: counted where all have been read, else as the first look has it."""
        ledger = self.inspection.complete
        return ledger.train_rows if ledger is not None else training_rows(self.dataset_facts)

    def plan(self) -> Plan | None:
        """The steps that the recipe takes over the rows found."""
        from ..core import training

        recipe, rows = self.recipe(), self.rows()
        if recipe is None or rows is None:
            return None
        return training.plan(recipe, rows)

    def tokens_per_row(self) -> float | None:
        """How many tokens a row has: on average where all have been read, else about."""
        ledger = self.inspection.complete
        if ledger is not None and ledger.train_rows:
            return ledger.tokens / ledger.train_rows
        facts = self.dataset_facts
        if facts is None or facts.mean_characters is None:
            return None
        return facts.mean_characters * TOKENS_PER_CHARACTER + 12

    def situation(self) -> Situation:
        """Model, rows and machine, as estimates and advice need them."""
        from ..core.outcome import Situation

        ledger, facts = self.inspection.complete, self.dataset_facts
        longest = p95 = learned = None
        held_out: int | None = facts.evaluation_rows if facts is not None else None
        if ledger is not None:
            longest, p95, learned = ledger.quantiles.most, ledger.quantiles.p95, ledger.trained_tokens
            held_out = ledger.evaluation_rows
        return Situation(
            facts=self.model_facts,
            machine=self.machine,
            rows=self.rows(),
            evaluation_rows=held_out,
            tokens_per_row=self.tokens_per_row(),
            p95_tokens=p95,
            longest_tokens=longest,
            learned_tokens=learned,
            format=self.format,
            lengths=self.lengths() if self.rows() is not None else None,
        )

    def outcome(self) -> Outcome | None:
        """Trainable weights, memory and time of the recipe; None while something is wrong."""
        from ..core import outcome

        recipe = self.recipe()
        return outcome.outcome(recipe, self.situation()) if recipe is not None else None

    def memory(self) -> MemoryEstimate | None:
        """The memory that training would take, on the GPU or the host."""
        from ..core import outcome

        recipe = self.recipe()
        return outcome.memory_estimate(recipe, self.situation()) if recipe is not None else None

    def lengths(self) -> Lengths | None:
        """The lengths of the training rows: counted where all have been read, else about; None without a recipe."""
        from ..core.lengths import Lengths

        recipe = self.recipe()
        if recipe is None:
            return None
        limit = recipe.model.max_length
        if self.inspection.complete is not None:
            return Lengths.from_ledger(self.inspection.complete, limit)
        facts = self.dataset_facts
        held_out = (facts.evaluation_rows if facts is not None else None) or 0
        tokens = self.tokens_per_row()
        if tokens is None:
            return Lengths.full(limit, self.rows(), held_out)
        return Lengths.about(tokens, limit, self.rows(), held_out)

    def pace(self) -> Pace | None:
        """How long training takes, without loading and export."""
        from ..core import memory_shape, pace

        recipe, lengths = self.recipe(), self.lengths()
        if recipe is None or lengths is None or self.rows() is None:
            return None
        if self.model_facts is None or self.machine is None:
            return None
        shape = memory_shape.from_facts(self.model_facts)
        return pace.predict(recipe, shape, self.machine, lengths) if shape is not None else None

    def seconds(self) -> tuple[float, float] | None:
        """How long training may take: a rough range."""
        from ..core import outcome

        recipe = self.recipe()
        return outcome.seconds(recipe, self.situation()) if recipe is not None else None


@lru_cache(maxsize=8)
def _template_missing(facts: ModelFacts, format: str) -> FinetuiError | None:
    """The same card each time it is asked for: the screens paint anew what is another one."""
    from ..core import model

    try:
        model.check_template(facts, format)
    except FinetuiError as error:
        return error
    return None


def _browsing() -> Browsing:
    from .widgets.models.rows import Browsing

    return Browsing()


def training_rows(facts: DatasetFacts | None) -> int | None:
    """Rows that will be trained on, held-out rows and the row limit taken off."""
    if facts is None:
        return None
    return facts.train_rows if facts.train_rows is not None else facts.rows


def following(step: str) -> str | None:
    """The step after `step`."""
    index = STEPS.index(step) + 1
    return STEPS[index] if index < len(STEPS) else None


def preceding(step: str) -> str | None:
    """The step before `step`."""
    index = STEPS.index(step) - 1
    return STEPS[index] if index >= 0 else None
