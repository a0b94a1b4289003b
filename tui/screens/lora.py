"""The LoRA step: how much the adapter can change."""

from __future__ import annotations

from ...core import lora
from ...core.recipe import LoraSection
from ...core.text import bytes_words, count_words
from .settings import SettingsScreen


class LoraScreen(SettingsScreen):
    """Rank, alpha and layers, with what they weigh on the chosen model."""

    step = "lora"
    tagline = "what learns: a small adapter"
    basic = ("lora.rank", "lora.alpha", "lora.target_modules")

    def _section(self) -> LoraSection | None:
        recipe = self.wizard.recipe()
        return recipe.lora if recipe is not None else None

    def notes(self) -> dict[str, str]:
        section, facts = self._section(), self.wizard.model_facts
        if section is None:
            return {}
        weights = lora.adapter_weights(facts, section) if facts else None
        if section.method == "full":
            all_words = f"{count_words(weights)} weights" if weights else "every weight"
            return {"lora.method": all_words, "lora.rank": "no effect", "lora.alpha": "no effect"}
        notes = {"lora.method": " ", "lora.alpha": f"scale {lora.scale(section):.3g}"}
        if weights:
            share = (
                f" ({weights / facts.parameters:.1%})".replace("%", " %")
                if facts and facts.parameters
                else ""
            )
            notes["lora.rank"] = f"{count_words(weights)} weights{share}"
        return notes

    def fact(self, path: str) -> str:
        section, facts = self._section(), self.wizard.model_facts
        if section is None:
            return ""
        if path == "lora.alpha":
            return f"Scale here: {lora.scale(section):.3g}."
        weights = lora.adapter_weights(facts, section) if facts else None
        if facts and weights and path in ("lora.rank", "lora.target_modules"):
            size = bytes_words(lora.saved_bytes(facts, section) or 0)
            return f"Here: {count_words(weights)} trainable weights, a file of {size}."
        return ""
