"""Home: begin, go on, look at runs, learn."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import OptionList, Static

from ...core.demo.recipe import demo_recipe
from ...core.draft import Draft
from ...core.recipe import Recipe
from ..theme import glyphs
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.menu import Item, Menu, state_mark
from .closing import while_standing

if TYPE_CHECKING:
    from ...core.runs.summary import Summaries, Summary
    from ..app import FinetuiApp

LOOK_SECONDS = 2.0
MOST_RUNS = 50
"""The newest that are listed, beside all that are at work."""
WELCOME = (
    "finetui teaches a language model a new habit from your examples: a format, a tone, a skill. "
    "It runs on this machine, step by step, and explains each choice."
)
FIRST_TIME = "New here? The demo shows it all: press Enter five times, and a small model learns to sort customer messages."


def run_words(one: Summary) -> str:
    """What a run is at, in a few words."""
    from ...core.text import duration_words

    words = [one.state]
    if one.total_steps:
        words.append(f"step {one.step:,}/{one.total_steps:,}")
    elif one.stage:
        words.append(one.stage)
    if one.loss is not None:
        words.append(f"loss {one.loss:.3g}")
    if one.live and one.eta_seconds is not None:
        words.append(f"{duration_words(one.eta_seconds)} left")
    elif one.card is not None:
        words.append(one.aside or one.card.what)
    return " · ".join(words)


class HomeScreen(Screen[None]):
    """Where finetui starts."""

    CSS_PATH = "home.tcss"
    AUTO_FOCUS = "#menu"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New run", id="home.new", tooltip="Choose a model and data of your own"),
        Binding("d", "demo", "Demo", id="home.demo", tooltip="The demo, filled in"),
        Binding("r", "runs", "Runs", id="home.runs", tooltip="All runs: sort, filter, compare"),
        Binding("t", "talk", "Try it", show=False, id="home.talk", tooltip="Talk to the run that you are on"),
        Binding("l", "learn", "Learn", id="home.learn", tooltip="What fine-tuning is, in a few pages"),
        Binding("c", "doctor", "Doctor", id="home.doctor", tooltip="Check this machine"),
    ]

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    def compose(self) -> ComposeResult:
        yield Header()
        with VerticalScroll(id="home", can_focus=False), Vertical(id="home-column"):
            yield Static(id="welcome", markup=False)
            yield Menu(id="menu")
        yield Footer(first=("home.new", "home.demo", "home.learn", "home.doctor"))

    def on_mount(self) -> None:
        self._runs: list[Summary] | None = None
        self._summaries: Summaries | None = None
        self._looking = False
        self._placed = False
        self._placed_at = ""
        self._machine_shown: tuple[str, str] | None = None
        self._first_time: bool | None = None
        self.finetui.changed.subscribe(self, lambda _: self._machine_changed())
        self.paint()
        self._look()
        self.set_interval(LOOK_SECONDS, self._look)

    def on_screen_resume(self) -> None:
        self.paint()
        self._look()

    def _machine_changed(self) -> None:
        if self.app.screen is self:
            self._paint_header()

    @while_standing
    def _paint_header(self) -> None:
        machine = self.finetui.looking.machine_line()
        shown = (machine.name, f"{machine.used_gb or 0:.1f}") if machine is not None else None
        if shown != self._machine_shown:
            self._machine_shown = shown
            self.query_one(Header).show_machine(machine)

    def _look(self) -> None:
        """Reads the runs in a thread: first the newest, then all, since an older one may be at work."""
        if self._looking or self.app.screen is not self:  # one below would paint through to what is above
            return
        self._looking, most = True, MOST_RUNS if self._runs is None else None

        def work() -> list[Summary]:
            from ...core.runs.summary import Summaries

            self._summaries = self._summaries or Summaries()
            return self._summaries.read(most)

        def failed(_: object) -> None:
            self._looking = False

        self.finetui.in_background("runs", work, self._found, failed)

    @while_standing
    def _found(self, runs: list[Summary]) -> None:
        self._looking = False
        first = self._runs is None
        if self.app.screen is not self and not first:
            return
        self._runs = [one for one in runs if not one.archived]
        if first and len(runs) == MOST_RUNS:
            self._look()
        menu = self.query_one("#menu", Menu)
        untouched = first and menu.chosen == self._placed_at
        self.paint()
        live = next((one for one in self._runs if one.live), None)
        if untouched and live is not None:  # what goes on already is what one most likely came for
            menu.highlight(f"run:{live.run}")

    @while_standing
    def paint(self) -> None:
        """Show what there is to choose now."""
        self._paint_header()
        first_time = not self._runs and self.finetui.saved_draft is None
        if first_time != self._first_time:
            self._first_time = first_time
            lines = [Content(WELCOME)]
            if first_time:
                lines.append(Content.assemble((FIRST_TIME, "$text-muted")))
            self.query_one("#welcome", Static).update(Content("\n\n").join(lines))
        menu = self.query_one("#menu", Menu)
        menu.show(self.items())
        if not self._placed:
            self._placed = True
            menu.highlight("demo" if self.finetui.demo or first_time else "draft")
            self._placed_at = menu.chosen

    def items(self) -> list[Item]:
        """The menu, by what there is."""
        marks = glyphs()
        draft, runs = self.finetui.saved_draft, self._runs or []
        items: list[Item] = []
        demo = Item(
            "demo",
            "Try the demo",
            "a small model learns in about 3 minutes",
            "d",
            marks.current,
            "$accent",
        )
        if self.finetui.demo or (draft is None and not runs):
            items.append(demo)
        if draft is not None:
            wrong = len(draft.problems)
            words = f"{draft.name}, as you left it" + (f" {marks.middot} {wrong} to correct" if wrong else "")
            items.append(Item("draft", "Continue your draft", words, "", marks.current, "$accent"))
        items.append(Item("new", "New run", "your own model and data", "n", marks.current, "$accent"))
        if demo not in items:
            items.append(demo)
        live = [one for one in runs if one.live]
        past = [one for one in runs if not one.live][:MOST_RUNS]
        for heading, some in (("Running", live), ("Past runs", past)):
            if some:
                items += [Item("", ""), Item("", heading)]
                items += [self._run_item(one) for one in some]
        items.append(Item("", ""))
        if past:
            items.append(Item("runs", "All runs", "sort, filter, compare", "r", marks.current, "$text-muted"))
        items.append(
            Item(
                "learn",
                "Learn",
                "what fine-tuning is, how to read a curve",
                "l",
                marks.current,
                "$text-muted",
            )
        )
        items.append(
            Item(
                "doctor",
                "Doctor",
                "checks what this machine can run",
                "c",
                marks.current,
                "$text-muted",
            )
        )
        return items

    def _run_item(self, one: Summary) -> Item:
        from ..widgets.gauges import elapsed_words

        mark, style = state_mark(one.state)
        at = None if one.live else one.ended_ts or one.started_ts
        ago = elapsed_words(max(0.0, time.time() - at)) if at else ""
        return Item(f"run:{one.run}", one.name, run_words(one), ago, mark, style)

    def _run_of(self, key: str) -> Path | None:
        from ...core.runs.summary import folder_of

        return next((folder_of(one) for one in self._runs or [] if key == f"run:{one.run}"), None)

    @on(OptionList.OptionSelected, "#menu")
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        key = self.query_one("#menu", Menu).items[event.option_index].key
        if key.startswith("run:"):
            if (run := self._run_of(key)) is not None:
                self.finetui.open_run(run)
        elif key:
            getattr(self, f"action_{key}")()

    # ── Actions ──

    def action_talk(self) -> None:
        run = self._run_of(self.query_one("#menu", Menu).chosen)
        if run is None:
            self.app.bell()
        else:
            self.finetui.open_chat(run)

    def action_demo(self) -> None:
        self._replace_draft(demo_recipe())

    def action_new(self) -> None:
        self._replace_draft(Recipe())

    def action_draft(self) -> None:
        draft = self.finetui.saved_draft
        self.finetui.begin(draft=draft if draft is not None else Draft())

    def action_learn(self) -> None:
        self.finetui.open_learn()

    def action_runs(self) -> None:
        from .runs import RunsScreen

        self.app.push_screen(RunsScreen())

    def action_doctor(self) -> None:
        self.finetui.open_doctor()

    def _replace_draft(self, recipe: Recipe) -> None:
        """Begins with `recipe`; a draft with somebody's own choices in it is not thrown away unasked."""
        draft = self.finetui.saved_draft
        own = draft is not None and draft.dump() not in (Draft().dump(), Draft(demo_recipe()).dump())
        if not own or draft is None:
            self.finetui.begin(recipe)
            return
        from ..modals.confirm import ConfirmModal

        def answered(answer: str | None) -> None:
            if answer == "new":
                self.finetui.begin(recipe)
            elif answer == "continue":
                self.action_draft()

        question = f"“{draft.name}” is not trained yet. Starting anew replaces its settings."
        answers = [("continue", "Continue it"), ("new", "Start anew"), ("cancel", "Cancel")]
        self.app.push_screen(ConfirmModal("You have a draft", question, answers), answered)
