"""Help: the focused field explained in full, and every key that works now, made from the bindings."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from ..widgets.text import literal

GROUPS = {"app": "Everywhere", "step": "On this step", "choice": "In a choice", "checklist": "In a checklist"}
LEFT_OUT = ("rail",)


def key_rows(screen: Screen[Any]) -> dict[str, list[tuple[str, str]]]:
    """Keys and what they do, by group, of what has the focus on `screen` and all around it."""
    found: dict[str, dict[str, tuple[list[str], str]]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        if not binding.description or not binding.id or not active.enabled:
            continue
        prefix = binding.id.split(".")[0]
        if prefix in LEFT_OUT:
            continue
        group = GROUPS.get(prefix, "Here")
        words = binding.tooltip or binding.description
        keys, _ = found.setdefault(group, {}).setdefault(binding.action, ([], words))
        key = screen.app.get_key_display(binding)
        if key not in keys:
            keys.append(key)
    return {
        group: [(" ".join(keys), words) for keys, words in rows.values()] for group, rows in found.items()
    }


class HelpModal(ModalScreen[None]):
    """Explanation and keys of the screen below."""

    CSS_PATH = "modal.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1", "close", "Close", id="help.close"),
        Binding("down,j", "scroll(1)", "Down", show=False, id="help.down"),
        Binding("up,k", "scroll(-1)", "Up", show=False, id="help.up"),
        Binding("pagedown,space", "scroll(10)", "Page down", show=False, id="help.pagedown"),
        Binding("pageup", "scroll(-10)", "Page up", show=False, id="help.pageup"),
    ]

    def __init__(self, below: Screen[Any]) -> None:
        super().__init__()
        self._keys = key_rows(below)
        explain = getattr(below, "explain_content", None)
        self._explanation: Content | None = explain() if explain is not None else None

    def compose(self) -> ComposeResult:
        parts: list[Content] = [self._explanation] if self._explanation is not None else []
        for group in sorted(self._keys, key=lambda name: (name == "Everywhere", name)):
            rows = [Content.assemble((group, "bold $accent"))]
            for keys, words in self._keys[group]:
                rows.append(
                    Content.assemble((literal(keys).ljust(12) + " ", "bold"), (literal(words), "$text-muted"))
                )
            parts.append(Content("\n").join(rows))
        parts.append(
            Content.assemble(
                (
                    "Every action is also in the palette (Ctrl+P). The mouse works too. Esc closes.",
                    "$text-muted",
                )
            )
        )
        with Vertical(classes="modal-box"), VerticalScroll(classes="modal-scroll"):
            yield Static(Content("\n\n").join(parts), markup=False)

    def action_close(self) -> None:
        self.dismiss(None)

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)
