"""The column at the right of a wide dashboard: the machine, or at the end the exports; and the log."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from ....core.runs.events import Exported
from . import panes, result
from .block import Block
from .story import Story


class Side(Vertical):
    """What is worth a look at any time."""

    def compose(self) -> ComposeResult:
        yield Block(id="side-machine")
        yield Block(id="side-log")

    def show(
        self,
        story: Story,
        predicted_bytes: int | None,
        done: Sequence[Exported],
        ways: Sequence[result.Use],
        chosen: int,
    ) -> None:
        """The exports that are `done` with the chosen way to use one; the machine where there are none."""
        above, below = self.query_one("#side-machine", Block), self.query_one("#side-log", Block)
        width = above.content_size.width or 30
        brief = self.size.height < 50
        if done:
            above.show([_headed("Exports"), *result.sizes(done, ways, chosen, width)])
        else:
            above.show([_headed("Machine"), *panes.machine(story, predicted_bytes, width, brief=brief)])
        rows = max(3, below.content_size.height - 1)
        below.show([_headed("Log"), *panes.log(story, width, rows)])


def _headed(title: str) -> Content:
    return Content.assemble((title, "bold $accent"))
