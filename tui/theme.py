"""The look in one place: three themes, the breakpoints that layouts follow, and the glyphs of both alphabets.

Colour roles, the same names in every theme (all are variables that Textual itself defines, so the widgets
also work under any other theme):

| variable           | role                                                                |
|--------------------|---------------------------------------------------------------------|
| `$accent`          | what is yours: the focus, the current step, this run's share         |
| `$accent-muted`    | the same, quietly: raw values behind a smoothed line                 |
| `$success`         | healthy, done, evaluation                                            |
| `$warning`         | tight: works, but look                                               |
| `$error`           | needs you                                                            |
| `$foreground`      | what you read                                                        |
| `$text-muted`      | labels, summaries, units                                             |
| `$text-disabled`   | axes, separators, what is not reached yet                            |
| `$secondary`       | what belongs to others                                               |
| `$secondary-muted` | the empty part of a bar, grid lines                                  |

A colour never carries a meaning alone: beside it stands a glyph or a word, so NO_COLOR (which Textual
honours) and colour blindness lose nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.app import App
from textual.theme import Theme

STYLES = Path(__file__).parent / "styles" / "app.tcss"
"""The style sheet that every screen shares, for `App.CSS_PATH`."""

HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (80, "-normal"), (100, "-roomy"), (120, "-wide")]
"""For `App.HORIZONTAL_BREAKPOINTS`: the least width in columns at which the screen gets the class."""

VERTICAL_BREAKPOINTS = [(0, "-low"), (20, "-short"), (30, "-tall")]
"""For `App.VERTICAL_BREAKPOINTS`: the least height in rows at which the screen gets the class."""

DARK = Theme(
    name="finetui-dark",
    dark=True,
    primary="#e8a94a",
    accent="#e8a94a",
    secondary="#858c98",
    success="#5bb8a6",
    warning="#d9c36a",
    error="#e5636b",
    foreground="#d8dbe0",
    background="#131519",
    surface="#191c21",
    panel="#20242b",
    boost="#ffffff0a",
    variables={
        "accent-muted": "#6f5630",
        "success-muted": "#2c534d",
        "secondary-muted": "#383e48",
        "text-muted": "#979da8",
        "text-disabled": "#69707c",
        "text-accent": "#e8a94a",
        "text-primary": "#e8a94a",
        "text-success": "#5bb8a6",
        "text-warning": "#d9c36a",
        "text-error": "#f07f86",
        "block-cursor-background": "#e8a94a",
        "block-cursor-foreground": "#131519",
        "block-cursor-text-style": "bold",
        "block-cursor-blurred-background": "#2e333c",
        "block-cursor-blurred-foreground": "#d8dbe0",
        "block-hover-background": "#252a32",
        "border": "#e8a94a",
        "border-blurred": "#2e333c",
        "input-cursor-background": "#e8a94a",
        "input-cursor-foreground": "#131519",
        "input-selection-background": "#e8a94a 30%",
        "scrollbar": "#2e333c",
        "scrollbar-hover": "#454b56",
        "scrollbar-active": "#e8a94a",
        "scrollbar-background": "#131519",
        "scrollbar-background-hover": "#131519",
        "scrollbar-background-active": "#131519",
        "scrollbar-corner-color": "#131519",
        "footer-background": "#191c21",
        "footer-key-foreground": "#e8a94a",
        "footer-description-foreground": "#979da8",
        "link-color": "#e8a94a",
        "link-style": "underline",
        "button-color-foreground": "#131519",
    },
)
"""Ink and amber: the default."""

LIGHT = Theme(
    name="finetui-light",
    dark=False,
    primary="#9a5b00",
    accent="#9a5b00",
    secondary="#737a84",
    success="#0f766a",
    warning="#7d6400",
    error="#b3232f",
    foreground="#23272e",
    background="#faf8f4",
    surface="#f1eee8",
    panel="#e8e4dc",
    boost="#0000000a",
    variables={
        "accent-muted": "#d9bf96",
        "success-muted": "#a9cfc8",
        "secondary-muted": "#d3cfc6",
        "text-muted": "#5a606a",
        "text-disabled": "#7c828b",
        "text-accent": "#9a5b00",
        "text-primary": "#9a5b00",
        "text-success": "#0f766a",
        "text-warning": "#7d6400",
        "text-error": "#b3232f",
        "block-cursor-background": "#9a5b00",
        "block-cursor-foreground": "#faf8f4",
        "block-cursor-text-style": "bold",
        "block-cursor-blurred-background": "#d3cfc6",
        "block-cursor-blurred-foreground": "#23272e",
        "block-hover-background": "#e2ddd3",
        "border": "#9a5b00",
        "border-blurred": "#d3cfc6",
        "input-cursor-background": "#9a5b00",
        "input-cursor-foreground": "#faf8f4",
        "input-selection-background": "#9a5b00 25%",
        "scrollbar": "#d3cfc6",
        "scrollbar-hover": "#b5b0a6",
        "scrollbar-active": "#9a5b00",
        "scrollbar-background": "#faf8f4",
        "scrollbar-background-hover": "#faf8f4",
        "scrollbar-background-active": "#faf8f4",
        "scrollbar-corner-color": "#faf8f4",
        "footer-background": "#f1eee8",
        "footer-key-foreground": "#9a5b00",
        "footer-description-foreground": "#5a606a",
        "link-color": "#9a5b00",
        "link-style": "underline",
        "button-color-foreground": "#faf8f4",
    },
)
"""Paper and ochre; every text colour keeps at least 4.5:1 against the background, but the quietest (3:1)."""

ANSI = Theme(
    name="finetui-ansi",
    ansi=True,
    dark=True,
    primary="ansi_yellow",
    accent="ansi_yellow",
    secondary="ansi_white",
    success="ansi_cyan",
    warning="ansi_bright_yellow",
    error="ansi_bright_red",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    variables={
        "ansi-background": "ansi_default",
        "ansi-foreground": "ansi_default",
        "accent-muted": "ansi_bright_black",
        "success-muted": "ansi_bright_black",
        "warning-muted": "ansi_bright_black",
        "error-muted": "ansi_bright_black",
        "primary-muted": "ansi_bright_black",
        "secondary-muted": "ansi_bright_black",
        "foreground-muted": "ansi_default",
        "background-muted": "ansi_default",
        "text-muted": "ansi_default",
        "text-disabled": "ansi_bright_black",
        "block-cursor-background": "ansi_yellow",
        "block-cursor-foreground": "ansi_black",
        "border": "ansi_yellow",
        "border-blurred": "ansi_bright_black",
        "scrollbar": "ansi_bright_black",
        "scrollbar-hover": "ansi_white",
        "scrollbar-active": "ansi_yellow",
        "scrollbar-background": "ansi_default",
        "scrollbar-background-hover": "ansi_default",
        "scrollbar-background-active": "ansi_default",
        "footer-key-foreground": "ansi_yellow",
        "input-cursor-text-style": "reverse",
        "input-selection-background": "ansi_yellow",
        "input-selection-foreground": "ansi_black",
        "markdown-h1-color": "ansi_yellow",
        "markdown-h2-color": "ansi_yellow",
        "markdown-h3-color": "ansi_yellow",
        "link-color": "ansi_yellow",
        "screen-selection-background": "ansi_yellow",
    },
)
"""The terminal's own sixteen colours and its own background, light or dark."""

