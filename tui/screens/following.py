"""The base of the screens that follow one run: its news, what is known of it, and the commands for its exports."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events as textual_events
from textual.containers import ScrollableContainer
from textual.screen import Screen

from ...core import system_prompt
from ...core.runs.events import Checkpoint, Exported
from ...core.runs.state import RunStatus
from ...core.runs.store import RunFolder
from ..widgets.dashboard.background import Known, copy_commands, look_up, ordered
from ..widgets.dashboard.feed import POLL_SECONDS, Feed, News
from ..widgets.dashboard.result import Use, uses
from ..widgets.dashboard.story import Story
from .closing import while_standing

if TYPE_CHECKING:
    from ..app import FinetuiApp

SOON_SECONDS = 0.02
SAID_SECONDS = 6.0
"""What an action did is shown at least so long, and at least until the step after it."""


class FollowingScreen(Screen[None]):
    """Follows one run. Reads only its files, so any number of these may look at it.

    A subclass composes a Header and a pane that scrolls, names that pane in `PANE`, shows the present state in
    `paint_all`, and may do more with what is new in `take`.
    """

    PANE: ClassVar[str] = ""
    """Selector of the pane that page up and page down scroll."""

    def __init__(self, run: RunFolder, known: Known | None = None) -> None:
        super().__init__()
        self.run = run
        self.known = known or Known()
        self.feed = Feed(run)
        self.story = Story()
        self.status: RunStatus | None = None
        self.history: float | None = None
        """How much of a long run's beginning was read; None where nothing is left to read."""
        self.skipped = 0
        """Lines of events.jsonl that were damaged, and so left out."""
        self.caught_up = False
        """Whether the history was read to its end."""
        self.use_at = 0
        """Which of the commands is shown; any number, counted round."""
        self.said = ""
        """What the last action did, for the alert line."""
        self._passing = ("", 0, 0.0)
        """What was said of a step to come, with the step and the time at which it was."""

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    @property
    def live(self) -> bool:
        """Whether a worker is at work on the run."""
        return self.status is not None and self.status.live

    @property
    def ended(self) -> bool:
        """Whether the run is known to be at its end."""
        return self.status is not None and not self.status.live

    @property
    def run_name(self) -> str:
        """The run's name, as far as it is known."""
        return (self.status.name if self.status else "") or self.run.id[16:] or self.run.id

    @property
    def pane(self) -> ScrollableContainer:
        return self.query_one(self.PANE, ScrollableContainer)

    @property
    def pane_cells(self) -> int:
        """The width of a line in the pane."""
        return max(20, self.pane.scrollable_content_region.width or self.size.width - 4)

    def on_mount(self) -> None:
        if self.known.recipe is None:
            group = f"facts for {type(self).__name__} {self.run.id}"
            self.finetui.in_background(group, lambda: look_up(self.run), self._learn, lambda _: None)
        self.feed.start()
        self.set_interval(POLL_SECONDS, self.pump)
        self.paint()

    def on_unmount(self) -> None:
        self.feed.stop()

    def on_resize(self, event: textual_events.Resize) -> None:
        self.call_after_refresh(self.paint)

    def _learn(self, known: Known) -> None:
        self.known = known
        self.paint()

    # ── News ──

    @while_standing
    def pump(self) -> None:
        """Takes what is new, a slice at a time, and shows it."""
        news = self.feed.take()
        self.status = news.status or self.status
        self.story = news.story or self.story
        self.story.whole = news.history is None
        self.story.extend(news.records)
        self.history = news.history
        self.skipped = news.skipped
        self.caught_up = not news.more and self.status is not None
        if news.more:
            self.set_timer(SOON_SECONDS, self.pump)
        if any(isinstance(record.event, (Checkpoint, Exported)) for record in news.records):
            self.refresh_bindings()
        words, step, then = self._passing
        done = self.status is not None and self.status.step > step + 1
        if self.live and done and self.said == words and monotonic() - then > SAID_SECONDS:
            self.said = ""
        self.take(news)
        self.paint()

    def take(self, news: News) -> None:
        """Does more with `news`, which status and story have taken in already."""

    @while_standing
    def paint(self) -> None:
        """Shows the present state. Does nothing while the screen closes, when a late answer may still come, nor while
        another screen is in front: what moves beneath a window has all of the terminal sent again."""
        if self.app.screen is self:
            self.paint_all()

    def on_screen_resume(self) -> None:
        self.paint()

    def paint_all(self) -> None:
        """Shows the present state everywhere."""
        raise NotImplementedError

    def say(self, words: str) -> None:
        """Shows `words` in the alert line."""
        self.said = words
        self._passing = (words, self.status.step if self.status else 0, monotonic())
        self.paint()

    # ── Exports ──

    def done(self) -> list[Exported]:
        """What was exported, in the order of the formats."""
        return ordered(self.story.exports.values())

    def uses(self) -> list[Use]:
        """Every way to use what was exported."""
        recipe = self.known.recipe
        if recipe is not None:
            recipe = system_prompt.put_in(recipe, system_prompt.of(recipe, self.story.dataset))
        return uses(self.run, recipe, self.done())

    # ── Actions ──

    def action_copy(self) -> None:
        ways = self.uses()
        if not ways:
            self.app.bell()
            return
        self.app.copy_to_clipboard(ways[self.use_at % len(ways)].command)
        self.finetui.in_background(f"copy {self.run.id}", lambda: copy_commands(self.run, ways), self.say)

    def action_turn(self, by: int) -> None:
        self.use_at += by
        self.paint()

    def action_page(self, by: int) -> None:
        (self.pane.scroll_page_down if by > 0 else self.pane.scroll_page_up)(animate=False)
