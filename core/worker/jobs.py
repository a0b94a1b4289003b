"""The jobs of a worker, stage by stage: train (or go on from a checkpoint), and export."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from .. import export as export_step
from .. import export_record, proof_file, recipe_file, system_prompt, text
from ..errors import FinetuiError
from ..recipe import Recipe
from ..runs import checkpoints, chosen, manifest
from ..runs.chosen import Chosen
from ..runs.event_log import read_all
from ..runs.events import DatasetReady, Event, ModelReady, Progress, Proved, Warned
from ..runs.store import RunFolder
from . import adapter, environment
from .control import Control, Stopped
from .events import EventWriter

JobName = Literal["train", "resume", "probe", "export", "verify"]


@dataclasses.dataclass
class Job:
    """One job on one run, with what every stage needs."""

    run: RunFolder
    writer: EventWriter
    control: Control
    recipe: Recipe | None = None

    def read_recipe(self) -> Recipe:
        self.recipe = recipe_file.load(self.run.recipe)
        return self.recipe

    def _begin(self) -> Recipe:
        recipe = self.recipe or self.read_recipe()
        self.writer.progress("start", text="importing Unsloth")
        environment.import_unsloth()
        from . import model

        model.refuse_impossible(recipe)
        self.control.check()
        return recipe

    def train(self, resume: bool) -> None:
        """The whole way from the recipe to the exports. Raises Stopped where the person ended it."""
        recipe = self._begin()
        from . import dataset, export, machine, model, score

        monitor = machine.Monitor(self.writer, self.run.path).start()
        try:
            start_from = self._checkpoint() if resume else None
            loaded = model.load(
                recipe, self.writer, self.control.check, go_on_from_adapter=start_from is None
            )
            if start_from is not None:
                self._same_base(loaded.ready.revision)
            self.writer.emit(loaded.ready)
            self.control.check()
            prepared = dataset.prepare(recipe, loaded.tokenizer, self.writer, self.control.check)
            if start_from is not None:
                self._same_data(prepared.ready.fingerprint)
            self.writer.emit(prepared.ready)
            if start_from is None:
                model.refuse_impossible(recipe, None, prepared.ready.rows, prepared.ready.evaluation_rows)
            self.control.check()
            export.prepare_tools(recipe, self._tell, check=self.control.check)
            stopped = self._loop(recipe, loaded, prepared, start_from)
            if not stopped and score.wanted(recipe, prepared.evaluation_conversations):
                self.writer.emit(
                    score.score(
                        loaded.model,
                        loaded.tokenizer,
                        recipe,
                        prepared.evaluation_conversations,
                        self.writer,
                        self.control,
                    )
                )
            if stopped:
                raise Stopped
            monitor.exporting()
            self._export_result(recipe, loaded)
        finally:
            monitor.close()

    def _export_result(self, recipe: Recipe, loaded: Any) -> None:
        """The exports that the recipe asks for at the end of a training. Those of an earlier end are replaced, and that is
        said."""
        self.control.check()
        weights = chosen.choose(self.run, recipe, chosen.parse(recipe.export.checkpoint))
        learned = export_record.learned_print(weights.folder)
        old = [
            e
            for e in export_record.there(self.run, recipe.export.formats, learned, recipe.export.importance)
            if not e.same
        ]
        if old:
            named = ", ".join(f"{export_step.FORMATS[e.format].title} ({e.words})" for e in old)
            self.writer.emit(
                Warned(
                    "export-replaced",
                    f"The exports of an earlier training are replaced: {named}.",
                    "The run has learned more since.",
                )
            )
        if weights.note:
            self.writer.emit(
                Warned("export-weights", f"What is exported is of {weights.words}.", weights.note)
            )
        self._export(recipe, recipe.export.formats, weights, loaded, replace=bool(old))

    def _loop(self, recipe: Recipe, loaded: Any, prepared: Any, start_from: Any) -> bool:
        """Trains and saves the adapter. True where the person stopped it, which saves too; raises Stopped unsaved."""
        from . import longer, samples, training
        from .chat import Chat

        chat = Chat(loaded.tokenizer, recipe.model.max_length)
        system = system_prompt.of(recipe, prepared.ready)
        asked = samples.own_prompts(chat, recipe, system) + samples.prompts(
            chat, prepared.prompts, recipe.training.sample_count
        )
        sampler = samples.Sampler(loaded.model, loaded.tokenizer, asked, self.writer, self.control)
        trainer, reporter = training.build(
            loaded, prepared, recipe, self.run, self.writer, self.control, sampler
        )
        self._secure(trainer, recipe, loaded)
        longer.restart(trainer, recipe, self.run)
        if start_from is None:
            self.writer.progress("baseline", 0, len(asked), "prompts")
            sampler.write(0)
            self.control.check()
        result = training.train(trainer, reporter, recipe, start_from)
        if result.outcome == "stop-now":
            raise Stopped
        self.writer.progress("save", 0, 1, "adapter")
        reporter.saving.insist(
            lambda: adapter.save(loaded.model, loaded.tokenizer, recipe, self.run), self.control, result.step
        )
        self.writer.progress("save", 1, 1, "adapter")
        if recipe.export.prove:
            self._keep_answers(recipe, loaded, prepared)
        return result.outcome == "stop"

    def _secure(self, trainer: Any, recipe: Recipe, loaded: Any, *, alone: bool = False) -> None:
        """Before the first step the longest batch is tried, and memory that runs out later ends nothing."""
        from .ladder import Ladder
        from .probe import Probe

        ladder = Ladder(trainer, recipe, self.run, self.writer).hold()
        parameters = loaded.ready.parameters
        Probe(trainer, ladder, self.control, self.writer, alone=alone, parameters=parameters).hold()

    def probe(self) -> None:
        """Tries the longest batch of the recipe and no more. Raises FinetuiError where it does not fit in any form."""
        recipe = self._begin()
        from . import dataset, model, probe, training
        from .samples import Sampler

        loaded = model.load(recipe, self.writer, self.control.check)
        self.writer.emit(loaded.ready)
        prepared = dataset.prepare(recipe, loaded.tokenizer, self.writer, self.control.check)
        self.writer.emit(prepared.ready)
        sampler = Sampler(loaded.model, loaded.tokenizer, (), self.writer, self.control)
        trainer, reporter = training.build(
            loaded, prepared, recipe, self.run, self.writer, self.control, sampler
        )
        self._secure(trainer, recipe, loaded, alone=True)
        with contextlib.suppress(probe.Done):
            training.train(trainer, reporter, recipe, None)

    def _keep_answers(self, recipe: Recipe, loaded: Any, prepared: Any) -> None:
        """What the trained model answers now, for the proof of what is exported from it."""
        from . import proof

        self.writer.progress("save", text="the trained model's answers, to prove exports by")
        reference = proof.ask(loaded.model, loaded.tokenizer, recipe, prepared.prompts, self.control.ending)
        try:
            if reference is not None:
                learned = export_record.learned_print(chosen.result_folder(recipe, self.run))
                proof_file.save_reference(self.run, dataclasses.replace(reference, learned=learned))
        except (
            OSError
        ) as error:  # what was learned is saved; only the proof will have nothing to compare with
            self._unproved(error)

    def _same_data(self, fingerprint: str) -> None:
        """Refuses to go on over other rows than before, unless the person said that it may. Raises FinetuiError."""
        told = [r.event.fingerprint for r in read_all(self.run.events) if isinstance(r.event, DatasetReady)]
        if told and told[-1] and told[-1] != fingerprint:
            self._changed_since(
                "data-changed",
                "The rows have changed since this run began.",
                "They are not the ones that its checkpoint learned from.",
                "rows",
            )

    def _same_base(self, revision: str) -> None:
        """Refuses to go on from another base model than before, as for the rows. Raises FinetuiError."""
        told = [r.event.revision for r in read_all(self.run.events) if isinstance(r.event, ModelReady)]
        if told and told[-1] and told[-1] != revision:
            self._changed_since(
                "base-changed",
                "The base model has changed since this run began.",
                f"It was {told[-1][:12]} on the hub and is {text.one_line(revision[:12]) or 'a folder'} now.",
                "model",
            )

    def _changed_since(self, code: str, what: str, why: str, name: str) -> None:
        started = manifest.read(self.run)
        if started is not None and started.anyway:
            self.writer.emit(Warned(code, what, why, f"It goes on with the new {name}."))
            return
        raise FinetuiError(
            what,
            f"{why} Going on would mix the two, and its curve would not be that of one training.",
            f"Put the old {name} back, or: finetui resume {self.run.id} --anyway",
            code=code,
        )

    def _checkpoint(self) -> Any:
        chosen, damaged = checkpoints.choose(self.run.checkpoints)
        for checkpoint, reason in damaged:
            self.writer.emit(
                Warned(
                    "checkpoint-damaged",
                    f"The checkpoint of step {checkpoints.step_of(checkpoint)} cannot be used.",
                    f"It is not whole: {reason}.",
                    f"The run goes on from step {checkpoints.step_of(chosen)}."
                    if chosen
                    else "No other is there, so the run starts again from step 0.",
                )
            )
        if chosen is None and not damaged:
            self.writer.emit(
                Warned(
                    "checkpoint-none",
                    "There is no checkpoint to go on from.",
                    "The run ended before its first one.",
                    "It starts again from step 0.",
                )
            )
        checkpoints.discard([checkpoint for checkpoint, _reason in damaged])
        return chosen

    def export(
        self,
        formats: Sequence[str],
        checkpoint: str | None = None,
        replace: bool = False,
        importance: bool | None = None,
    ) -> None:
        """Exports what the run learned. The model is loaded only where an export or its proof needs it."""
        recipe = export_step.with_importance(self.recipe or self.read_recipe(), importance)
        environment.prepare()
        weights = chosen.choose(self.run, recipe, chosen.parse(checkpoint or recipe.export.checkpoint))
        if weights.note:
            self.writer.emit(
                Warned("export-weights", f"What is exported is of {weights.words}.", weights.note)
            )
        self._export(recipe, tuple(formats) or recipe.export.formats, weights, replace=replace)

    def verify(self, formats: Sequence[str]) -> None:
        """Proves the run's exports, all that stand there where none is named. Raises FinetuiError (proof-…)."""
        recipe = self.recipe or self.read_recipe()
        environment.prepare()
        there = [name for name in export_step.FORMATS if (self.run.exports / name).is_dir()]
        wanted = tuple(formats) or tuple(there)
        if not wanted:
            raise FinetuiError(
                "The run has no export yet.",
                "There is nothing to verify.",
                f"Make one: finetui export {self.run.id} --format merged",
                code="proof-no-export",
            )
        from . import base_weights

        base = base_weights.folder(recipe)
        for index, format in enumerate(wanted):
            self._prove(recipe, format, base, index, len(wanted))

    def _prove(self, recipe: Recipe, format: str, base: Path, index: int, total: int) -> None:
        from . import proof

        def tell(text: str) -> None:
            self.writer.progress("export", index, total, "proofs", f"proving {text}")

        found = proof.of_run(self.run, recipe, base, format, check=self.control.check, tell=tell)
        failed = tuple(check.sentence for check in found.checks if not check.passed)
        self.writer.emit(
            Proved(
                found.format,
                found.verdict,
                found.sentence,
                found.consumer,
                found.agreement,
                found.gap,
                failed,
                found.seconds,
            )
        )

    def _export(
        self,
        recipe: Recipe,
        formats: Sequence[str],
        weights: Chosen,
        loaded: Any = None,
        *,
        replace: bool = False,
    ) -> None:
        from . import base_weights, export

        self.control.check()
        base = loaded.folder if loaded else base_weights.folder(recipe)
        self.writer.progress("export", text=f"exporting {weights.words}")
        prove = recipe.export.prove and proof_file.load_reference(self.run) is not None
        if prove and not weights.result:
            prove = self._keep_answers_of(weights, recipe, loaded)
        done = export.export(
            loaded.model if loaded else None,
            loaded.tokenizer if loaded else None,
            recipe,
            self.run,
            formats,
            self._tell,
            base=base,
            weights=weights,
            replace=replace,
            check=self.control.check,
        )
        if prove:
            # They are whole; one whose proof cannot be made or kept does not fail the run.
            for index, exported in enumerate(done):
                if exported.kept and proof_file.load(self.run.exports / exported.format) is not None:
                    continue
                try:
                    self._prove(recipe, exported.format, base, index, len(done))
                except FinetuiError as error:
                    self.writer.emit(Warned(error.code, error.what, error.why, error.fix))
                except OSError as error:
                    self._unproved(error)

    def _keep_answers_of(self, weights: Chosen, recipe: Recipe, loaded: Any) -> bool:
        """What the model of a checkpoint answers to the prompts that the run's own was asked, to prove its exports by. Loads
        the model where it is not. False where they cannot be had or kept."""
        from . import model, proof

        learned = export_record.learned_print(weights.folder)
        there = proof_file.load_reference(self.run, weights)
        if there is not None and there.learned == learned:
            return True
        own = proof_file.load_reference(self.run)
        if own is None:
            return False
        if loaded is None:
            self._begin()
            loaded = model.load(recipe, self.writer, self.control.check)
        adapter.load(loaded.model, weights.folder)
        self.writer.progress("save", text=f"the answers of step {weights.step}, to prove exports by")
        heard = proof.ask_again(loaded.model, loaded.tokenizer, own, self.control.ending)
        try:
            proof_file.save_reference(self.run, dataclasses.replace(heard, learned=learned), weights)
        except OSError as error:
            self._unproved(error)
            return False
        return True

    def _unproved(self, error: OSError) -> None:
        self.writer.emit(
            Warned(
                "proof-unwritten",
                "A proof could not be kept.",
                f"{error.filename or self.run.path}: {error.strerror or error}.",
                f"Free some space, then: finetui verify {self.run.id}",
            )
        )

    def _tell(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.writer.progress(event.stage, event.done, event.total, event.unit, event.text)
        else:
            self.writer.emit(event)
