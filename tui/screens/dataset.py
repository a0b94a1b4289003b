"""The dataset step: what the model learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from ...core.errors import FinetuiError, RecipeError
from ...core.recipe import DEMO
from ...core.text import bytes_words, counted
from ..widgets.dataset.hub import HubParts
from ..widgets.dataset.report import ReportLine
from ..widgets.facts import Facts
from ..widgets.preview import RowPreview
from ..widgets.source import SourceKind
from .closing import while_standing
from .source_step import SourceStepScreen

FORMATS = {
    "messages": "messages",
    "sharegpt": "ShareGPT",
    "alpaca": "Alpaca",
    "prompt_completion": "prompt and completion",
    "text": "plain text",
    "preference": "preference pairs",
}


class DatasetScreen(SourceStepScreen):
    """The demo, files or a hub dataset: its first rows at once, then every row as the model will see it."""

    CSS_PATH = ["step.tcss", "dataset.tcss"]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "f3",
            "rows",
            "See rows",
            id="dataset.rows",
            tooltip="What the model sees: each row token by token",
        ),
        Binding(
            "f4",
            "ledger",
            "Ledger",
            id="dataset.ledger",
            tooltip="Every row accounted for, and what was found",
        ),
        Binding("f5", "mapping", "Columns", id="dataset.mapping", tooltip="Say which column holds what"),
        Binding("f6", "mix", "Mix", show=False, id="dataset.mix", tooltip="Train on further files as well"),
    ]
    footer_first = (
        "step.next",
        "dataset.rows",
        "dataset.ledger",
        "step.back",
        "dataset.mapping",
        "step.advanced",
    )
    more_keys = ("dataset.mapping", "dataset.mix", "step.code")
    step = "dataset"
    tagline = "what it learns from"
    source_path = "dataset.source"
    source_title = "Dataset"
    basic = ("dataset.format", "dataset.system_prompt", "dataset.train_on", "dataset.evaluation_share")
    hidden = ("dataset.source",)

    def kinds(self) -> tuple[SourceKind, ...]:
        return (
            SourceKind("demo", "Demo", words="customer messages into JSON", value=DEMO),
            SourceKind(
                "file", "File", placeholder="type a file's path, or press F2 to browse", browse="file"
            ),
            SourceKind(
                "folder",
                "Folder",
                placeholder="type a folder of files, or press F2 to browse",
                browse="folder",
                browse_title="A folder of files",
            ),
            SourceKind("hub", "Hub", placeholder="type an id such as mlabonne/FineTome-100k"),
        )

    def on_mount(self) -> None:
        self._hub_source = ""
        self._hub_parts: Mapping[str, tuple[str, ...]] = {}
        self.call_after_refresh(self.finetui.inspecting.wake)

    def on_unmount(self) -> None:
        self.finetui.inspecting.rest()

    def kind_of(self, source: str) -> str:
        if source == DEMO:
            return "demo"
        from ...core import dataset

        try:
            kind = dataset.source_kind(source)
        except FinetuiError:
            return "file"
        return "folder" if kind == "file" and is_folder(source) else kind

    def compose_before(self) -> ComposeResult:
        yield from super().compose_before()
        yield HubParts(id="hub-parts")

    def compose_after(self) -> ComposeResult:
        yield Facts(id="facts")
        yield ReportLine(id="report")
        yield RowPreview(id="preview")

    @while_standing
    def fit(self) -> None:
        """The preview takes the room that is left; the explanation keeps its two lines."""
        super().fit()
        main, preview = self.query_one("#main"), self.query_one("#preview", RowPreview)
        if preview.display:
            above = preview.virtual_region.y
            preview.styles.max_height = max(5, main.size.height - above - main.gutter.bottom)

    def _make_room(self) -> None:
        """What was found has another height now: the explanation takes what is left, once that is laid out."""
        self.refresh_bindings()
        self.set_timer(0.1, self.fit)

    def blocking(self) -> tuple[str, str] | None:
        """The report above says what stops the training; the foot says which key mends it."""
        block = super().blocking()
        gate = self.wizard.inspection.gate
        if block is not None and not block[0] and self.wizard.dataset_error is None and gate is not None:
            return "", "Training cannot start on this. F4 shows what mends it."
        return block

    def notes(self) -> dict[str, str]:
        facts = None if self.wizard.problem("dataset.source") else self.wizard.dataset_facts
        notes: dict[str, str] = dict.fromkeys(
            ("dataset.row_limit", "dataset.format", "dataset.evaluation_share"), ""
        )
        limit, plan = self.wizard.value("dataset.row_limit"), self.wizard.plan()
        if limit and facts is not None and facts.rows and plan is not None:
            notes["dataset.row_limit"] = (
                f"{min(1.0, plan.rows / facts.rows):.1%} of {facts.rows:,}: {plan.words}"
            )
        if facts is not None:
            found = facts.detection
            sure = f", {found.confidence:.0%} sure" if found.confidence < 1 else ""
            notes["dataset.format"] = FORMATS.get(found.format, found.format) + sure
            ledger, held = self.wizard.inspection.complete, facts.evaluation_rows
            if ledger is not None:
                held = ledger.evaluation_rows
            if held is not None:
                own = self.wizard.value("dataset.evaluation_source")
                notes["dataset.evaluation_share"] = (
                    f"{counted(held, 'row')} {'of their own' if own else 'kept aside'}"
                )
        return notes

    def refresh_facts(self) -> None:
        from ...core import dataset

        wizard, box, preview = (
            self.wizard,
            self.query_one("#facts", Facts),
            self.query_one("#preview", RowPreview),
        )
        facts = wizard.dataset_facts
        self.once(
            "room",
            (facts, wizard.dataset_error, wizard.inspection.state),
            self._make_room,
        )
        self._show_hub_parts()
        self.query_one("#report", ReportLine).show(wizard.inspection)
        if wizard.problem("dataset.source"):
            box.show_nothing()
            preview.show(())
        elif wizard.dataset_error is not None:
            box.show_error(with_columns_key(wizard.dataset_error))
            preview.show(())
        elif facts is None:
            box.show_busy(f"Looking at {wizard.value('dataset.source')} …")
            preview.show(())
        else:
            ledger, mix = wizard.inspection.complete, wizard.value("dataset.mix")
            about = "" if facts.rows_exact or ledger is not None else "about "
            rows = facts.train_rows if facts.train_rows is not None else facts.rows
            held = facts.evaluation_rows
            if ledger is not None:  # counted, where the look may only have guessed
                rows, held = ledger.train_rows, ledger.evaluation_rows
            figures = [
                f"{about}{counted(rows, 'row')} to learn from" if rows is not None else "",
                f"{held:,} held out" if held else "none held out",
                bytes_words(facts.bytes) if facts.bytes else "",
                f"{len(mix) + 1} sources mixed" if isinstance(mix, dict) and mix else "",
            ]
            reason = f"{FORMATS.get(facts.detection.format, '')}: {facts.detection.reason}"
            warning = facts.left_out
            if not warning and facts.detection.confidence < dataset.SURE:
                warning = "That is a guess. Look at the rows below; F5 says which column holds what."
            elif not warning and rows is not None and 0 < rows < 100:
                warning = f"Only {counted(rows, 'row')}. A hundred are a start, a thousand are better."
            box.show_found(facts.title, [figure for figure in figures if figure], [reason], warning)
            preview.show(facts.first)

    # ── The parts of a hub dataset ──

    def _show_hub_parts(self) -> None:
        """Fetches the names of configurations and splits once for each id, and shows them to choose from."""
        wizard, box = self.wizard, self.query_one("#hub-parts", HubParts)
        source = str(wizard.value("dataset.source") or "").strip()
        if self.picker.kind != "hub" or wizard.problem("dataset.source") or self.kind_of(source) != "hub":
            self._hub_source, self._hub_parts = "", {}
            self.finetui.forget("hub-parts")
        elif source != self._hub_source:
            self._hub_source, self._hub_parts = source, {}
            self._fetch_parts(source)
        values = (wizard.value(f"dataset.{name}") for name in ("config", "split", "evaluation_split"))
        config, split, evaluation = (str(v) if v else None for v in values)
        box.show(self._hub_parts, config, split or "train", evaluation)

    def _fetch_parts(self, source: str) -> None:
        def work() -> Mapping[str, tuple[str, ...]]:
            from ...core import dataset_hub

            return dataset_hub.configs_and_splits(source)

        self.finetui.in_background("hub-parts", work, self._got_parts, lambda _: None)

    @while_standing
    def _got_parts(self, parts: Mapping[str, tuple[str, ...]]) -> None:
        self._hub_parts = parts
        self._show_hub_parts()
        proposal = self.query_one("#hub-parts", HubParts).proposal
        if proposal is not None:
            config, split = proposal
            self._take_part("dataset.config", config)
            self._take_part("dataset.split", split)

    @on(HubParts.Picked)
    def _part_picked(self, event: HubParts.Picked) -> None:
        event.stop()
        self._take_part(event.path, event.value)
        proposal = self.query_one("#hub-parts", HubParts).proposal
        if event.path == "dataset.config" and proposal is not None:
            self._take_part("dataset.split", proposal[1])

    def _take_part(self, path: str, value: str | None) -> None:
        self.form.row(path).show(value)
        self.set_value(path, value)

    # ── Beside this step ──

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Of a dataset that cannot be read there are neither rows nor a ledger to see."""
        if action in ("rows", "ledger") and self.is_mounted:
            return self.wizard.dataset_error is None
        return super().check_action(action, parameters)

    @on(ReportLine.Opened)
    def action_ledger(self) -> None:
        """Opens the ledger and its findings."""
        from .ledger import LedgerScreen

        self.app.push_screen(LedgerScreen())

    def action_rows(self) -> None:
        """Opens the rows, token by token."""
        from .rows import RowsScreen

        self.app.push_screen(RowsScreen())

    def action_mapping(self) -> None:
        """Opens the columns."""
        from .mapping import MappingScreen

        self.app.push_screen(MappingScreen())

    def action_mix(self) -> None:
        """Opens the sources that are mixed with this one, and takes what is chosen there."""
        from ..modals.mix import MixModal

        try:
            section = self.wizard.draft.recipe().dataset
        except RecipeError as error:
            self.finetui.show_error(error)
            return

        def chosen(mix: dict[str, float] | None) -> None:
            if mix is not None:
                self.form.row("dataset.mix").show(mix or None)
                self.set_value("dataset.mix", mix or None)

        facts = self.wizard.dataset_facts if not section.mix else None
        self.app.push_screen(MixModal(section, facts, dict(section.mix or {})), chosen)


def with_columns_key(error: FinetuiError) -> FinetuiError:
    """A format that was not recognised is mended with F5; say so."""
    if error.code != "dataset-format":
        return error
    return FinetuiError(error.what, error.why, f"{error.fix} F5 asks which is which.", code=error.code)


def is_folder(source: str) -> bool:
    """Whether a local source is a folder."""
    from ...core.dataset_source import local_path

    try:
        return local_path(source).is_dir()
    except (OSError, ValueError, RuntimeError):
        return False
