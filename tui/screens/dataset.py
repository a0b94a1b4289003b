"""The dataset step: what the model learns from."""

from __future__ import annotations

from textual.app import ComposeResult

from ...core.recipe import DEMO
from ...core.text import bytes_words
from ..theme import glyphs
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
}


class DatasetScreen(SourceStepScreen):
    """The demo, a file or a hub dataset, with its first rows as they will be trained on."""

    CSS_PATH = ["step.tcss", "model.tcss"]
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
            SourceKind("hub", "Hub", placeholder="type an id such as mlabonne/FineTome-100k"),
        )

    def kind_of(self, source: str) -> str:
        if source == DEMO:
            return "demo"
        from ...core import dataset
        from ...core.errors import FinetuiError

        try:
            return dataset.source_kind(source)
        except FinetuiError:
            return "file"

    def compose_after(self) -> ComposeResult:
        yield Facts(id="facts")
        yield RowPreview(id="preview")

    @while_standing
    def fit(self) -> None:
        """The preview takes the room that is left; the explanation keeps its two lines."""
        super().fit()
        main, preview = self.query_one("#main"), self.query_one("#preview", RowPreview)
        if preview.display:
            above = preview.virtual_region.y
            preview.styles.max_height = max(5, main.size.height - above - main.gutter.bottom)

    def notes(self) -> dict[str, str]:
        facts = self.wizard.dataset_facts
        notes: dict[str, str] = {}
        if facts is not None:
            notes["dataset.format"] = FORMATS.get(facts.detection.format, facts.detection.format)
            if facts.evaluation_rows is not None:
                notes["dataset.evaluation_share"] = (
                    f"{facts.evaluation_rows:,} rows of their own"
                    if self.wizard.value("dataset.evaluation_source")
                    else f"{facts.evaluation_rows:,} rows kept aside"
                )
        return notes

    def refresh_facts(self) -> None:
        wizard, box, preview = (
            self.wizard,
            self.query_one("#facts", Facts),
            self.query_one("#preview", RowPreview),
        )
        facts = wizard.dataset_facts
        if wizard.problem("dataset.source"):
            box.show_nothing()
            preview.show(())
        elif wizard.dataset_error is not None:
            box.show_error(wizard.dataset_error)
            preview.show(())
        elif facts is None:
            box.show_busy(f"Looking at {wizard.value('dataset.source')} …")
            preview.show(())
        else:
            about = "" if facts.rows_exact else "about "
            rows = facts.train_rows if facts.train_rows is not None else facts.rows
            figures = [
                f"{about}{rows:,} rows to learn from" if rows is not None else "",
                f"{facts.evaluation_rows:,} held out" if facts.evaluation_rows else "none held out",
                bytes_words(facts.bytes) if facts.bytes else "",
            ]
            reason = f"{FORMATS.get(facts.detection.format, '')}: {facts.detection.reason}"
            warning = ""
            if facts.dropped_rows:
                worst = facts.dropped[0]
                where = ", ".join(f"{line:,}" for line in worst.first[:3])
                more = glyphs().ellipsis if worst.count > 3 else ""
                warning = f"{facts.dropped_rows:,} rows cannot be used: {worst.reason} (row {where}{more})"
            elif rows is not None and rows < 100:
                warning = f"Only {rows:,} rows. A hundred are a start, a thousand are better."
            box.show_found(facts.title, [figure for figure in figures if figure], [reason], warning)
            preview.show(facts.first)
