"""A word to the terminal that a run has ended or needs someone: its bell, and a message on the desktop where it can.

`FINETUI_NOTIFY_TERMINAL` chooses: `off`, `bell`, `osc9` (iTerm2, kitty, WezTerm, Ghostty, Windows Terminal), `osc777` (rxvt,
foot, GNOME's terminal). Without it the terminal is guessed; one that knows neither ignores the message.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from textual.app import App

from ..core.text import one_line

VARIABLE = "FINETUI_NOTIFY_TERMINAL"
BELL = "\a"


def sequence(title: str, words: str, environment: Mapping[str, str] = os.environ) -> str:
    """What to write. Nothing of `title` and `words` can end the message or begin another."""
    way = environment.get(VARIABLE, "").strip().lower() or _guessed(environment)
    title, words = one_line(title, 60).replace(";", ","), one_line(words, 200).replace(";", ",")
    if way == "osc9":
        return BELL + _passed(f"\x1b]9;{title}: {words}\x1b\\", environment)
    if way == "osc777":
        return BELL + _passed(f"\x1b]777;notify;{title};{words}\x1b\\", environment)
    return "" if way == "off" else BELL


def _guessed(environment: Mapping[str, str]) -> str:
    term = environment.get("TERM", "")
    if environment.get("TMUX"):
        return "osc777" if environment.get("VTE_VERSION") else "osc9"
    if term.startswith(("linux", "dumb", "ansi", "vt", "screen")):
        return "bell"
    return "osc777" if term.startswith(("rxvt", "foot")) or environment.get("VTE_VERSION") else "osc9"


def _passed(message: str, environment: Mapping[str, str]) -> str:
    """`message` through tmux, which hands it on where `allow-passthrough` is on, to the terminal outside."""
    if not environment.get("TMUX"):
        return message
    return "\x1bPtmux;" + message.replace("\x1b", "\x1b\x1b") + "\x1b\\"


def tell(app: App[object], title: str, words: str) -> None:
    """Tells the terminal; nothing where there is none."""
    driver = app._driver
    if driver is not None and not app.is_headless:
        driver.write(sequence(title, words))
        driver.flush()
