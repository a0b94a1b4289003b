"""A row as a conversation: by its format and columns, under the section's options.

A row is any mapping, from any file: every value is suspect. `RowReader.read` raises nothing but ValueError, whose
message is the short reason that the row is dropped and counted under.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import dataset_names as names
from .conversation import Conversation
from .dataset_formats import Detection, Format
from .dataset_marks import Row, marked
from .dataset_messages import (
    Said,
    as_messages,
    as_strings,
    parsed,
    said,
    text_of,
    tools_of,
    transcript,
    writable,
)
from .dataset_source import MAX_ROW_CHARACTERS
from .recipe import DatasetSection
from .text import one_line

_LAYOUTS = 256
"""So many different sets of columns are remembered; a hostile file may have as many as rows."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which of a row's columns plays which part. None: there is none."""

    lists: tuple[str, ...] = ()
    user: str | None = None
    context: str | None = None
    assistant: str | None = None
    system: str | None = None
    tools: str | None = None
    reasoning: str | None = None
    text: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    history: str | None = None


def conversation(row: Mapping[str, Any], format: Format, section: DatasetSection) -> Conversation:
    """`row` as one conversation, with the section's system prompt and learned marks (talks are not split here).

    NUL characters are left out and lone surrogates become U+FFFD, as no tokenizer takes them. Raises ValueError with
    a short reason (`no assistant turn`, `empty answer`, …) where the row cannot be used; such rows are dropped and
    counted under that reason.
    """
    return marked(RowReader(Detection(format, ""), section).read(row), section)


