"""A part of a screen that scrolls, and leaves every key to the screen around it."""

from __future__ import annotations

from textual.containers import VerticalScroll


class Page(VerticalScroll, inherit_bindings=False):
    """Up and down move between the fields on it, also where it is longer than the terminal is high.

    A `VerticalScroll` takes these keys for itself as soon as there is something to scroll, even where it cannot be
    focused, and then no field under the first could be reached.
    """
