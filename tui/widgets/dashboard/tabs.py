"""The names of the dashboard's panes, one of them in front."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from ...theme import glyphs


class TabLine(Widget):
    """`‹Samples›  Log  Machine  Recipe`, in one line; a click chooses. Where it is narrow, initials remain."""

    DEFAULT_CSS = "TabLine { height: 1; width: 1fr; pointer: pointer; }"
    ALLOW_SELECT = False
    names: reactive[tuple[str, ...]] = reactive(())
    current: reactive[str] = reactive("")

    class Chosen(Message):
        """The person clicked on the tab `name`."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def _places(self) -> list[tuple[int, str, str]]:
        """Each tab's first column, words and name."""
        width = self.content_size.width
        full = sum(len(name) + 4 for name in self.names)
        places: list[tuple[int, str, str]] = []
        at = 0
        for index, name in enumerate(self.names):
            words = name if full <= width or name == self.current else str(index + 1)
            places.append((at, words, name))
            at += len(words) + (4 if full <= width else 3)
        return places

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        for at, words, name in self._places():
            if at <= offset.x < at + len(words) + 2:
                self.post_message(self.Chosen(name))

    def render(self) -> Content:
        marks = glyphs()
        runs: list[tuple[str, str]] = []
        at = 0
        for start, words, name in self._places():
            runs.append((" " * (start - at), ""))
            here = name == self.current
            runs.append(
                (
                    f"{marks.previous}{words}{marks.next}" if here else f" {words} ",
                    "bold $accent" if here else "$text-muted",
                )
            )
            at = start + len(words) + 2
        return Content.assemble(*runs)
