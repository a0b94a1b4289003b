"""What was found about a dataset: the worst in one line, and the list whose actions mend it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from ...theme import glyphs
from ..preview import wrapped
from ..text import clip, literal

if TYPE_CHECKING:
    from ....core.dataset_ledger import Action, Finding

ORDER = ("stop", "warning", "note")


def mark_of(severity: str) -> tuple[str, str, str]:
    """Glyph, colour and word of a severity: the colour never stands alone."""
    marks = glyphs()
    return {
        "stop": (marks.cross, "$text-error", "stops training"),
        "warning": (marks.warn, "$text-warning", "look"),
    }.get(severity, (marks.middot, "$text-muted", "note"))


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Stops, then warnings, then notes; in each, as they came."""
    return sorted(findings, key=lambda f: ORDER.index(f.severity) if f.severity in ORDER else len(ORDER))


def lines_words(lines: Sequence[int], count: int) -> str:
    """`rows 3, 8, 90 …`: where to look; empty where nothing is known."""
    if not lines:
        return ""
    more = f" {glyphs().ellipsis}" if count > len(lines) else ""
    return f"row{'s' if len(lines) > 1 else ''} {', '.join(f'{n:,}' for n in lines)}{more}"


class FindingList(Widget, can_focus=True):
    """Findings, worst first, each with its actions. Up and down choose an action, Enter does it."""

    DEFAULT_CSS = "FindingList { height: auto; width: 1fr; }"
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", "Next action", show=False, id="findings.next"),
        Binding("up", "move(-1)", "Action before", show=False, id="findings.previous"),
        Binding("enter", "act", "Do it", id="findings.act", tooltip="Do what the marked line says"),
    ]
    at: reactive[int] = reactive(0)

    class Chosen(Message):
        """The person wants `action` done about `finding`."""

        def __init__(self, finding: Finding, action: Action) -> None:
            super().__init__()
            self.finding = finding
            self.action = action

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._findings: tuple[Finding, ...] = ()
        self._stops: list[tuple[int, int]] = []
        self._lines: list[Content] = []
        self._places: list[int] = []
        self._wide = 0

    def show(self, findings: Sequence[Finding]) -> None:
        """Show `findings`; what was marked stays marked where it still exists."""
        ordered = tuple(worst_first(findings))
        if ordered == self._findings:
            return
        before = self._named(self.at)
        self._findings = ordered
        self._stops = [
            (i, j) for i, finding in enumerate(ordered) for j in range(max(1, len(finding.actions)))
        ]
        names = [self._named(at) for at in range(len(self._stops))]
        self.at = names.index(before) if before in names else 0
        self._lay_out()
        self.refresh_bindings()
        self.refresh(layout=True)

    def _named(self, at: int) -> tuple[str, int] | None:
        if not 0 <= at < len(self._stops):
            return None
        finding, action = self._stops[at]
        return self._findings[finding].code, action

    @property
    def chosen(self) -> tuple[Finding, Action | None] | None:
        """The marked finding and action."""
        if not 0 <= self.at < len(self._stops):
            return None
        i, j = self._stops[self.at]
        finding = self._findings[i]
        return finding, finding.actions[j] if j < len(finding.actions) else None

    def action_move(self, by: int) -> None:
        if not 0 <= self.at + by < len(self._stops):
            self.screen.query_one("#ledger-page").scroll_relative(y=by * 3, animate=False)
            return
        self.at += by

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing is offered where the marked line, or an empty list, has nothing to do."""
        if action == "act":
            return self.chosen is not None and self.chosen[1] is not None
        return super().check_action(action, parameters)

    def action_act(self) -> None:
        chosen = self.chosen
        if chosen is None or chosen[1] is None:
            self.app.bell()
        else:
            self.post_message(self.Chosen(chosen[0], chosen[1]))

    def watch_at(self) -> None:
        self._lay_out()
        self.refresh_bindings()
        self.call_after_refresh(self._keep_in_sight)

    def _keep_in_sight(self) -> None:
        if self._stops and self.is_attached:
            i = self._stops[self.at][0]
            top, bottom = self._places[i], self._end_of(i)
            self.scroll_visible_region(Region(0, top, 1, max(1, bottom - top)))

    def scroll_visible_region(self, region: Region) -> None:
        """Brings `region` of this widget into the page's view."""
        page = self.screen.query_one("#ledger-page")
        page.scroll_to_region(region.translate(self.virtual_region.offset), animate=False, force=True)

    def _end_of(self, finding: int) -> int:
        return self._places[finding + 1] if finding + 1 < len(self._places) else len(self._lines)

    def on_resize(self, event: events.Resize) -> None:
        if event.size.width != self._wide:
            self._lay_out()
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        if width != self._wide:
            self._lay_out(width)
        return max(1, len(self._lines))

    def on_focus(self) -> None:
        self._lay_out()
        self.refresh()

    def on_blur(self) -> None:
        self._lay_out()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        for at, (i, j) in enumerate(self._stops):
            first = self._end_of(i) - 1 - max(1, len(self._findings[i].actions))
            if offset.y == first + j:
                if self.at == at:
                    self.action_act()
                self.at = at
                return

    def _lay_out(self, width: int = 0) -> None:
        """Every finding: its sentence, why, where, and a line for each action."""
        width = width or self.content_size.width or 76
        self._wide = width
        lines: list[Content] = []
        self._places = []
        chosen = self._stops[self.at] if 0 <= self.at < len(self._stops) else (-1, -1)
        for i, finding in enumerate(self._findings):
            self._places.append(len(lines))
            mark, style, word = mark_of(finding.severity)
            for n, text in enumerate(wrapped(literal(finding.sentence, 600), width - 2)):
                head = (f"{mark} ", f"bold {style}") if n == 0 else ("  ", "")
                lines.append(Content.assemble(head, (text, f"bold {style}" if n == 0 else style)))
            where = lines_words(finding.lines, finding.count)
            why = " ".join(part for part in (literal(finding.why, 600), where and f"({where})") if part)
            if why:
                for text in wrapped(why, width - 2):
                    lines.append(Content.assemble("  ", (text, "$text-muted")))
            for j, action in enumerate(finding.actions):
                lines.append(self._action_line(action, width, (i, j) == chosen))
            if not finding.actions:
                lines.append(
                    self._plain_line("nothing to do; good to know", width, (i, 0) == chosen, word=word)
                )
            lines.append(Content(""))
        self._lines = lines

    def _action_line(self, action: Action, width: int, here: bool) -> Content:
        return self._plain_line(literal(action.label, 160), width, here)

    def _plain_line(self, text: str, width: int, here: bool, word: str = "") -> Content:
        marks = glyphs()
        text = clip(text, width - 4)
        if not here:
            quiet = "$text-disabled" if word else "$foreground"
            return Content.assemble("  ", (f"{marks.right if not word else ' '} ", "$accent"), (text, quiet))
        style = "bold reverse" if self.app.native_ansi_color else "bold $background on $accent"
        mark = (f"  {marks.current} ", "bold $accent")
        return Content.assemble(mark, (text, style if self.has_focus else "bold $accent"))

    def render(self) -> Content:
        return Content("\n").join(self._lines) if self._lines else Content("")
