"""The model step: what is tuned."""

from __future__ import annotations

from textual.app import ComposeResult

from ...core.model_catalog import CATALOG
from ...core.recipe import DEMO
from ...core.text import bytes_words, count_words
from ..widgets.facts import Facts
from ..widgets.source import SourceKind
from .source_step import SourceStepScreen


class ModelScreen(SourceStepScreen):
    """The demo, a suggested model, a folder or a hub id, with what is known of it."""

    CSS_PATH = ["step.tcss", "model.tcss"]
    step = "model"
    tagline = "what you start from"
    source_path = "model.source"
    source_title = "Model"
    basic = ("model.precision", "model.max_length")
    hidden = ("model.source",)

    def kinds(self) -> tuple[SourceKind, ...]:
        ids = tuple(one.id for one in CATALOG)
        titles = {one.id: one.title for one in CATALOG}
        return (
            SourceKind("demo", "Demo", words="SmolLM2 135M, comes with finetui", value=DEMO),
            SourceKind("suggested", "Suggested", choices=ids, labels=titles),
            SourceKind(
                "folder", "Folder", placeholder="type a folder's path, or press F2 to browse", browse="folder"
            ),
            SourceKind("hub", "Hub", placeholder="type an id such as Qwen/Qwen3-0.6B"),
        )

    def kind_of(self, source: str) -> str:
        if source == DEMO:
            return "demo"
        if any(source == one.id for one in CATALOG):
            return "suggested"
        return "folder" if source.startswith(("/", ".", "~")) or source.count("/") != 1 else "hub"

    def compose_after(self) -> ComposeResult:
        yield Facts(id="facts")

    def refresh_facts(self) -> None:
        wizard, box = self.wizard, self.query_one("#facts", Facts)
        chosen = next((one for one in CATALOG if one.id == self.picker.value), None)
        if chosen is not None:
            self.picker.note(chosen.good_at)
        if wizard.problem("model.source"):
            box.show_nothing()
        elif (trouble := wizard.trouble("model")) is not None:
            box.show_error(trouble)
        elif wizard.model_busy or wizard.model_facts is None:
            box.show_busy(f"Looking at {wizard.value('model.source')} …")
        else:
            facts = wizard.model_facts
            name = facts.architecture.removesuffix("ForCausalLM").removesuffix("ForConditionalGeneration")
            figures = [
                f"{count_words(facts.parameters)} weights" if facts.parameters else "",
                name,
                f"{facts.context_length:,} context" if facts.context_length else "",
                facts.license[:1].upper() + facts.license[1:],
            ]
            size = bytes_words(facts.weights_bytes) if facts.weights_bytes else ""
            if facts.kind == "hub":
                more = (
                    f"{size}, already downloaded"
                    if facts.cached
                    else f"{size or 'its weights'} will be downloaded"
                )
            else:
                more = f"{size}, nothing to download" if size else ""
            box.show_found(facts.title, [figure for figure in figures if figure], [more], self._warning())

    def _warning(self) -> str:
        """What is likely to go wrong with these choices."""
        facts, length = self.wizard.model_facts, self.wizard.value("model.max_length")
        machine = self.wizard.machine
        if self.wizard.value("model.precision") == "4bit" and machine is not None and not machine.has_gpu:
            return "4-bit needs an NVIDIA GPU, and none was found here. Take 16-bit."
        if facts is None:
            return ""
        if facts.chat_template is False and self.wizard.format != "text":
            return "A base model, without a chat template: it learns from plain writing only."
        if facts.context_length and isinstance(length, int) and length > facts.context_length:
            return f"Longer than the {facts.context_length:,} tokens that this model was made for."
        return ""
