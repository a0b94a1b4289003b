"""One run, live: its curve, figures, samples, machine and log; and at the end what it came to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events as textual_events
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import ContentSwitcher, Static

from ...core import memory
from ...core.draft import Draft
from ...core.recipe import STEPS, Recipe
from ...core.runs.control import Request
from ...core.runs.events import Checkpoint, Exported
from ...core.runs.state import RunStatus
from ...core.runs.store import RunFolder
from ...core.text import duration_words, one_line
from ..theme import glyphs
from ..widgets.bars import ProgressLine
from ..widgets.chart import LineChart
from ..widgets.dashboard import panes, result
from ..widgets.dashboard.background import Known, copy_commands, look_up, ordered, resume, step_to_fix
from ..widgets.dashboard.feed import POLL_SECONDS, Feed
from ..widgets.dashboard.story import STAGES, Story, progress_words
from ..widgets.dashboard.tabs import TabLine
from ..widgets.footer import Footer
from ..widgets.header import Header, Mood
from ..widgets.rail import StepRail
from ..widgets.text import literal
from ..wizard import STEP_NAMES, Wizard

if TYPE_CHECKING:
    from ..app import FinetuiApp

SOON_SECONDS = 0.02
QUIET_SECONDS = 60.0
"""A live run that says nothing for this long is worth a word."""
CHARTS = ("loss", "rate", "norm")
BEFORE_TRAINING = ("start", "load", "dataset", "tokenize", "baseline", "train")
MOODS: dict[str, Mood] = {
    "starting": "busy", "running": "busy", "completed": "good", "stopped": "paused", "failed": "bad", "crashed": "bad",
}  # fmt: skip
HOW_TO_READ = (
    "The curve is the loss: how surprised the model is by the right answer, so lower is better. The bright line is "
    "smoothed, the faint one is each step. Evaluation points are measured on rows that it never trains on: while they "
    "fall, it learns; when they rise while the loss falls, it memorises. The run goes on without this window."
)


class RunScreen(Screen[None]):
    """Follows one run. Reads only its files, so any number of these may look at it."""

    CSS_PATH = ["run.tcss"]
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "s",
            "stop",
            "Stop and save",
            id="run.stop",
            tooltip="Save a checkpoint and the adapter, then end; can be resumed",
        ),
        Binding("e", "export", "Export", id="run.export", tooltip="Write the result in more formats"),
        Binding("r", "resume", "Resume", id="run.resume", tooltip="Go on from the newest checkpoint"),
        Binding(
            "b",
            "fix",
            "Change and retry",
            id="run.fix",
            tooltip="Back to the settings, on the step that can mend it",
        ),
        Binding(
            "y",
            "copy",
            "Copy command",
            id="run.copy",
            tooltip="The command shown, to the clipboard and to a file",
        ),
        Binding("c", "chart", "Chart", id="run.chart", tooltip="Loss, learning rate, gradient norm in turn"),
        Binding(
            "tab",
            "tab(1)",
            "Panes",
            id="run.tab",
            tooltip="The next pane: samples, log, machine, recipe, result",
        ),
        Binding("shift+tab", "tab(-1)", "Pane before", show=False, id="run.tab-back"),
        Binding("escape", "home", "Home", id="run.home", tooltip="Back to Home; the run goes on"),
        Binding("left", "turn(-1)", "Previous sample", show=False, id="run.previous"),
        Binding("right", "turn(1)", "Next sample", show=False, id="run.next"),
        Binding("up", "older(1)", "Earlier answer, or scroll up", show=False, id="run.older"),
        Binding("down", "older(-1)", "Later answer, or scroll down", show=False, id="run.newer"),
        Binding("pageup", "page(-1)", "Scroll up", show=False, id="run.pageup"),
        Binding("pagedown", "page(1)", "Scroll down", show=False, id="run.pagedown"),
        Binding(
            "v",
            "ask('evaluate')",
            "Evaluate now",
            show=False,
            id="run.evaluate",
            tooltip="Check on the held-out rows after this step",
        ),
        Binding(
            "S",
            "ask('save')",
            "Save now",
            show=False,
            id="run.save",
            tooltip="Save a checkpoint after this step",
        ),
        *(Binding(str(n), f"pane({n})", f"Pane {n}", show=False, id=f"run.pane{n}") for n in range(1, 6)),
    ]

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self.run = run
        self.feed = Feed(run)
        self.story = Story()
        self.status: RunStatus | None = None
        self.known = Known()
        self.worker_log = ""
        self.tab = "Samples"
        self.prompt_at = 0
        self.answers_back = 0
        self.use_at = 0
        self.said = ""
        """What the last action did, for the alert line."""
        self.caught_up = False
        self._trouble = ""
        self._was: str | None = None
        self._soon: Timer | None = None
        self._predicted: tuple[int, int | None] | None = None
        self._choices: Wizard | None = None
        self._drawn: dict[str, object] = {}

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    # ── Layout ──

    def compose(self) -> ComposeResult:
        yield Header()
        with Horizontal(classes="wizard-body"):
            rail = StepRail([(step, STEP_NAMES[step]) for step in STEPS], current="training", id="run-rail")
            rail.can_focus = False
            yield rail
            with Vertical(id="run-centre"):
                yield ProgressLine(id="run-progress")
                yield Static(id="run-figures", markup=False)
                yield Static(id="run-machine", markup=False)
                with ContentSwitcher(initial="stages", id="charts"):
                    yield Static(id="stages", markup=False)
                    yield LineChart("Loss", empty="the first step is being worked on", id="loss")
                    yield LineChart("Learning rate", empty="the first step is being worked on", id="rate")
                    yield LineChart("Gradient norm", empty="the first step is being worked on", id="norm")
                yield TabLine(id="tabs")
                with VerticalScroll(id="pane", can_focus=False):
                    yield Static(id="pane-text", markup=False)
                yield Static(id="alert", markup=False)
            with Vertical(id="run-side"):
                yield Static(id="side-machine", markup=False)
                yield Static(id="side-log", markup=False)
        yield Footer(
            first=(
                "run.stop",
                "run.resume",
                "run.fix",
                "run.export",
                "run.copy",
                "run.home",
                "run.tab",
                "run.chart",
            )
        )

    def on_mount(self) -> None:
        self.query_one("#loss", LineChart).add_series(
            "train", "$accent", style="smoothed", faint="$accent-muted"
        )
        self.query_one("#loss", LineChart).add_series("evaluation", "$success", style="points")
        self.query_one("#rate", LineChart).add_series("rate", "$accent")
        self.query_one("#norm", LineChart).add_series(
            "norm", "$accent", style="smoothed", faint="$accent-muted"
        )
        self.finetui.in_background(
            f"facts {self.run.id}", lambda: look_up(self.run), self._learn, lambda _: None
        )
        self.feed.start()
        self.set_interval(POLL_SECONDS, self.pump)
        self.paint()

    def on_unmount(self) -> None:
        self.feed.stop()

    def _learn(self, known: Known) -> None:
        self.known = known
        if self.is_attached:
            self.paint()

    def predicted_bytes(self) -> int | None:
        """The memory predicted for the training, by the longest row once that is known."""
        known, told = self.known, self.story.dataset
        if told is None or not told.longest or known.recipe is None or known.facts is None:
            return known.predicted_bytes
        if self._predicted is None or self._predicted[0] != told.longest:
            estimate = memory.estimate(known.recipe, known.facts, gpu=known.gpu, longest_tokens=told.longest)
            self._predicted = (told.longest, estimate.total_bytes if estimate else None)
        return self._predicted[1]

    # ── News ──

    def pump(self) -> None:
        """Takes what is new, a slice at a time, and shows it."""
        self._soon = None
        if not self.is_attached:
            return
        news = self.feed.take()
        self._trouble = news.trouble
        if news.log is not None:
            self.worker_log = news.log
        if news.status is not None:
            self.status = news.status
        at = len(self.story.curves.steps)
        checks = len(self.story.curves.evaluations)
        self.story.extend(news.records)
        self._feed_charts(at, checks)
        if any(isinstance(record.event, (Checkpoint, Exported)) for record in news.records):
            self.refresh_bindings()
        self.caught_up = not news.more and self.status is not None
        if news.more:
            self._soon = self.set_timer(SOON_SECONDS, self.pump)
        self._follow_state()
        self.paint()

    def _feed_charts(self, at: int, checks: int) -> None:
        """Gives the charts the points from `at` on, or all of them where history was rewritten."""
        curves, rewritten = self.story.curves, self.story.rewritten
        loss, rate, norm = (self.query_one(f"#{name}", LineChart) for name in CHARTS)
        if rewritten:
            self.story.rewritten = False
            at = checks = 0
            for chart in (loss, rate, norm):
                chart.clear()
        if len(curves.steps) > at:
            steps = curves.steps[at:]
            loss.extend("train", zip(steps, curves.losses[at:], strict=True))
            rate.extend("rate", zip(steps, curves.rates[at:], strict=True))
            norm.extend("norm", ((x, y) for x, y in zip(steps, curves.norms[at:], strict=True) if y == y))
            total = self.story.step.total_steps if self.story.step else 0
            for chart in (loss, rate, norm):
                chart.set_x_max(total if total > 0 else None)
                chart.set_notes([("rate", panes.rate(curves.rates[-1]))] if chart is loss else [])
        if rewritten or len(curves.evaluations) > checks:
            loss.extend("evaluation", curves.evaluations[checks:])

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
            self.said = ""
            self.tab = "Result"
            self.query_one("#pane", VerticalScroll).scroll_home(animate=False)
        elif not first and self.tab == "Result":
            self.tab = "Samples"
        self.refresh_bindings()

    # ── Painting ──

    def tabs(self) -> tuple[str, ...]:
        """The panes there are now."""
        ended = self.status is not None and not self.status.live
        told = ended or bool(self.story.exports) or self.story.score is not None
        names = ("Samples", "Log", "Machine", "Recipe")
        return ("Result", *names) if ended else (*names, "Result") if told else names

    def paint(self) -> None:
        """Shows the present state everywhere; what did not change is not sent again."""
        if not self.is_attached or not self.query(Header):  # an answer may come while it closes
            return
        self._paint_header()
        self._paint_rail()
        self._paint_progress()
        story, status, size = self.story, self.status, self.size
        figures = self.query_one("#run-figures", Static)
        width = max(20, figures.size.width or size.width - 4)
        ended = status is not None and not status.live
        most = 1 if size.height < 20 or (ended and size.height < 30) else 4 if size.height >= 30 else 2
        self._set("#run-figures", panes.figures(story, width, most))
        self._set("#run-machine", panes.machine_line(story, self.predicted_bytes(), width))
        self._paint_charts()
        if self.tab not in self.tabs():
            self.tab = "Samples"
        tabs = self.query_one(TabLine)
        tabs.names, tabs.current = self.tabs(), self.tab
        self.set_class(self.tab == "Result", "-result")
        if size.width >= 100:
            inner = self.query_one("#side-machine", Static).content_size.width or 30
            done = ordered(story.exports.values()) if ended else []
            if done:
                side = [*self._headed("Exports"), *result.sizes(done, self._uses(), self.use_at, inner)]
            else:
                side = [*self._headed("Machine"), *panes.machine(story, self.predicted_bytes(), inner)]
            self._set("#side-machine", side)
            rows = max(3, self.query_one("#side-log", Static).content_size.height - 1)
            self._set("#side-log", [*self._headed("Log"), *panes.log(story, inner, rows)])
        self._paint_pane()
        self._set("#alert", self._alert(width))

    @staticmethod
    def _headed(title: str) -> list[Content]:
        return [Content.assemble((title, "bold $accent"))]

    def _set(self, selector: str, lines: list[Content]) -> None:
        """Updates a Static only where its text changed."""
        widget = self.query_one(selector, Static)
        content = Content("\n").join(lines)
        key = (content.plain, tuple(content.spans))
        if self._drawn.get(selector) != key:
            self._drawn[selector] = key
            widget.update(content)
            widget.set_class(not lines, "-nothing")

    def _paint_header(self) -> None:
        status, marks, header = self.status, glyphs(), self.query_one(Header)
        name = (status.name if status else "") or self.run.id[16:] or self.run.id
        header.show_place(name)
        if status is None:
            header.show_status("opening", "calm")
            return
        word = self._state_word(status)
        header.show_status(word, MOODS.get(status.state, "calm"))
        parts: list[str] = []
        if status.elsewhere and status.host:
            parts.append(f"on {literal(status.host, 20)}")
        if status.total_steps:
            parts.append(f"step {status.step:,}/{status.total_steps:,}")
            parts.append(f"epoch {status.epoch:.2f}")
        if status.live and status.eta_seconds is not None and status.stage in ("train", "evaluate", "sample"):
            parts.append(f"{duration_words(max(0.0, status.eta_seconds))} left")
        else:
            parts.append(duration_words(status.seconds))
        header.show_figures(f" {marks.middot} ".join(parts))

    def _paint_rail(self) -> None:
        """The run's own choices; the result beside Export."""
        rail, recipe = self.query_one("#run-rail", StepRail), self.known.recipe
        if recipe is None:
            return
        if self._choices is None:
            self._choices = Wizard(draft=Draft(recipe), model_facts=self.known.facts)
        for step in STEPS:
            rail.set_summary(step, self._choices.summary(step))
            rail.set_state(step, "done" if step in ("model", "dataset", "lora") else "todo")
        told = self.story.dataset
        if told is not None:
            rail.set_summary(
                "dataset", f"{self._choices.summary('dataset')} {glyphs().middot} {told.rows:,} rows"
            )
        epochs = recipe.training.epochs
        total = self.status.total_steps if self.status else 0
        words = f"{epochs:g} epoch{'' if epochs == 1 else 's'}"
        rail.set_summary("training", f"{words} {glyphs().middot} {total:,} steps" if total else words)
        status = self.status
        if status is not None and not status.live and status.trained:
            rail.set_state("training", "done")
            rail.set_state("export", "done" if self.story.exports else "todo")

    def _state_word(self, status: RunStatus) -> str:
        if not status.live:
            return status.state
        words = {
            "train": "training",
            "evaluate": "evaluating",
            "sample": "sampling",
            "save": "saving",
            "score": "scoring",
            "export": "exporting",
        }
        if status.stage == "sample" and not status.step:
            return "starting"
        return words.get(status.stage, "starting" if status.job != "export" else "exporting")

    def _paint_progress(self) -> None:
        status, line = self.status, self.query_one("#run-progress", ProgressLine)
        if status is None:
            line.show(None, "Opening the run")
        elif not status.live:
            share = status.step / status.total_steps if status.total_steps else None
            word = {"completed": "Completed", "stopped": "Stopped", "failed": "Failed", "crashed": "Crashed"}[
                status.state
            ]
            line.show(1.0 if status.state == "completed" else share, word)
        elif status.stage == "train" and status.total_steps:
            at = (
                f" {status.step:,}/{status.total_steps:,}" if self.size.width < 80 else ""
            )  # the header has no room
            line.show(status.step / status.total_steps, f"Training{at}")
        else:
            words = STAGES.get(status.stage, one_line(status.stage, 40))
            amount = progress_words(status.stage_done, status.stage_total, status.stage_unit)
            done = status.stage_done / status.stage_total if status.stage_total > 0 else None
            text = f"{words} {amount}".rstrip()
            line.show(done, text, duration_words(status.seconds) if done is None else None)

    def _paint_charts(self) -> None:
        switcher = self.query_one("#charts", ContentSwitcher)
        has_steps = len(self.story.curves.steps) > 0
        live = self.status is None or self.status.live
        self.set_class(not has_steps, "-waiting")
        if has_steps and switcher.current == "stages":
            switcher.current = "loss"
        elif not has_steps and switcher.current != "stages":
            switcher.current = "stages"
        if not has_steps:
            if self.status is None:
                self._set("#stages", [Content.assemble(("Opening the run", "$text-muted"))])
            elif live:
                box = switcher.content_size
                self._set(
                    "#stages", panes.stages(self._way(), self.status, max(20, box.width), max(3, box.height))
                )
            else:
                self._set("#stages", [Content.assemble(("It ended before its first step.", "$text-muted"))])

    def _way(self) -> tuple[str, ...]:
        """The stages up to the first step of this run."""
        status = self.status
        now = status.stage if status else ""
        if status is not None and status.job == "export":
            return ("start", "load", "export")
        way = [
            stage
            for stage in BEFORE_TRAINING
            if stage != "baseline" or status is None or status.job != "resume"
        ]
        if now == "download":
            way.insert(1, "download")
        if now == "sample" and "baseline" in way:
            way[way.index("baseline")] = "sample"
        elif now not in way and now in STAGES:
            way.insert(len(way) - 1, now)
        return tuple(way)

    def _paint_pane(self) -> None:
        story, status = self.story, self.status
        pane = self.query_one("#pane", VerticalScroll)
        width = max(20, pane.scrollable_content_region.width or self.size.width - 4)
        if self.tab == "Samples":
            lines = panes.samples(story, self.prompt_at, self.answers_back, width)
        elif self.tab == "Log":
            lines = panes.log(story, width)
            tail = panes.worker_log(self.worker_log, width)
            if tail:
                lines += [Content(""), Content.assemble(("worker.log", "bold $text-muted")), *tail]
        elif self.tab == "Machine":
            lines = panes.machine(
                story, self.predicted_bytes(), min(width, 70), compact=self.size.height < 30
            )
        elif self.tab == "Recipe":
            lines = panes.settings(self.known.recipe, width, str(self.run.recipe))
        else:
            lines = self._result(width) if status is not None else []
        self.set_class(self.tab == "Result" and len(lines) > self.size.height - 15, "-much")
        follow = self.tab == "Log" and pane.max_scroll_y - pane.scroll_y <= 1
        self._set("#pane-text", lines)
        if follow:
            pane.scroll_end(animate=False)

    def _result(self, width: int) -> list[Content]:
        status, story = self.status, self.story
        assert status is not None
        lines: list[Content] = []
        if status.card is not None and not status.live:
            lines += result.card(status.card, width)
            ways = []
            if self._can_resume():
                ways.append(("r", "resume from the checkpoint"))
            ways.append(("b", f"change and retry: {STEP_NAMES[step_to_fix(status.card.code)]}"))
            for key, words in ways:
                lines.append(Content.assemble("  ", (key, "bold $accent"), (f" {words}", "$text-muted")))
            lines.append(Content(""))
        elif not status.live:
            lines += result.summary(story, status, width)
            if status.state == "stopped" and self._can_resume():
                lines.append(
                    Content.assemble(("r", "bold $accent"), (" resumes from the checkpoint.", "$text-muted"))
                )
            lines.append(Content(""))
        if story.score is not None:
            lines += result.score_table(story.score, width)
            lines += result.examples(story.score, width)
        done = ordered(story.exports.values())
        if done:
            lines += [
                *([Content("")] if story.score is not None else []),
                Content.assemble(("Exports", "bold $accent"), ("   e makes more", "$text-muted")),
            ]
            lines += result.exports(self.run, done, self._uses(), self.use_at, width)
        elif not status.live and status.trained:
            lines.append(Content.assemble(("e", "bold $accent"), (" exports the result.", "$text-muted")))
        return lines

    def _alert(self, width: int) -> list[Content]:
        marks, status, warning = glyphs(), self.status, self.story.warning
        if self._trouble:
            return [
                Content.assemble(
                    (
                        f"{marks.warn} The run's files cannot be read: {literal(self._trouble, 200)}",
                        "$text-warning",
                    )
                ).truncate(width, ellipsis=True)
            ]
        if self.said:
            return [Content.assemble((literal(self.said, 400), "$accent")).truncate(width, ellipsis=True)]
        if status is not None and status.live and status.last_ts is not None:
            quiet = time.time() - status.last_ts
            if quiet > QUIET_SECONDS:
                words = f"No word from the worker for {duration_words(quiet)}; it is alive, and may be at a long step."
                return [
                    Content.assemble((f"{marks.warn} {words}", "$text-warning")).truncate(
                        width, ellipsis=True
                    )
                ]
        if status is not None and not status.live and self.size.width < 100 and (ways := self._uses()):
            way = ways[self.use_at % len(ways)]
            start = [(f"{marks.right} y copies: ", "$accent"), (literal(way.command, 600), "$foreground")]
            return [Content.assemble(*start).truncate(width, ellipsis=True)]
        if warning is not None:
            words = " ".join(part for part in (warning.what, warning.why, warning.fix) if part)
            return [
                Content.assemble(
                    (f"{marks.warn} ", "bold $warning"), (literal(words, 600), "$text-warning")
                ).truncate(width, ellipsis=True)
            ]
        return []

    def on_resize(self, event: textual_events.Resize) -> None:
        self.call_after_refresh(self.paint)

    def explain_content(self) -> Content:
        """How to read the dashboard, for the help."""
        return Content.assemble(("Reading the curve\n", "bold $accent"), HOW_TO_READ)

    # ── Actions ──

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leaves out what the run's state does not allow."""
        status = self.status
        live = status is not None and status.live
        if action in ("stop", "ask"):
            return live
        if action == "resume":
            return self._can_resume()
        if action == "fix":
            return status is not None and status.state in ("failed", "crashed")
        if action == "export":
            return status is not None and not live and (status.trained or status.checkpoint_step is not None)
        if action == "copy":
            return bool(self.story.exports) and not live
        return super().check_action(action, parameters)

    def _can_resume(self) -> bool:
        status = self.status
        return (
            status is not None
            and not status.live
            and not status.trained
            and status.checkpoint_step is not None
        )

    def _uses(self) -> list[result.Use]:
        return result.uses(self.run, self.known.recipe, ordered(self.story.exports.values()))

    def say(self, words: str) -> None:
        """Shows `words` in the alert line."""
        self.said = words
        self.paint()

    def _do(self, group: str, work: Callable[[], object], words: str) -> None:
        def done(_: object) -> None:
            self.feed.look()
            if self.is_attached:
                self.say(words)

        self.finetui.in_background(f"{group} {self.run.id}", work, done)

    def ask(self, name: Request) -> None:
        """Asks the worker for `name`."""
        from ...core.runs import control

        words = {
            "stop": "Stopping: the worker saves after this step, then ends.",
            "stop-now": "Stopping: the worker ends after this step, without saving.",
            "save": "A checkpoint is saved after this step.",
            "evaluate": "An evaluation follows this step.",
            "sample": "Samples follow this step.",
        }[name]
        self._do("ask", lambda: control.request(self.run, name), words)

    def action_ask(self, name: Request) -> None:
        self.ask(name)

    def action_stop(self) -> None:
        from ..modals.confirm import ConfirmModal

        def answered(answer: str | None) -> None:
            if answer in ("stop", "stop-now"):
                self.ask("stop" if answer == "stop" else "stop-now")

        question = (
            "Save and stop keeps a checkpoint and the adapter: the run can be resumed, or exported as it is."
        )
        answers = [("stop", "Save and stop"), ("stop-now", "Stop, save nothing"), ("cancel", "Keep training")]
        self.app.push_screen(ConfirmModal("Stop this run?", question, answers), answered)

    def action_resume(self) -> None:
        self._do("resume", lambda: resume(self.run), "Resuming from the newest checkpoint.")

    def action_export(self) -> None:
        from .run_export import RunExportScreen

        self.app.push_screen(RunExportScreen(self.run, self.known))

    def action_fix(self) -> None:
        recipe, status = self.known.recipe, self.status
        if recipe is None or status is None:
            self.app.bell()
            return
        step = step_to_fix(status.card.code if status.card else "")
        self._retry(recipe, step)

    def _retry(self, recipe: Recipe, step: str) -> None:
        from ..modals.confirm import ConfirmModal

        def answered(answer: str | None) -> None:
            if answer == "retry":
                self.finetui.begin(recipe, step=step)

        if self.finetui.saved_draft is None:
            answered("retry")
            return
        question = "The settings of this run replace your draft."
        self.app.push_screen(
            ConfirmModal(
                "You have a draft", question, [("cancel", "Keep the draft"), ("retry", "Replace it")]
            ),
            answered,
        )

    def action_copy(self) -> None:
        ways = self._uses()
        if not ways:
            self.app.bell()
            return
        way = ways[self.use_at % len(ways)]
        self.app.copy_to_clipboard(way.command)
        self.finetui.in_background(f"copy {self.run.id}", lambda: copy_commands(self.run, ways), self.say)

    def action_chart(self) -> None:
        switcher = self.query_one("#charts", ContentSwitcher)
        if switcher.current in CHARTS:
            switcher.current = CHARTS[(CHARTS.index(switcher.current) + 1) % len(CHARTS)]

    def action_tab(self, by: int) -> None:
        names = self.tabs()
        self.choose(names[(names.index(self.tab) + by) % len(names)] if self.tab in names else names[0])

    def action_pane(self, number: int) -> None:
        names = self.tabs()
        if number <= len(names):
            self.choose(names[number - 1])

    def choose(self, name: str) -> None:
        """Brings a pane to the front."""
        self.tab = name
        self.paint()
        pane = self.query_one("#pane", VerticalScroll)
        self.call_after_refresh(pane.scroll_end if name == "Log" else pane.scroll_home, animate=False)
        self.call_after_refresh(self.paint)

    @on(TabLine.Chosen)
    def _tab_chosen(self, event: TabLine.Chosen) -> None:
        event.stop()
        self.choose(event.name)

    @on(StepRail.Chosen)
    def _step_chosen(self, event: StepRail.Chosen) -> None:
        event.stop()
        if event.step == "export" and self.check_action("export", ()):
            self.action_export()
        elif event.step != "training":
            self.choose("Recipe")

    def action_turn(self, by: int) -> None:
        if self.tab == "Result":
            self.use_at += by
        else:
            self.prompt_at += by
            if self.tab != "Samples":
                self.tab = "Samples"
        self.paint()

    def action_older(self, by: int) -> None:
        pane = self.query_one("#pane", VerticalScroll)
        if self.tab == "Samples" and self.story.asked:
            most = (
                max(sum(1 for step in asked.answers if step > 0) for asked in self.story.asked.values()) - 1
            )
            self.answers_back = max(0, min(max(0, most), self.answers_back + by))
            self.paint()
        else:
            pane.scroll_relative(y=-by, animate=False)

    def action_page(self, by: int) -> None:
        pane = self.query_one("#pane", VerticalScroll)
        (pane.scroll_page_down if by > 0 else pane.scroll_page_up)(animate=False)

    def action_home(self) -> None:
        live = self.status is not None and self.status.live
        self.finetui.go_home()
        if live:
            self.app.notify("The run goes on. Home lists it; Enter shows it again.", timeout=6, markup=False)
