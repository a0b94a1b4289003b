"""One run, live: its curve, figures, samples, machine and log; and at the end what it came to."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content

from ...core.recipe import Recipe
from ...core.runs import notice as run_notice
from ...core.runs.lineage import Origin
from ...core.runs.state import RunStatus
from ...core.runs.store import RunFolder
from .. import notice, run_actions
from ..widgets.bars import ProgressLine
from ..widgets.dashboard import doing, panes
from ..widgets.dashboard.advising import Counsel, advice
from ..widgets.dashboard.alert import alert
from ..widgets.dashboard.background import Known, step_to_fix
from ..widgets.dashboard.block import Block
from ..widgets.dashboard.charts import Charts
from ..widgets.dashboard.feed import News
from ..widgets.dashboard.run_rail import RunRail
from ..widgets.dashboard.side import Side
from ..widgets.dashboard.tabs import TabLine
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.rail import StepRail
from ..widgets.text import literal
from .closing import while_standing
from .run_chart import CHART_BINDINGS, ChartKeys
from .run_panes import FOOTER, PANE_BINDINGS, PanedScreen

HOW_TO_READ = (
    "The curve is the loss: how surprised the model is by the right answer, so lower is better. The bright line is "
    "smoothed, the faint one is each step. Evaluation points are measured on rows that it never trains on: while they "
    "fall, it learns; when they rise while the loss falls, it memorises. The run goes on without this window."
)
FIGURES = (
    "eval is the loss on held-out rows; rate, how far each step goes; grad norm, how hard its rows pull (a jump is an odd "
    "batch); tok/s trained, tokens a second that it learns from, the prompts left out."
)


class RunScreen(ChartKeys, PanedScreen):
    """The dashboard of one run, live or ended."""

    CSS_PATH = ["run.tcss"]
    AUTO_FOCUS = ""
    PANE = "#pane"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(
                one.key,
                f"act('{one.name}')",
                one.title,
                show=one.name == "stop",
                id=f"run.{one.name}",
                tooltip=one.words,
            )
            for one in run_actions.REQUESTS
        ),
        Binding("e", "export", "Export", id="run.export", tooltip="Write the result in more formats"),
        Binding("t", "talk", "Try it", id="run.talk", tooltip="Talk to base and tuned side by side"),
        Binding("r", "resume", "Resume", id="run.resume", tooltip="Go on from the newest checkpoint"),
        Binding(
            "b",
            "fix",
            "Change and retry",
            id="run.fix",
            tooltip="Back to the settings, on the step that can mend it; to the export, where that failed",
        ),
        Binding(
            "y",
            "copy",
            "Copy command",
            id="run.copy",
            tooltip="The command shown, to the clipboard and to a file",
        ),
        Binding(
            "f",
            "failure",
            "Retry with the fix",
            id="run.failure",
            tooltip="Why it failed, and again with what mends it",
        ),
        Binding("m", "menu", "Actions", id="run.menu", tooltip="All that can be done with this run"),
        Binding("a", "advice", "Do what the coach says", show=False, id="run.advice"),
        *CHART_BINDINGS,
        *PANE_BINDINGS,
        Binding("escape", "home", "Home", id="run.home", tooltip="Back to Home; the run goes on"),
        Binding("left", "turn(-1)", "Back along the curve", show=False, id="run.previous"),
        Binding("right", "turn(1)", "On along the curve", show=False, id="run.next"),
    ]

    def __init__(self, run: RunFolder) -> None:
        super().__init__(run)
        self.counsel = Counsel()
        self._trouble = ""
        self._was: str | None = None
        self._troubles: set[str] | None = None
        self._predicted: tuple[tuple[Known, int], int | None] | None = None

    # ── Layout ──

    def compose(self) -> ComposeResult:
        yield Header()
        with Horizontal(classes="wizard-body"):
            yield RunRail(id="run-rail")
            with Vertical(id="run-centre"):
                yield ProgressLine(id="run-progress")
                yield Block(id="run-figures")
                yield Block(id="run-machine")
                yield Charts(id="charts")
                yield Block(id="coach")
                yield from self.compose_panes()
                yield Block(id="alert")
            yield Side(id="run-side")
        yield Footer(first=tuple(f"run.{action}" for action in FOOTER))

    # ── News ──

    def take(self, news: News) -> None:
        self._trouble = news.trouble
        if news.log is not None:
            self.tail = news.log
        self._follow_state()
        self._tell_trouble()

    @while_standing
    def _follow_state(self) -> None:
        """What changes once when the run's state changes."""
        status = self.status
        if status is None or not self.caught_up:
            return
        kind = status.state if not status.live else f"live {status.job}"
        if kind == self._was:
            return
        first, self._was = self._was is None, kind
        self.set_class(not status.live, "-ended")
        if not status.live:
            if not first:
                self._tell_end(status)
            self.said = ""
            self.choose("Result")
        elif not first and self.tab == "Result":
            self.choose("Samples")
        self.refresh_bindings()

    def _tell_end(self, status: RunStatus) -> None:
        """Tells the terminal, and the person's own command where the worker could not."""
        what = status.card.what if status.card is not None else f"{status.job or 'run'} {status.state}"
        notice.tell(self.app, self.run_name, what)
        self.finetui.in_background(
            f"notice {self.run.id}", lambda: run_notice.of_status(self.run, status), self._noticed
        )

    def _noticed(self, wrong: str) -> None:
        if wrong:
            self.say(wrong)

    def _tell_trouble(self) -> None:
        """Tells the terminal once of each trouble that the coach finds; what was there at the first look is seen anyway."""
        if not self.live or not self.caught_up or not self.story.whole:
            return
        found = {one.rule: one.sentence for one in self.coached() if one.level == "trouble"}
        new = found.keys() - (self._troubles if self._troubles is not None else found.keys())
        self._troubles = (self._troubles or set()) | found.keys()
        for rule in sorted(new):
            notice.tell(self.app, self.run_name, found[rule])

    def predicted_bytes(self) -> int | None:
        """The memory predicted for the training, by its longest row; None until the rows are counted."""
        told = self.story.dataset
        if told is None or not told.longest:
            return None
        key = self.known, told.longest
        if self._predicted is None or self._predicted[0] != key:
            self._predicted = (key, self.known.predicted_bytes(told.longest))
        return self._predicted[1]

    # ── Painting ──

    def paint_all(self) -> None:
        story, status, size, predicted = self.story, self.status, self.size, self.predicted_bytes()
        self._paint_header()
        self.query_one(RunRail).show_run(self.known, story, status)
        self.query_one(ProgressLine).show(*doing.progress(status, steps=size.width < 80))
        figures = self.query_one("#run-figures", Block)
        width = max(20, figures.size.width or size.width - 4)
        low = size.height < 20 or (size.height < 30 and (self.ended or bool(self.coached())))
        most = 1 if low else 4 if size.height >= 30 else 2
        figures.show(panes.figures(story, width, most))
        self.query_one("#run-machine", Block).show(panes.machine_line(story, predicted, width))
        charts = self.query_one(Charts)
        charts.show(story, status)
        charts.extend(story, self.history)
        found = self.coached()
        most = 1 if size.height < 24 else 2 if size.height < 30 else 4
        self.query_one("#coach", Block).show(advice(found, width, most if self._coach_in_sight else 0))
        self.set_class(not story.curves.steps, "-waiting")
        if self.tab not in self.tabs():
            self.choose("Samples")
            return
        tabs = self.query_one(TabLine)
        tabs.names, tabs.current = self.tabs(), self.tab
        self.set_class(self.tab == "Result", "-result")
        ways = self.uses()
        self.set_class(size.width >= 180, "-vast")
        if size.width >= 100:
            self.query_one(Side).show(story, predicted, self.done() if self.ended else [], ways, self.use_at)
        self.paint_pane()
        way = ways[self.use_at % len(ways)] if ways and self.ended and size.width < 100 else None
        self.query_one("#alert", Block).show(
            alert(status, trouble=self._trouble, said=self.said, warning=story.warning, way=way, width=width)
        )

    @property
    def _coach_in_sight(self) -> bool:
        """The result takes the coach's lines where a terminal is not tall."""
        return self.tab != "Result" or self.size.height >= 30

    def _paint_header(self) -> None:
        status, header = self.status, self.query_one(Header)
        header.show_place(self.run_name)
        if status is None:
            header.show_status("opening", "calm")
        else:
            header.show_status(doing.state_word(status), doing.MOODS.get(status.standing, "calm"))
            header.show_figures(doing.figures(status))

    def explain_content(self) -> Content:
        """How to read the dashboard, and all that the coach says, for the help."""
        said = "\n\n".join(literal(f"{one.sentence} {one.evidence}", 2000) for one in self.coached())
        coach = [("\n\nThe coach says\n", "bold $accent"), said] if said else []
        return Content.assemble(
            ("Reading the curve\n", "bold $accent"), f"{HOW_TO_READ}\n\n{FIGURES}", *coach
        )

    # ── Actions on the run ──

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leaves out what the run's state does not allow."""
        status = self.status
        if action == "advice":  # nothing is done about what is not in sight
            return self._coach_in_sight
        if action == "act":
            return run_actions.allowed(str(parameters[0]), status)
        if action == "resume":
            return status is not None and status.resumable
        if action in ("fix", "failure"):
            return status is not None and status.state in ("failed", "crashed")
        if action == "export":
            return (
                status is not None
                and not status.live
                and (status.trained or status.checkpoint_step is not None)
            )
        if action == "talk":
            return status is not None and (status.trained or status.checkpoint_step is not None)
        if action == "copy":
            return bool(self.story.exports) and not self.live
        return super().check_action(action, parameters)

    def action_act(self, name: str) -> None:
        run_actions.act(self.finetui, self.run, name, self._done)

    def _stop_run(self) -> None:
        self.action_act("stop")

    def _open_changed(self, recipe: Recipe) -> None:
        run_actions.begin_with(self.finetui, recipe, "training", Origin(self.run.id, "copy"))

    def action_resume(self) -> None:
        run_actions.resume(self.finetui, self.run, self._done)

    def action_failure(self) -> None:
        run_actions.failure(self.finetui, self.run, self._done)

    def action_menu(self) -> None:
        if self.status is not None:
            run_actions.menu(self.finetui, self.run, self.run_name, self.status, self._done)

    def _done(self, words: str = "") -> None:
        """Something about the run has changed; a run that was deleted is no longer shown."""
        if not self.run.path.exists():
            self.app.pop_screen()
            return
        self.feed.look()
        self.say(words)

    def action_export(self) -> None:
        from .run_export import RunExportScreen

        self.app.push_screen(RunExportScreen(self.run, self.known))

    def action_talk(self) -> None:
        self.finetui.open_chat(self.run.path)

    def action_fix(self) -> None:
        recipe, status = self.known.recipe, self.status
        if status is not None and status.past_training:
            self.action_export()
            return
        if recipe is None or status is None:
            self.app.bell()
            return
        run_actions.begin_with(
            self.finetui,
            recipe,
            step_to_fix(status.card.code if status.card else ""),
            Origin(self.run.id, "retry"),
        )

    # ── Between the screens ──

    @on(StepRail.Chosen)
    def _step_chosen(self, event: StepRail.Chosen) -> None:
        event.stop()
        if event.step == "export" and self.check_action("export", ()):
            self.action_export()
        elif event.step != "training":
            self.choose("Recipe")

    def action_home(self) -> None:
        live = self.live
        self.finetui.go_home()
        if live:
            self.app.notify("The run goes on. Home lists it; Enter shows it again.", timeout=6, markup=False)
