"""What the command palette offers: every action of the screen in front, and the ways to go."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.app import SystemCommand
from textual.screen import Screen

from ..core.recipe import STEPS
from .theme import ANSI, DARK, LIGHT
from .wizard import STEP_NAMES

if TYPE_CHECKING:
    from .app import FinetuiApp

INNER = ("choice", "checklist", "rail", "form")
"""Bindings of single widgets, whose ids start so, are no commands of the palette."""
THEMES = ((DARK, "Dark colours"), (LIGHT, "Light colours"), (ANSI, "The terminal's own 16 colours"))


def commands(app: FinetuiApp, screen: Screen[Any]) -> Iterator[SystemCommand]:
    """The commands over `screen`, in the order in which they are listed."""
    yield from _actions(app, screen)
    here = getattr(screen, "step", "")
    if here:
        for step in STEPS:
            if step != here:
                title = f"Go to {STEP_NAMES[step]}"
                yield SystemCommand(title, "Another step; nothing is lost", partial(app.go, step))
        yield SystemCommand("Go home", "Runs, lessons, checks", app.go_home)
    yield SystemCommand("Learn", "What fine-tuning is, in a few pages", app.open_learn)
    yield SystemCommand("Doctor", "Check this machine", app.open_doctor)
    for theme, words in THEMES:
        yield SystemCommand(words, "Theme", partial(setattr, app, "theme", theme.name))


def _actions(app: FinetuiApp, screen: Screen[Any]) -> Iterator[SystemCommand]:
    """Each action that has a key on `screen` now, once."""
    seen: set[str] = set()
    for active in screen.active_bindings.values():
        binding = active.binding
        inner = binding.id is not None and binding.id.split(".")[0] in INNER
        if not binding.id or not binding.description or inner or binding.action in seen:
            continue
        seen.add(binding.action)
        run = partial(app.run_action, binding.action, active.node)
        key = app.get_key_display(binding)
        yield SystemCommand(binding.description, f"{binding.tooltip or 'On this screen'} ({key})", run)