class RowReader:
    """Reads rows of one format, remembering which columns play which part."""

    def __init__(self, detection: Detection, section: DatasetSection) -> None:
        self._format = detection.format
        self._section = section
        self._mapping: dict[str, str] = {r: names.normal(c) for r, c in detection.mapping.items()}
        self._named: dict[str, str] = {r: names.normal(c) for r, c in (section.columns or {}).items()}
        self._layouts: dict[tuple[Any, ...], Layout] = {}
        self._prompt = writable(section.system_prompt or "")

    def read(self, row: Mapping[str, Any]) -> Row:
        """What `row` says, system prompts put right. Raises ValueError with the reason why it cannot be used."""
        layout = self.layout(row)
        if self._named:
            row = _with_paths(row, layout)
        format = self._format
        if format == "text":
            return self._text(row, layout)
        if format == "preference":
            result = self._preference(row, layout)
        else:
            if format == "messages" or format == "sharegpt":
                turns = self._listed(row, layout)
            elif format == "alpaca":
                turns = self._alpaca(row, layout)
            else:
                turns = self._pair(row, layout)
            if not turns:
                raise ValueError("no messages")
            result = Row(turns)
        if layout.tools is not None:
            result.tools = tools_of(row[layout.tools])
        self._put_system(result, row, layout)
        _check(result.said)
        return result

    def layout(self, row: Mapping[str, Any]) -> Layout:
        """Which of the columns of `row` plays which part."""
        keys = tuple(row)
        layout = self._layouts.get(keys)
        if layout is None:
            layout = self._layout(row)
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            self._layouts[keys] = layout
        return layout

    def _layout(self, row: Mapping[str, Any]) -> Layout:
        by_name: dict[str, str] = {}
        for name in row:
            if isinstance(name, str):
                by_name.setdefault(names.normal(name), name)

        def column(role: str, among: tuple[str, ...] = ()) -> str | None:
            if role in self._named:
                return _column(by_name, self._named[role])
            found = self._mapping.get(role)
            if found not in by_name:
                found = names.named(by_name, among)
            return by_name[found] if found in by_name else None

        lists = [by_name[name] for name in names.LISTS if name in by_name]
        if "messages" in self._named:
            only = _column(by_name, self._named["messages"])
            lists = [only] if only is not None else []
        elif self._mapping.get("messages") in by_name:
            first = by_name[self._mapping["messages"]]
            lists = [first, *(name for name in lists if name != first)]
        user, assistant = column("user"), column("assistant")
        reasoning = column("", names.REASONING)
        if self._format == "alpaca":
            user, assistant = column("user", names.INSTRUCTION), column("assistant", names.OUTPUT)
        elif self._format == "preference":
            user = column("user", names.PREFERENCE_PROMPT)
        elif self._format == "prompt_completion" and (user is None or assistant is None):
            found = names.ask_and_answer(tuple(by_name))
            if found is not None:
                user = by_name[found[0]] if "user" not in self._named else user
                assistant = by_name[found[1]] if "assistant" not in self._named else assistant
        context = column("context", names.CONTEXT if self._format == "alpaca" else ())
        return Layout(
            lists=tuple(lists),
            user=user,
            context=context if context != user else None,
            assistant=assistant,
            system=column("system", names.SYSTEM),
            tools=column("", names.TOOLS),
            reasoning=reasoning if reasoning not in (user, assistant, context) else None,
            text=column("text", names.TEXT),
            chosen=column("chosen", names.CHOSEN),
            rejected=column("rejected", names.REJECTED),
            history=by_name.get("history") if self._format == "alpaca" else None,
        )

    def _missing(self, role: str, otherwise: str) -> ValueError:
        name = self._named.get(role)
        return ValueError(f"no column {one_line(name, 40)}" if name else otherwise)

    def _text(self, row: Mapping[str, Any], layout: Layout) -> Row:
        if layout.text is None:
            raise self._missing("text", "no text column")
        text = text_of(row[layout.text], "text")
        if not text.strip():
            raise ValueError("empty text")
        if len(text) > MAX_ROW_CHARACTERS:
            raise ValueError("longer than 10 MB")
        return Row([Said("text", text)])

    def _listed(self, row: Mapping[str, Any], layout: Layout) -> list[Said]:
        for name in layout.lists:
            messages = as_messages(row[name])
            if messages is not None:
                return [said(message) for message in messages]
        if not layout.lists:
            raise self._missing("messages", "no messages column")
        value = row[layout.lists[0]]
        if value is None or value == "" or value == []:
            raise ValueError("no messages")
        messages = as_strings(value)
        if messages is None:
            raise ValueError(f"{one_line(names.normal(layout.lists[0]), 40)} is not a list of messages")
        return [said(message) for message in messages]

    def _alpaca(self, row: Mapping[str, Any], layout: Layout) -> list[Said]:
        if layout.user is None:
            raise self._missing("user", "no instruction column")
        if layout.assistant is None:
            raise self._missing("assistant", "no output column")
        turns: list[Said] = []
        if layout.history is not None:
            for pair in _pairs(row[layout.history]):
                turns += [
                    Said("user", text_of(pair[0], "history")),
                    Said("assistant", text_of(pair[1], "history")),
                ]
        question = self._question(row, layout, "instruction", "input")
        answer = text_of(row[layout.assistant], "output")
        return [*turns, Said("user", question), Said("assistant", answer, self._reasoning(row, layout))]

    def _question(self, row: Mapping[str, Any], layout: Layout, noun: str, context_noun: str) -> str:
        assert layout.user is not None
        question = text_of(row[layout.user], noun)
        if layout.context is None:
            return question
        context = text_of(row[layout.context], context_noun)
        return "\n\n".join(part for part in (question, context) if part.strip())

    def _reasoning(self, row: Mapping[str, Any], layout: Layout) -> str:
        value = row[layout.reasoning] if layout.reasoning is not None else None
        return writable(value).strip() if isinstance(value, str) else ""

    def _pair(self, row: Mapping[str, Any], layout: Layout) -> list[Said]:
        if layout.user is None:
            raise self._missing("user", "no prompt and completion columns")
        if layout.assistant is None:
            raise self._missing("assistant", "no prompt and completion columns")
        asked, answered = row[layout.user], row[layout.assistant]
        messages = _messages_in(asked)
        if messages is not None:
            turns = [said(message) for message in messages]
        else:
            turns = [Said("user", self._question(row, layout, names.normal(layout.user), "context"))]
        messages = _messages_in(answered)
        if messages is not None:
            return turns + [said(message) for message in messages]
        answer = text_of(answered, names.normal(layout.assistant))
        turns.append(Said("assistant", answer, self._reasoning(row, layout)))
        return turns

    def _preference(self, row: Mapping[str, Any], layout: Layout) -> Row:
        if layout.chosen is None:
            raise self._missing("chosen", "no chosen column")
        if layout.rejected is None:
            raise self._missing("rejected", "no rejected column")
        chosen = _side(row[layout.chosen], "chosen answer")
        rejected = _side(row[layout.rejected], "rejected answer")
        if not any(turn.role == "user" for turn in chosen):
            prompt = self._preference_prompt(row, layout)
            chosen, rejected = [*prompt, *chosen], [*prompt, *rejected]
        same = 0
        for one, other in zip(chosen, rejected, strict=False):
            if one != other:
                break
            same += 1
        if not chosen or chosen[-1].role != "assistant":
            raise ValueError("the chosen side does not end with an answer")
        return Row(chosen, "", tuple(rejected[same:]))

    def _preference_prompt(self, row: Mapping[str, Any], layout: Layout) -> list[Said]:
        for name in layout.lists:
            messages = as_messages(row[name])
            if messages is not None:
                return [said(message) for message in messages]
        if layout.user is None:
            raise self._missing("user", "no prompt beside chosen and rejected")
        messages = _messages_in(row[layout.user])
        if messages is not None:
            return [said(message) for message in messages]
        question = self._question(row, layout, "prompt", "context")
        return transcript(question) or [Said("user", question)]

    def _put_system(self, result: Row, row: Mapping[str, Any], layout: Layout) -> None:
        turns, mode = result.said, self._section.system_mode
        own = ""
        if mode == "keep" or mode == "add":
            if turns[0].role == "system":
                own = turns.pop(0).text
            elif layout.system is not None:
                own = text_of(row[layout.system], "system prompt")
            own = own if own.strip() else ""
        for turn in turns:
            if turn[0] == "system" and (mode in ("replace", "none") or not turn[1].strip()):
                turns[:] = [
                    t for t in turns if t.role != "system" or (t.text.strip() and mode in ("keep", "add"))
                ]
                break
        if mode == "none":
            return
        if mode == "add" and self._prompt:
            own = f"{self._prompt}\n\n{own}" if own else self._prompt
        own = own or self._prompt
        if own:
            turns.insert(0, Said("system", own))


