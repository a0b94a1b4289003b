"""The names of the dashboard's panes, one of them in front."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from ...theme import glyphs


class TabLine(Widget):
    """`‹Samples›  Log  Machine  Recipe`, in one line; a click chooses. Where it is narrow, numbers remain."""

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
        """Each tab's first column, words and name: as roomy as fits, at the least by number."""
        marks, width = glyphs(), self.content_size.width
        for gap, blank, named in ((2, " ", True), (1, " ", True), (1, "", True), (1, " ", False)):
            places: list[tuple[int, str, str]] = []
            at = 0
            for index, name in enumerate(self.names):
                words = f"{blank}{name if named else index + 1}{blank}"
                if name == self.current:
                    words = f"{marks.previous}{name}{marks.next}"
                places.append((at, words, name))
                at += len(words) + gap
            if at - gap <= width:
                break
        return places

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        for at, words, name in self._places():
            if at <= offset.x < at + len(words):
                self.post_message(self.Chosen(name))

    def render(self) -> Content:
        runs: list[tuple[str, str]] = []
        at = 0
        for start, words, name in self._places():
            runs += [
                (" " * (start - at), ""),
                (words, "bold $accent" if name == self.current else "$text-muted"),
            ]
            at = start + len(words)
        return Content.assemble(*runs)
