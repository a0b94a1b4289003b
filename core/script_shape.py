"""A script's functions from a row to a conversation, and to text: one for each form that rows have."""

from __future__ import annotations

import textwrap

from .recipe import DatasetSection
from .script_traits import Traits


def shape(traits: Traits, section: DatasetSection) -> str:
    """The function from a row to a conversation, its name still open."""
    layout = traits.layout

    def cell(name: str | None) -> str:
        return f"text({_cell(traits, name, True)})" if traits.loose else _cell(traits, name)

    lines: list[str] = []
    if traits.format == "text":
        return f"def {{name}}(row):\n    return {cell(layout.text)}"
    if traits.format in ("messages", "sharegpt"):
        lines += _turns(
            traits,
            "row" if traits.bare else _cell(traits, layout.lists[0] if layout.lists else "messages"),
        )
    elif traits.format == "preference":
        lines += _preference(traits)
    elif traits.turns_in_cells:
        lines += [
            f"asked, answered = {_cell(traits, layout.user)}, {_cell(traits, layout.assistant)}",
            'turns = list(asked) if isinstance(asked, list) else [{"role": "user", "content": asked}]',
            'turns += answered if isinstance(answered, list) else [{"role": "assistant", "content": answered}]',
        ]
    else:
        question = cell(layout.user)
        if layout.context:
            lines += [
                f"parts = [{question}, {cell(layout.context)}]",
                'question = "\\n\\n".join(part for part in parts if part.strip())',
            ]
            question = "question"
        answer = cell(layout.assistant)
        reasoning = ""
        if layout.reasoning:
            lines.append(f'reasoning = ({_cell(traits, layout.reasoning, True)} or "").strip()')
            reasoning = ', "reasoning_content": reasoning, "thinking": reasoning'
        lines += [
            f'turns = [{{"role": "user", "content": {question}}}, {{"role": "assistant", "content": {answer}{reasoning}}}]'
        ]
    lines += _system(traits, section)
    if traits.tools:
        lines += _tools(traits)
    if len(lines) == 1 and lines[0].startswith("turns = "):
        lines = [lines[0].replace("turns = ", "return ", 1)]
    else:
        lines.append("return turns")
    body = "\n".join(lines)
    return f"def {{name}}(row):\n{textwrap.indent(body, '    ')}"


def _turns(traits: Traits, cell: str) -> list[str]:
    if traits.as_text:
        cell = f"json.loads({cell})"
    role = f"turn[{traits.role_key!r}]"
    lines: list[str] = []
    if traits.roles:
        lines.append(f"roles = {dict(traits.roles)!r}")
        role = f"roles[{role}]"
    content = (
        f"turn[{traits.content_key!r}]" if not traits.loose else f"text(turn.get({traits.content_key!r}))"
    )
    keep = f'{{"role": {role}, "content": {content}'
    if traits.weights:
        keep += ', "weight": turn.get("weight", turn.get("train", 1))'
    keep += "}"
    lines.append(f"turns = [{keep} for turn in {cell}]")
    extras: list[str] = []
    if traits.reasoning_key:
        extras += [
            f'if turn["role"] == "assistant" and said.get({traits.reasoning_key!r}):',
            f'    turn["reasoning_content"] = turn["thinking"] = said[{traits.reasoning_key!r}]',
        ]
    if traits.calls:
        extras += [
            'if said.get("tool_calls"):',
            '    turn["tool_calls"] = [tool_call(call) for call in said["tool_calls"]]',
        ]
    if traits.names:
        extras += ['if said.get("name"):', '    turn["name"] = said["name"]']
    if extras:
        lines.append(f"for turn, said in zip(turns, {cell}):")
        lines += [f"    {line}" for line in extras]
    return lines


def _preference(traits: Traits) -> list[str]:
    layout = traits.layout
    lines = ["# Of a pair only the chosen answer is learned."]
    if traits.turns_in_cells or traits.as_text:
        lines += [
            f"turns = {_cell(traits, layout.chosen)}",
            'turns = list(turns) if isinstance(turns, list) else [{"role": "assistant", "content": turns}]',
        ]
        if layout.user:
            lines += [
                'if all(turn["role"] != "user" for turn in turns):',
                f"    asked = {_cell(traits, layout.user)}",
                '    turns = (asked if isinstance(asked, list) else [{"role": "user", "content": asked}]) + turns',
            ]
        return [*lines, 'turns = [{"role": turn["role"], "content": turn["content"]} for turn in turns]']
    return [
        *lines,
        f'turns = [{{"role": "user", "content": {_cell(traits, layout.user)}}}, {{"role": "assistant", "content": {_cell(traits, layout.chosen)}}}]',
    ]


def _system(traits: Traits, section: DatasetSection) -> list[str]:
    """System prompts put right, by the recipe's mode."""
    mode, prompt = section.system_mode, bool(section.system_prompt)
    inside, column = traits.systems, traits.layout.system
    without = ['turns = [turn for turn in turns if turn["role"] != "system"]'] if inside else []
    first = 'turns = [{"role": "system", "content": SYSTEM_PROMPT}] + turns'
    if mode == "none":
        return without
    if mode == "replace":
        return [*without, first] if prompt else without
    if not inside and not column:
        return [first] if prompt else []
    own = ""
    other = f'{_cell(traits, column, get=True)} or ""' if column else '""'
    lines: list[str] = []
    if inside:
        own = f'turns.pop(0)["content"] if turns[0]["role"] == "system" else {other}'
    else:
        own = other
    lines.append(f"system = {own}")
    if prompt and mode == "keep":
        lines.append("system = system if system.strip() else SYSTEM_PROMPT")
    elif prompt:
        lines.append('system = f"{SYSTEM_PROMPT}\\n\\n{system}" if system.strip() else SYSTEM_PROMPT')
    if prompt:
        return [*lines, 'turns = [{"role": "system", "content": system}] + turns']
    return [*lines, "if system.strip():", '    turns = [{"role": "system", "content": system}] + turns']


def _tools(traits: Traits) -> list[str]:
    cell = _cell(traits, traits.layout.tools, get=True)
    return [
        f"tools = {cell} or []",
        "tools = json.loads(tools) if isinstance(tools, str) else tools",
        "if tools:  # kept with the first turn until the template is filled in",
        '    turns[0]["tools"] = [t if "function" in t else {"type": "function", "function": t} for t in tools]',
    ]


def _cell(traits: Traits, name: str | None, get: bool = False) -> str:
    """The expression for a cell of `row`, a path (`translation.de`) included; with `get`, None where it is not there."""
    if name is None:
        return "None"
    path = dict(traits.paths).get(name)
    if path is not None:
        return "row" + "".join(f"[{key!r}]" for key in path)
    return f"row.get({name!r})" if get else f"row[{name!r}]"
