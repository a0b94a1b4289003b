"""What a dataset row becomes: turns of a conversation, whatever format it was written in. Imported everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, overload

Role = Literal["system", "user", "assistant", "tool", "text"]
"""Who says a turn. `text` is plain writing, which no chat template frames."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str
    learned: bool = False
    """Whether the loss counts it."""
    reasoning: str = ""
    """What was thought before the answer, where the row has it apart (`reasoning_content`, `thinking`)."""
    calls: str = ""
    """The list of tool calls as JSON text, arguments as objects; "" for none."""
    name: str = ""
    """The name of the tool that answers, or of the speaker, where the row gives one."""
    call_id: str = ""
    """The `tool_call_id` that a tool's answer belongs to."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row as it is trained on. It iterates, counts and indexes as its turns do."""

    turns: tuple[Turn, ...]
    tools: str = ""
    """The tool definitions as JSON text (a list); "" for none."""
    rejected: tuple[Turn, ...] = ()
    """The turns that a preference pair says not to give, from the first that differs; never trained on."""
    number: int = 0
    """The line of a text file or the row of a table, from 1; 0 where it stands in no file."""
    source: int = 0
    """The index of its source among those mixed, the dataset itself being 0."""
    file: int = 0
    """The index of its file in the walk's manifest."""

    def __iter__(self) -> Iterator[Turn]:
        return iter(self.turns)

    def __len__(self) -> int:
        return len(self.turns)

    @overload
    def __getitem__(self, at: int) -> Turn: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Turn, ...]: ...
    def __getitem__(self, at: int | slice) -> Turn | tuple[Turn, ...]:
        return self.turns[at]


Turns = Conversation | Sequence[Turn]
"""A conversation, or some of its turns: what the chat template renders."""