def _column(by_name: Mapping[str, str], wanted: str) -> str | None:
    """The row's column by its name, or by the first part of a path (`translation.de`)."""
    if wanted in by_name:
        return by_name[wanted]
    return wanted if wanted.split(".")[0] in by_name and "." in wanted else None


def _with_paths(row: Mapping[str, Any], layout: Layout) -> Mapping[str, Any]:
    """The row, with a cell for each path that the layout names."""
    found: dict[str, Any] = {}
    columns = (*layout.lists, layout.user, layout.context, layout.assistant, layout.system)
    for path in (*columns, layout.text, layout.chosen, layout.rejected):
        if path is None or path in row:
            continue
        value: Any = row
        for part in path.split("."):
            cells = parsed(value)
            value = None
            if isinstance(cells, Mapping):
                value = next(
                    (v for k, v in cells.items() if isinstance(k, str) and names.normal(k) == part), None
                )
        found[path] = value
    return {**row, **found} if found else row


def _messages_in(value: Any) -> list[Mapping[str, Any]] | None:
    """Messages in a cell that mostly holds text: only a list of role or from counts."""
    if isinstance(value, str) and not value.lstrip().startswith("[{"):
        return None
    return as_messages(value)


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    value = parsed(value)
    if not isinstance(value, list | tuple):
        return []
    return [(pair[0], pair[1]) for pair in value if isinstance(pair, list | tuple) and len(pair) == 2]


def _side(value: Any, noun: str) -> list[Said]:
    messages = _messages_in(value)
    if messages is not None:
        return [said(message) for message in messages]
    text = text_of(value, noun)
    return transcript(text) or [Said("assistant", text)]


def _check(turns: list[Said]) -> None:
    size = 0
    first: str | None = None
    answered = False
    problem = ""
    for turn in turns:
        role, text = turn[0], turn[1]
        size += len(text) + len(turn[2]) + len(turn[3])
        if role == "assistant":
            answered = True
        if first is None and role != "system":
            first = role
        if (not text or text.isspace()) and not problem:
            if role == "assistant" and not turn.calls:
                problem = "empty answer"
            elif role == "user":
                problem = "empty question"
    if size > MAX_ROW_CHARACTERS:
        raise ValueError("longer than 10 MB")
    if not answered:
        raise ValueError("no assistant turn")
    if first == "assistant":
        raise ValueError("starts with an answer, no question before it")
    if first == "tool":
        raise ValueError("starts with a tool's answer, no question before it")
    if problem:
        raise ValueError(problem)
