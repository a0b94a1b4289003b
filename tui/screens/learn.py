"""Learn: the primer, a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Markdown, OptionList, Static

from ...core.lessons import primer
from ..theme import glyphs
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.menu import Item, Menu

if TYPE_CHECKING:
    from ..app import FinetuiApp


class LearnScreen(Screen[None]):
    """The pages at the left, the text beside them; left and right turn."""

    CSS_PATH = "learn.tcss"
    AUTO_FOCUS = "#page"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,n", "turn(1)", "Next page", id="learn.next"),
        Binding("left,p", "turn(-1)", "Page before", id="learn.previous"),
        Binding("escape", "close", "Back", id="learn.back"),
        Binding("space", "read_on", "Read on", show=False, id="learn.on"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._pages = primer.pages()
        self.at = 0

    def compose(self) -> ComposeResult:
        yield Header()
        with Horizontal(id="learn"):
            yield Menu([Item(str(i), page.title) for i, page in enumerate(self._pages)], id="pages")
            with VerticalScroll(id="page"):
                yield Static(id="page-title", markup=False)
                yield Markdown(id="page-text", open_links=False)
        yield Footer(first=("learn.next", "learn.previous", "learn.back"))

    def on_mount(self) -> None:
        header = self.query_one(Header)
        header.show_machine(cast("FinetuiApp", self.app).looking.machine_line())
        self.show(0)

    def show(self, at: int) -> None:
        """Open page `at`."""
        self.at = max(0, min(len(self._pages) - 1, at))
        page = self._pages[self.at]
        marks = glyphs()
        self.query_one("#page-title", Static).update(
            Content.assemble(
                (page.title, "bold $accent"), (f"   {self.at + 1} of {len(self._pages)}", "$text-muted")
            )
        )
        body = page.body if marks.unicode else page.body.encode("ascii", "replace").decode()
        self.query_one("#page-text", Markdown).update(body)
        self.query_one("#page", VerticalScroll).scroll_home(animate=False)
        self.query_one("#pages", Menu).highlight(str(self.at))
        self.query_one(Header).show_place("Learn", f"page {self.at + 1} of {len(self._pages)}")

    @on(OptionList.OptionHighlighted, "#pages")
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if self.query_one("#pages", Menu).has_focus and event.option_index != self.at:
            self.show(event.option_index)

    @on(OptionList.OptionSelected, "#pages")
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.show(event.option_index)
        self.query_one("#page").focus()

    def action_turn(self, by: int) -> None:
        self.show(self.at + by)

    def action_read_on(self) -> None:
        """A screen further; at the end of a page, the next one."""
        page = self.query_one("#page", VerticalScroll)
        if page.scroll_offset.y >= page.max_scroll_y:
            self.action_turn(1)
        else:
            page.scroll_page_down(animate=False)

    def action_close(self) -> None:
        self.app.pop_screen()
