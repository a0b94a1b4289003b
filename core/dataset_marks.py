"""Which turns of a row the loss counts, and the conversations that come of it."""

from __future__ import annotations

from dataclasses import dataclass

from .conversation import Conversation, Turn
from .dataset_messages import Said
from .recipe import DatasetSection


@dataclass(slots=True)
class Row:
    """What a row says, before it is decided what of it is learned."""

    said: list[Said]
    tools: str = ""
    rejected: tuple[Said, ...] = ()

    @property
    def is_text(self) -> bool:
        return self.said[0].role == "text"


def learned(turns: list[Said], section: DatasetSection) -> list[bool]:
    """Which turns the loss counts. Raises ValueError where it would count none."""
    if section.train_on == "everything" or turns[0].role == "text":
        return [True] * len(turns)
    marks = [turn[0] == "assistant" and not turn[6] for turn in turns]
    if section.train_on == "last_answer":
        last = max((i for i, mark in enumerate(marks) if mark), default=-1)
        marks = [i == last for i in range(len(marks))]
    if not any(marks):
        raise ValueError("every answer has weight 0")
    return marks


def _turns(turns: list[Said] | tuple[Said, ...], marks: list[bool]) -> tuple[Turn, ...]:
    return tuple(
        [
            Turn(one[0], one[1], mark, *one[2:6])
            if one[2] or one[3] or one[4] or one[5]
            else Turn(one[0], one[1], mark)
            for one, mark in zip(turns, marks, strict=True)
        ]
    )


def marked(
    row: Row, section: DatasetSection, number: int = 0, source: int = 0, file: int = 0
) -> Conversation:
    """The row as one conversation with its learned marks. Raises ValueError where nothing would be learned."""
    marks = learned(row.said, section)
    rejected = _turns(row.rejected, [False] * len(row.rejected)) if row.rejected else ()
    return Conversation(_turns(row.said, marks), row.tools, rejected, number, source, file)


def parts(
    row: Row, section: DatasetSection, number: int = 0, source: int = 0, file: int = 0
) -> list[Conversation]:
    """As `marked`, a talk split into one conversation per learned answer where the section says so."""
    whole = marked(row, section, number, source, file)
    if section.multi_turn == "keep" or row.is_text:
        return [whole]
    answers = [i for i, turn in enumerate(row.said) if turn.role == "assistant" and not turn.ignored]
    if section.train_on == "last_answer":
        answers = answers[-1:]
    if len(answers) < 2 and section.train_on != "everything":
        return [whole]
    result: list[Conversation] = []
    for index in answers:
        marks = [i == index for i in range(index + 1)]
        turns = _turns(row.said[: index + 1], marks)
        rejected = whole.rejected if index == len(row.said) - 1 else ()
        result.append(Conversation(turns, row.tools, rejected, number, source, file))
    return result or [whole]