THEMES = (DARK, LIGHT, ANSI)


def register_themes(app: App[Any]) -> None:
    """Make the three themes the only ones of `app`, and the dark one current. Call it in `App.__init__`."""
    for theme in THEMES:
        app.register_theme(theme)
    app.theme = DARK.name
    for name in list(app.available_themes):
        if name not in {theme.name for theme in THEMES}:
            app.unregister_theme(name)


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Every non-letter that the widgets draw. `unicode` is false where only ASCII may be sent.

    `levels` are the eight heights of a sparkline, low to high. `half_*` end a bar in the middle of a cell.
    """

    unicode: bool
    check: str
    current: str
    todo: str
    cross: str
    warn: str
    dot: str
    pause: str
    chevron: str
    previous: str
    next: str
    up: str
    down: str
    right: str
    middot: str
    dash: str
    ellipsis: str
    times: str
    degree: str
    bar: str
    half_bar: str
    bar_others: str
    track: str
    half_track: str
    marker: str
    levels: str
    line: str
    point: str
    axis: str
    tick: str
    corner: str
    floor: str
    grid: str
    above: str
    below: str


UNICODE = Glyphs(
    unicode=True,
    check="✓",
    current="▸",
    todo="○",
    cross="✗",
    warn="!",
    dot="●",
    pause="‖",
    chevron="›",
    previous="‹",
    next="›",
    up="↑",
    down="↓",
    right="→",
    middot="·",
    dash="—",
    ellipsis="…",
    times="×",
    degree="°",
    bar="━",
    half_bar="╸",
    bar_others="╍",
    track="─",
    half_track="╶",
    marker="┃",
    levels="▁▂▃▄▅▆▇█",
    line="━",
    point="⠶",
    axis="│",
    tick="┤",
    corner="└",
    floor="─",
    grid="╌",
    above="▴",
    below="▾",
)

ASCII = Glyphs(
    unicode=False,
    check="+",
    current=">",
    todo="o",
    cross="x",
    warn="!",
    dot="*",
    pause="=",
    chevron=">",
    previous="<",
    next=">",
    up="^",
    down="v",
    right="->",
    middot="-",
    dash="-",
    ellipsis="...",
    times="x",
    degree="",
    bar="#",
    half_bar="#",
    bar_others="=",
    track=".",
    half_track=".",
    marker="|",
    levels="_.,-=+*#",
    line="-",
    point="o",
    axis="|",
    tick="+",
    corner="+",
    floor="-",
    grid=" ",
    above="^",
    below="v",
)

_current: Glyphs | None = None


def prefers_ascii(environment: Mapping[str, str] | None = None) -> bool:
    """Whether the terminal should be sent ASCII only: a locale that is not UTF-8, or a console without the
    glyphs.

    An unset locale counts as UTF-8, as Python itself takes it (PEP 538).
    """
    env = os.environ if environment is None else environment
    if env.get("TERM", "") in {"linux", "dumb", "vt100", "vt220"}:
        return True
    named = next((env[key] for key in ("LC_ALL", "LC_CTYPE", "LANG") if env.get(key)), "")
    return bool(named) and "utf8" not in named.lower().replace("-", "")


def choose_glyphs(ascii: bool | None = None) -> Glyphs:
    """Set the alphabet for the whole process and return it: `True` ASCII, `False` Unicode, `None` by the
    locale."""
    global _current
    _current = ASCII if (prefers_ascii() if ascii is None else ascii) else UNICODE
    return _current


def glyphs() -> Glyphs:
    """The alphabet in use; chosen by the locale if `choose_glyphs` was never called."""
    return _current if _current is not None else choose_glyphs()
