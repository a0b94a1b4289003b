"""What the rows of a file look like, as far as a script must know it, gathered row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .dataset_formats import Format
from .dataset_messages import ROLES, as_messages, parsed
from .dataset_names import normal
from .dataset_rows import Layout

_REASONING = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class Traits:
    """What the rows of one file look like, so that a script holds only the code that they need."""

    format: Format = "messages"
    layout: Layout = Layout(lists=("messages",))
    role_key: str = "role"
    content_key: str = "content"
    roles: tuple[tuple[str, str], ...] = ()
    """Names of roles as the rows write them, and what they stand for; empty where they are the usual ones."""
    systems: bool = False
    """Some row has a system prompt of its own among its turns."""
    reasoning_key: str = ""
    calls: bool = False
    names: bool = False
    weights: bool = False
    as_text: bool = False
    """The turns stand in the cell as JSON text."""
    bare: bool = False
    """A line is the list of turns itself."""
    turns_in_cells: bool = False
    """Question or answer (of a preference pair, too) is a list of turns."""
    loose: bool = False
    """Some cells are no text: numbers, or nothing."""
    paths: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """For a column that is a path (`translation.de`), the names on the way."""
    odd: tuple[str, ...] = ()
    """In words, what rows hold that a short script does not read as the worker does."""

    @property
    def tools(self) -> bool:
        return self.layout.tools is not None


@dataclass
class Gathered:
    """What was seen of the rows of one file, while it is read."""

    format: Format
    columns: dict[str, Any] = field(default_factory=dict[str, Any])
    keys: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    roles: dict[str, str] = field(default_factory=dict[str, str])
    flags: set[str] = field(default_factory=set[str])
    reasoning: str = ""
    odd: dict[str, None] = field(default_factory=dict[str, None])
    present: Counter[str] = field(default_factory=Counter[str])
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    rows: int = 0

    def take(self, row: Mapping[str, Any], layout: Layout, bare: bool) -> None:
        """One more row, read by `layout`. `bare`: its line is the list of turns itself."""
        self.rows += 1
        for name in Layout.__dataclass_fields__:
            value = getattr(layout, name)
            if isinstance(value, str):
                self.present[name] += 1
                if value not in row:
                    self.paths[value] = _path(row, value)
            if name == "lists":
                lists = self.columns.setdefault("lists", [])
                lists += [one for one in value[:1] if one not in lists]
            elif value is not None:
                if self.columns.setdefault(name, value) != value:
                    self.odd[f"columns of several names for the {name}"] = None
        if bare:
            self.flags.add("bare")
        if self.format in ("messages", "sharegpt"):
            self._turns(row[layout.lists[0]] if layout.lists else None)
            if layout.system is not None and row[layout.system]:
                self.flags.add("systems")
            return
        cells = {
            "preference": (layout.chosen, layout.rejected, layout.user),
            "text": (layout.text,),
        }.get(self.format, (layout.user, layout.context, layout.assistant))
        for name in cells:
            value = row.get(name) if name is not None else None
            if isinstance(value, list):
                self.flags.add("turns_in_cells")
                self._turns(value)
            elif not isinstance(value, str) and name is not None:
                self.flags.add("loose")
            elif isinstance(value, str) and self.format == "preference" and "Human:" in value:
                self.odd["talks written out as Human: and Assistant:"] = None
        if layout.history is not None and row[layout.history]:
            self.odd["a history beside the question"] = None

    def _turns(self, cell: Any) -> None:
        value = cell
        if isinstance(cell, str):
            self.flags.add("as_text")
            value = parsed(cell)
        if not isinstance(value, list) or as_messages(value) is None:
            self.odd["lists of turns in a form of their own"] = None
            return
        for message in value:
            role_key = "role" if "role" in message else "from"
            if role_key not in message:
                self.odd["turns as pairs of question and answer"] = None
                return
            content_key = next((k for k in ("content", "value", "text", "parts") if k in message), "content")
            self.keys[role_key, content_key] += 1
            name = message[role_key]
            if isinstance(name, str):
                meant = ROLES.get(name) or ROLES.get(name.strip().lower())
                if meant:
                    self.roles[name] = meant
                if meant == "system":
                    self.flags.add("systems")
            if isinstance(message.get(content_key), list):
                self.odd["content in parts"] = None
            elif not isinstance(message.get(content_key), str):
                self.flags.add("loose")
            if message.get("tool_calls"):
                self.flags.add("calls")
            if message.get("function_call") or name in ("function_call", "tool_call"):
                self.odd["tool calls in an old form"] = None
            if isinstance(message.get("name"), str):
                self.flags.add("names")
            if message.get("weight", message.get("train")) is not None:
                self.flags.add("weights")
            for key in _REASONING:
                if isinstance(message.get(key), str) and message[key]:
                    if self.reasoning not in ("", key):
                        self.odd["reasoning under several names"] = None
                    self.reasoning = self.reasoning or key

    def traits(self) -> Traits:
        """What all rows so far come to."""
        if len(self.keys) > 1:
            self.odd["turns whose parts go by several names"] = None
        role_key, content_key = self.keys.most_common(1)[0][0] if self.keys else ("role", "content")
        plain = all(name == role for name, role in self.roles.items())
        columns = dict(self.columns)
        if any(count < self.rows for count in self.present.values()):
            self.flags.add("loose")
        lists = tuple(columns.pop("lists", ()))
        if len(lists) > 1:
            self.odd["turns in columns of several names"] = None
        return Traits(
            self.format,
            Layout(lists=lists, **columns),
            role_key,
            content_key,
            () if plain and role_key == "role" else tuple(sorted(self.roles.items())),
            reasoning_key=self.reasoning,
            paths=tuple(self.paths.items()),
            odd=tuple(self.odd),
            **dict.fromkeys(self.flags, True),
        )


def _path(row: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """The row's own names for the parts of `path`, which is in lower case."""
    found: list[str] = []
    value: Any = row
    for part in path.split("."):
        value = parsed(value)
        names = value if isinstance(value, Mapping) else {}
        own = next((name for name in names if isinstance(name, str) and normal(name) == part), part)
        found.append(own)
        value = names.get(own)
    return tuple(found)
