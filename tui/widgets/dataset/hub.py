"""The parts of a hub dataset: its configurations and splits, picked from the names that it has."""

from __future__ import annotations

from collections.abc import Mapping

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from ..controls import ChoiceControl, Edited
from ..text import literal

NONE = "\0none"


class HubParts(Vertical):
    """Two or three choices under the id of a hub dataset, shown once the names are known. Posts `Picked`."""

    DEFAULT_CSS = "HubParts { height: auto; } HubParts ChoiceControl { width: 32; }"

    class Picked(Message):
        """The recipe field at `path` is now `value`."""

        def __init__(self, path: str, value: str | None) -> None:
            super().__init__()
            self.path = path
            self.value = value

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._parts: dict[str, tuple[str, ...]] = {}
        self._now: tuple[str | None, str, str | None] = (None, "train", None)

    def compose(self) -> ComposeResult:
        for key, title in (
            ("config", "Configuration"),
            ("split", "Split"),
            ("evaluation_split", "Held-out split"),
        ):
            with Horizontal(id=f"hub-{key}", classes="field-row") as row:
                row.display = False
                yield Static(Content(title), classes="field-label", markup=False)
                yield ChoiceControl((), "", id=f"hub-{key}-choice")

    def show(
        self, parts: Mapping[str, tuple[str, ...]], config: str | None, split: str, evaluation: str | None
    ) -> None:
        """`parts` are the splits by configuration; empty hides everything."""
        known, now = dict(parts), (config, split, evaluation)
        if known == self._parts and now == self._now:
            return
        self._parts, self._now = known, now
        self.display = bool(known)
        if not known:
            return
        names = tuple(known)
        splits = known.get(config or "", known[names[0]])
        asked = config is None and len(names) > 1 and "default" not in names
        self._offer(
            "config",
            (NONE, *names) if asked else names,
            config or (NONE if asked else next(iter(known))),
            len(names) > 1,
        )
        self._offer("split", splits, split, True)
        self._offer("evaluation_split", (NONE, *splits), evaluation or NONE, len(splits) > 1)

    def _offer(self, key: str, names: tuple[str, ...], value: str, wanted: bool) -> None:
        self.query_one(f"#hub-{key}").display = wanted
        control = self.query_one(f"#hub-{key}-choice", ChoiceControl)
        control.choices = names
        control.labels = {
            NONE: "choose one" if key == "config" else "a share of the rows",
            **{name: literal(name, 60) for name in names if name != NONE},
        }
        control.value = value
        control.refresh()

    @property
    def proposal(self) -> tuple[str | None, str] | None:
        """What to take where the configuration or split now named is not there; None where both are.

        Which of several configurations is meant is for the person to say.
        """
        config, split, _ = self._now
        if not self._parts:
            return None
        if (config is None or config in self._parts) and split in self.splits:
            return None
        name = config if config in self._parts else None
        splits = self._parts[name or next(iter(self._parts))]
        first = "train" if "train" in splits else splits[0] if splits else "train"
        return name, split if split in splits else first

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of the configuration that is chosen."""
        config = self._now[0]
        return self._parts.get(config or "", next(iter(self._parts.values()), ()))

    @on(Edited)
    def _edited(self, event: Edited) -> None:
        event.stop()
        key = (event.edited.id or "").removeprefix("hub-").removesuffix("-choice")
        value = None if event.value == NONE else str(event.value)
        self.post_message(self.Picked(f"dataset.{key}", value))
