"""What the focused field means here: what is wrong, what finetui would choose and why, and what changing it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.widgets import Static

from ...core.advice import Advice
from ...core.outcome import Delta
from ..theme import glyphs
from .form import value_words
from .text import literal


@dataclass(frozen=True)
class Here:
    """All that is said of one field here. `since` is what its change did since it got the focus, `others` what other
    values would do."""

    path: str
    value: object
    wrong: str = ""
    nearest: object = None
    advice: Advice | None = None
    since: tuple[object, Delta] | None = None
    others: tuple[tuple[object, Delta], ...] = ()


def content(here: Here, tall: bool) -> Content:
    """The lines: all of them where it is tall; else what matters most, in two or three."""
    marks = glyphs()
    lines: list[Content] = []
    if here.wrong:
        lines.append(
            Content.assemble((f"{marks.cross} ", "bold $error"), (literal(here.wrong), "$text-error"))
        )
        near = literal(value_words(here.path, here.nearest), 80)
        lines.append(
            Content.assemble(("Nearest that works: ", "$text-muted"), (near, "bold $accent"), _take())
        )
        return Content("\n").join(lines)
    if here.since is not None:
        old, delta = here.since
        words = literal(
            f"{_short(here.path, old)} → {_short(here.path, here.value)}: {delta.words or 'no change'}"
        )
        lines.append(Content.assemble((words, "bold $foreground")))
    if here.advice is not None:
        chosen = literal(value_words(here.path, here.advice.value), 80)
        same = here.advice.value == here.value
        head = f"{marks.check} finetui would choose this too: " if same else "finetui would choose "
        parts: list[tuple[str, str]] = [(head, "$success" if same else "$text-muted")]
        if not same:
            parts += [(chosen, "bold $accent"), _take(), (": ", "$text-muted")]
        lines.append(Content.assemble(*parts, (literal(here.advice.because), "$foreground")))
    if tall:
        names = [_short(here.path, value) for value, _ in here.others]
        wide = max(map(len, names), default=0)
        for name, (_, delta) in zip(names, here.others, strict=True):
            lines.append(
                Content.assemble((name.ljust(wide) + "   ", "bold"), (literal(delta.words), "$text-muted"))
            )
    return Content("\n").join(lines)


def _take() -> tuple[str, str]:
    return (" (^g takes it)", "$text-muted")


def _short(path: str, value: object) -> str:
    if isinstance(value, (tuple, list)):
        if len(value) == 7:
            return "all seven"
        if len(value) > 2:
            return {"q_proj": "attention", "gate_proj": "MLP"}.get(value[0], f"{len(value)} layers")
    return value_words(path, value)


class HerePane(Static):
    """The lines about the focused field, above the explanation under the form."""

    DEFAULT_CSS = """
    HerePane { height: auto; width: 1fr; padding: 0 2; background: $background; color: $foreground; }
    .-tall HerePane { padding: 0 2 1 2; max-height: 10; }
    .-short HerePane { max-height: 4; }
    .-low HerePane { max-height: 1; }
    .-tiny HerePane { padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__(id="here", markup=False)


def differing(values: Sequence[tuple[object, Delta]]) -> tuple[tuple[object, Delta], ...]:
    """Those values that change something, or all of them where one does."""
    return tuple(values) if any(not delta.nothing for _, delta in values) else ()
