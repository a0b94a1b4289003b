"""The line at the bottom: the few actions that matter here, with help and quit always among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.reactive import reactive
from textual.screen import ActiveBinding, Screen
from textual.widget import Widget

from .text import literal

MOST = 6
"""Actions shown at most, help and quit among them."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """One action in the line. `start` and `end` are its columns; `inert` says that its key types a letter
    now."""

    active: ActiveBinding
    key: str
    description: str
    start: int = 0
    end: int = 0
    inert: bool = False


class Footer(Widget):
    """At most six of the screen's active bindings, in one line that never wraps.

        yield Footer(first=("next", "back", "fit"))

    Help and quit are the bindings whose ids are `help` and `quit` (or end in `.help`, `.quit`); they stand at
    the right and are the last to go: at 40 columns `? q` remains. The others are those with `show=True`:
    first the ids in `first`, then the rest in the order in which Textual finds them, from the focused widget
    outwards. Keys that a focused input would take as letters are left out; so give help and quit a second key
    (`Binding("question_mark,f1", …)`, `Binding("q,ctrl+q", …)`), which is shown then. A click runs the action
    itself, so it works while an input has the focus.
    """

    DEFAULT_CSS = """
    Footer { dock: bottom; height: 1; width: 100%; background: $surface; padding: 0 1; text-wrap: nowrap; }
    """
    ALLOW_SELECT = False
    can_focus = False

    hover: reactive[int] = reactive(-1)
    """The index of the action under the pointer, or −1."""

    def __init__(
        self,
        first: Sequence[str] = (),
        *,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """`first` are binding ids in the order of their importance."""
        super().__init__(name=name, id=id, classes=classes)
        self._first = tuple(first)
        self._shown: list[_Shown] = []

    def set_first(self, first: Sequence[str]) -> None:
        """Change which actions come first, as when a tab changes."""
        self._first = tuple(first)
        self.refresh()

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._bindings_changed)

    def on_unmount(self) -> None:
        self.screen.bindings_updated_signal.unsubscribe(self)

    def _bindings_changed(self, screen: Screen[object]) -> None:
        if self.is_attached and screen is self.screen:
            self.refresh()

    def render(self) -> Content:
        """The actions that fit."""
        width = self.content_size.width
        actions, fixed = self._choose()
        for words in (True, False):
            right = sum(self._cells(one, words) for one in fixed) + 2 * max(0, len(fixed) - 1)
            kept = list(actions)
            while kept and sum(self._cells(one, True) + 2 for one in kept) + right > width:
                kept.pop()
            if (
                len(kept) == len(actions)
                or (not words and (kept or right <= width))
                or (words and len(kept) >= 2)
            ):
                break
        self._shown = []
        runs: list[tuple[str, str]] = []
        at = 0
        for one in kept:
            at = self._add(runs, one, at, True)
            runs.append(("  ", ""))
            at += 2
        gap = max(0, width - at - right)
        runs.append((" " * gap, ""))
        at += gap
        for index, one in enumerate(fixed):
            if index:
                runs.append(("  ", ""))
                at += 2
            at = self._add(runs, one, at, words)
        return Content.assemble(*runs)

    def _choose(self) -> tuple[list[_Shown], list[_Shown]]:
        """The other actions by importance, and help and quit."""
        by_action: dict[tuple[object, str], ActiveBinding] = {}
        for active in self.screen.active_bindings.values():
            name = _last(active.binding.id)
            if active.binding.show or name in {"help", "quit"}:
                by_action.setdefault((id(active.node), active.binding.action), active)
        fixed: dict[str, _Shown] = {}
        others: list[_Shown] = []
        for active in by_action.values():
            binding = active.binding
            one = self._describe(active)
            name = _last(binding.id)
            if name in {"help", "quit"}:
                fixed.setdefault(name, one)
            else:
                others.append(one)
        for node in (self.screen, self.app):
            for key_bindings in node._bindings.key_to_bindings.values():
                for binding in key_bindings:
                    name = _last(binding.id)
                    if name in {"help", "quit"} and name not in fixed and not self.screen.is_modal:
                        fixed[name] = self._describe(
                            ActiveBinding(node, binding, True, binding.tooltip), inert=True
                        )
        rank = {binding_id: index for index, binding_id in enumerate(self._first)}
        others.sort(key=lambda one: rank.get(one.active.binding.id or "", len(rank)))
        right = [fixed[name] for name in ("help", "quit") if name in fixed]
        return others[: MOST - len(right)], right

    def _describe(self, active: ActiveBinding, inert: bool = False) -> _Shown:
        binding = active.binding
        return _Shown(
            active,
            literal(self.app.get_key_display(binding), 12),
            literal(binding.description, 30),
            inert=inert,
        )

    @staticmethod
    def _cells(one: _Shown, words: bool) -> int:
        return cell_len(one.key) + (1 + cell_len(one.description) if words and one.description else 0)

    def _add(self, runs: list[tuple[str, str]], one: _Shown, at: int, words: bool) -> int:
        end = at + self._cells(one, words)
        hovered = self.hover == len(self._shown)
        enabled = one.active.enabled
        key_style = "$text-muted" if one.inert else "bold $accent" if enabled else "$text-disabled"
        word_style = (
            "$text-disabled" if not enabled else "$foreground underline" if hovered else "$text-muted"
        )
        runs.append((one.key, key_style))
        if words and one.description:
            runs += [(" ", ""), (one.description, word_style)]
        self._shown.append(_Shown(one.active, one.key, one.description, at, end, one.inert))
        return end

    def _at(self, x: int) -> int:
        return next((index for index, one in enumerate(self._shown) if one.start <= x < one.end), -1)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        offset = event.get_content_offset(self)
        self.hover = -1 if offset is None else self._at(offset.x)
        active = self._shown[self.hover].active if self.hover >= 0 else None
        tip = None if active is None else literal(active.tooltip or active.binding.description)
        self.tooltip = None if tip is None else Content(tip)

    def on_leave(self) -> None:
        self.hover = -1

    async def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        index = -1 if offset is None else self._at(offset.x)
        if index < 0:
            return
        active = self._shown[index].active
        if active.enabled:
            await self.app.run_action(active.binding.action, active.node)
        else:
            self.app.bell()


def _last(binding_id: str | None) -> str:
    """The last word of an id such as `app.quit`."""
    return (binding_id or "").rpartition(".")[2]
