"""The line at the top: which run, where in it, how it is, and the machine it is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from textual.content import Content
from textual.widget import Widget

from ..theme import glyphs
from .bars import Load, bar
from .sparing import refresh_line
from .text import clip_middle, literal, run_length, spread

Mood = Literal["calm", "busy", "good", "paused", "bad"]
Run = tuple[str, str]


@dataclass(frozen=True, slots=True)
class MachineLine:
    """The machine in one phrase: `RTX 4090` with GPU memory, or `2 cores` with `unit="GB RAM"`. None is
    unknown."""

    name: str
    used_gb: float | None = None
    total_gb: float | None = None
    unit: str = "GB"


class Header(Widget):
    """`finetui › support-tickets › step 3 of 5 … RTX 4090 ━━────── 3.1 of 24.0 GB`, in one line at any width.

        header.show_place("support-tickets", "step 3 of 5")
        header.show_status("training", "busy")      # instead of the step
        header.show_machine(MachineLine("RTX 4090", 3.1, 24.0))
        header.show_figures("step 367/516 · 4 min 10 s left")   # instead of the machine; None brings it back

    Where room is short the machine's bar goes first, then its name, then the step; the run's name is cut in
    its middle.
    """

    DEFAULT_CSS = """
    Header { height: 1; width: 100%; background: $surface; padding: 0 1; }
    """
    ALLOW_SELECT = False
    MARKS: ClassVar[dict[Mood, tuple[str, str]]] = {
        "calm": ("todo", "$text-muted"),
        "busy": ("dot", "$success"),
        "good": ("check", "$success"),
        "paused": ("pause", "$warning"),
        "bad": ("cross", "$error"),
    }

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self._run = ""
        self._place = ""
        self._status: tuple[str, Mood] | None = None
        self._machine: MachineLine | None = None
        self._figures: str | None = None
        self._download = ""
        self._sent: Content | None = None

    def on_resize(self) -> None:
        self._sent = None

    def on_mount(self) -> None:
        downloads = getattr(self.app, "downloads", None)
        if downloads is not None:
            downloads.changed.subscribe(self, self.show_download)
            self.show_download(downloads.words())

    def show_download(self, words: str) -> None:
        """What is being downloaded meanwhile, in a few words; empty where nothing is."""
        if words != self._download:
            self._download = literal(words)
            self.refresh()

    def show_place(self, run: str, place: str = "") -> None:
        """The run's name and where the person is in it; either may be empty."""
        before, (self._run, self._place) = (self._run, self._place), (literal(run), literal(place))
        if before != (self._run, self._place):
            self.refresh()

    def show_status(self, word: str | None, mood: Mood = "calm") -> None:
        """How the run is, in a word with a glyph and colour by `mood`; None to show none."""
        before = self._status
        self._status = None if word is None else (literal(word), mood)
        if before != self._status:
            self.refresh()

    def show_machine(self, machine: MachineLine | None) -> None:
        """The machine at the right."""
        self._machine = machine
        self.refresh()

    def show_figures(self, figures: str | None) -> None:
        """A phrase in place of the machine, its parts joined by ` · ` with the most important last (the first
        go first where room is short); None brings the machine back."""
        before, self._figures = self._figures, None if figures is None else literal(figures)
        if before != self._figures and self.content_size.width:
            self._sent = refresh_line(self, self._sent, self.render())

    def render(self) -> Content:
        """The richest form that fits."""
        width = self.content_size.width
        place = self._place_runs()
        brief = place if self._status is not None else []
        if self._download:
            down: list[Run] = [(f"  {glyphs().below} {self._download}", "$accent")]
            place, brief = place + down, brief + down
        rights = self._rights()
        # To what length a name is cut before something at the right gives way.
        for least in (len(self._run), 16, 10):
            for middle, right in (
                (place, rights[0]),
                *((place, one) for one in rights[1:-1]),
                (brief, rights[-1]),
            ):
                room = width - self._fixed(middle) - run_length(right) - (2 if right else 0)
                if room >= min(len(self._run), least):
                    return spread(self._left(room, middle), right, width)
        for middle in (brief, []):
            room = width - self._fixed(middle)
            if room >= min(len(self._run), 4):
                return spread(self._left(room, middle), [], width)
        return spread(self._left(max(1, width - self._fixed([])), []), [], width)

    def _fixed(self, middle: list[Run]) -> int:
        return len("finetui") + (3 if self._run else 0) + run_length(middle)

    def _left(self, room: int, middle: list[Run]) -> list[Run]:
        runs: list[Run] = [("finetui", "bold $accent")]
        if self._run:
            runs += [
                (f" {glyphs().chevron} ", "$text-disabled"),
                (clip_middle(self._run, room), "$foreground"),
            ]
        return [*runs, *middle]

    def _place_runs(self) -> list[Run]:
        marks = glyphs()
        between: Run = (f" {marks.chevron} ", "$text-disabled")
        runs: list[Run] = []
        if self._place:
            runs += [between, (self._place, "$text-muted")]
        if self._status is not None:
            word, mood = self._status
            glyph, color = self.MARKS[mood]
            runs += [between, (f"{getattr(marks, glyph)} {word}", color)]
        return runs

    def _rights(self) -> list[list[Run]]:
        """What may stand at the right, richest first; the last is empty."""
        marks = glyphs()
        if self._figures is not None:
            separator = f" {marks.middot} "
            parts = self._figures.split(separator)
            found: list[list[Run]] = []
            for start in range(len(parts)):
                before = "".join(part + separator for part in parts[start:-1])
                found.append([(before, "$text-muted"), (parts[-1], "bold $foreground")])
            return [*found, []]
        machine = self._machine
        if machine is None:
            return [[], []]
        name = literal(machine.name, 60)
        label: Run = (name + " ", "$text-muted")
        if machine.total_gb is None:
            return [[(name, "$text-muted")], []]
        digits = 0 if machine.total_gb >= 100 or float(machine.total_gb).is_integer() else 1
        used = marks.dash if machine.used_gb is None else f"{machine.used_gb:.1f}"
        amount: Run = (f"{used} of {machine.total_gb:.{digits}f} {literal(machine.unit)}", "$foreground")
        load = Load(machine.used_gb, machine.total_gb)
        return [
            [label, (" ", ""), *bar(load, 12, "$success", marks), ("  ", ""), amount],
            [label, (" ", ""), *bar(load, 6, "$success", marks), (" ", ""), amount],
            [label, (f"{marks.middot} ", "$text-disabled"), amount],
            [amount],
            [],
        ]
