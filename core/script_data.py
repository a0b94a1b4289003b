"""The part of a script that reads the dataset: every row as a list of turns, in the worker's order, split alike."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from .recipe import Recipe
from .script_look import Look, Part
from .script_read import Names, is_numbered, reader
from .script_shape import shape
from .script_text import Cell, literal

_SCATTER = '''
def scatter(number, seed=SEED):
    """A number that looks random and is the same in every process (splitmix64)."""
    z = (number + (seed + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)
'''
_QUESTION = '''
def question(row):
    """A number for what a row asks, case and spaces aside: rows of one number ask the same."""
    {asked}
    said = " ".join("\\n\\0".join(asked).lower().split())
    return int.from_bytes(hashlib.blake2b(said.encode("utf-8", "replace"), digest_size=8).digest(), "little")
'''
_HELD_OUT = """
# Rows that ask the same stay on the same side, or the test would be one of memory.
keys = [question(row) for row in rows]
counts = Counter(keys)
wanted = min(len(rows) - 1, max(1, round(len(rows) * {share!r})))
order, held_out, taken = sorted(counts, key=scatter), set(), 0
for key in order if len(counts) > 1 else ():
    if taken + counts[key] <= wanted:
        held_out.add(key)
        taken += counts[key]
if not held_out and len(counts) > 1:
    held_out = {{min(order, key=counts.get)}}
train_rows = [row for row, key in zip(rows, keys) if key not in held_out]
test_rows = [row for row, key in zip(rows, keys) if key in held_out]
"""
_JOIN = '''
def joined(rows):
    """Every {count} single questions as one conversation. Talks that have more turns already stay as they are."""
    done, waiting = [], None
    system = lambda row: row[0]["content"] if row[0]["role"] == "system" else ""
    for row in rows:
        if [turn["role"] for turn in row if turn["role"] != "system"] != ["user", "assistant"]{unless}:
            done.append(row)
            continue
        if waiting and system(waiting) != system(row):
            done.append(waiting)
            waiting = None
        waiting = waiting + [turn for turn in row if turn["role"] != "system"] if waiting else row
        if sum(turn["role"] == "user" for turn in waiting) == {count}:
            done.append(waiting)
            waiting = None
    return done + [waiting] if waiting else done
'''
_USABLE = '''
def usable(row):
    """A question comes first, an answer follows, and none is empty."""
    {plain}turns = [turn for turn in row if turn["role"] != "system"]
    return (
        len(turns) > 1
        and turns[0]["role"] == "user"
        and any(turn["role"] == "assistant" for turn in turns)
        and all(turn["content"].strip(){calls} for turn in turns if turn["role"] != "tool")
    )
'''


@dataclass(frozen=True)
class Data:
    """The dataset as code. After `cells` the script has `train_rows` and `test_rows`, lists of conversations."""

    cells: tuple[Cell, ...]
    imports: tuple[str, ...]
    systems: bool
    """Rows may have a system turn."""
    plain: bool
    """Some rows are plain writing: text instead of a list of turns."""
    all_plain: bool
    tools: bool
    weights: bool
    reasoning: bool


def make(recipe: Recipe, seen: Look, where: dict[str, str]) -> Data:
    """The code for `recipe`'s dataset as `seen`. `where` gives for the path of a part the expression that names it."""
    return _Data(recipe, seen, where).made()


class _Data:
    def __init__(self, recipe: Recipe, seen: Look, where: dict[str, str]) -> None:
        self.section, self.seen, self.where = recipe.dataset, seen, where
        self.parts = (*seen.training, *seen.evaluation)
        traits = [part.traits for part in self.parts]
        self.plain = any(one.format == "text" for one in traits)
        self.all_plain = all(one.format == "text" for one in traits)
        self.own_systems = any(one.systems or one.layout.system for one in traits)
        self.calls = any(one.calls for one in traits)
        self.tools = any(one.tools for one in traits)
        self.unsure = [part for part in self.parts if not part.whole]
        self.imports: set[str] = set()

    def made(self) -> Data:
        section, seen = self.section, self.seen
        own = bool(seen.evaluation)
        shared = not own and section.evaluation_share > 0
        readers, shapes = Names(), Names()
        calls = [self._rows(part, readers, shapes, True) for part in seen.training]
        tests = [self._rows(part, readers, shapes, False) for part in seen.evaluation]
        code: list[str] = []
        if not self.all_plain and section.system_prompt and section.system_mode != "none":
            code.append(f"SYSTEM_PROMPT = {literal(section.system_prompt)}")
        code += [*self._loose(), *self._tool_calls(), *shapes.code]
        if self.unsure and not self.all_plain:
            plain = "if isinstance(row, str):\n        return bool(row.strip())\n    " if self.plain else ""
            calls_too = ' or turn.get("tool_calls")' if self.calls else ""
            code.append(_USABLE.format(plain=plain, calls=calls_too).strip("\n"))
        collected = self._collected(calls)
        split = self._split(shared, own, tests)
        scattered = "scatter" in "\n".join([*collected, *split])
        if scattered:
            code.append(_SCATTER.strip("\n"))
        cells = [
            Cell("Read the rows", self._words_on_files(), "\n\n\n".join(readers.code))
            if readers.code
            else None,
            Cell(
                "Rows as conversations",
                self._words_on_rows(),
                "\n\n\n".join(code) + "\n\n\n" + "\n".join(collected),
            ),
            Cell("Held-out rows", self._words_on_split(shared, own), "\n".join(split)),
        ]
        everything = "\n".join(cell.code for cell in cells if cell)
        for name in ("json", "csv", "gzip", "hashlib"):
            if f"{name}." in everything:
                self.imports.add(f"import {name}")
        if "Counter(" in everything:
            self.imports.add("from collections import Counter")
        if "load_dataset(" in everything:
            self.imports.add("from datasets import load_dataset")
        systems = self.own_systems and section.system_mode in ("keep", "add")
        return Data(
            tuple(cell for cell in cells if cell),
            tuple(sorted(self.imports, key=lambda line: line.split()[1])),
            systems or bool(section.system_prompt and section.system_mode != "none"),
            self.plain,
            self.all_plain,
            self.tools,
            any(part.traits.weights for part in self.parts),
            any(part.traits.reasoning_key or part.traits.layout.reasoning for part in self.parts),
        )

    # ── What is read ──

    def _rows(self, part: Part, readers: Names, shapes: Names, training: bool) -> str:
        """The expression that gives the conversations of `part`."""
        where = self.where.get(part.path, repr(part.path))
        rows = reader(part, where, readers, self.imports)
        made_by = shapes.of(shape(part.traits, self.section), "to_conversation")
        numbered = is_numbered(part)
        conditions: list[str] = []
        if part.left_out:
            conditions.append(f"number not in {_numbers(part.left_out)}")
        made = f"{made_by}(row)"
        needs = []
        if not part.whole and part.traits.format != "text":
            needs.append("usable")
        if training and self.section.deduplicate:
            needs.append("is_new")
        if not training and self.section.deduplicate:
            needs.append("is_new")
        value = made
        for place, check in enumerate(needs):
            conditions.append(f"{check}(talk := {made})" if place == 0 else f"{check}(talk)")
            value = "talk"
        if part.weight != 1 and training:
            whole, rest = divmod(part.weight, 1)
            copies = f"{int(whole)}" if whole or not rest else ""
            if rest:
                part_of = f"(scatter(number + ({part.source} << 40)) < {rest!r} * 2**64)"
                copies = f"{copies} + {part_of}" if copies else part_of
            suffix = f" for _ in range({copies})"
        else:
            suffix = ""
        loop = f"for {'number, row' if numbered else 'row'} in {rows}"
        whether = f" if {' and '.join(conditions)}" if conditions else ""
        return f"[{value} {loop}{whether}{suffix}]"

    def _collected(self, calls: list[str]) -> list[str]:
        section = self.section
        lines: list[str] = []
        if section.deduplicate:
            lines += [
                "seen = set()",
                "",
                "",
                "def is_new(row):",
                '    """Whether no row before says exactly the same."""',
                "    said = json.dumps(row)",
                "    return said not in seen and not seen.add(said)",
                "",
                "",
            ]
        lines += [f"rows {'=' if index == 0 else '+='} {call}" for index, call in enumerate(calls)]
        if section.row_limit is not None:
            if section.shuffle:
                lines += [
                    f"# A fair sample of {section.row_limit:,} rows, in the order that they have.",
                    f"if len(rows) > {section.row_limit}:",
                    "    chance = [scatter(index, SEED ^ 0x5EED) for index in range(len(rows))]",
                    f"    most = sorted(chance)[{section.row_limit - 1}]",
                    "    rows = [row for row, one in zip(rows, chance) if one <= most]",
                ]
            else:
                lines.append(f"rows = rows[:{section.row_limit}]")
        return lines

    def _split(self, shared: bool, own: bool, tests: list[str]) -> list[str]:
        lines: list[str] = []
        if shared:
            asked = 'asked = [turn["content"] for turn in row if turn["role"] == "user"]'
            if self.all_plain:
                asked = "asked = [row]"
            elif self.plain:
                asked = asked.replace("[turn", "[row] if isinstance(row, str) else [turn", 1)
            lines += [_QUESTION.format(asked=asked).strip("\n"), "\n"]
            lines += [_HELD_OUT.format(share=self.section.evaluation_share).strip("\n")]
        else:
            lines.append("train_rows = rows")
            if own:
                if self.section.deduplicate:
                    lines.append("seen.clear()")
                lines += [f"test_rows {'=' if i == 0 else '+='} {call}" for i, call in enumerate(tests)]
            else:
                lines.append("test_rows = []")
        if self.section.join_rows > 1 and not self.all_plain:
            unless = " or isinstance(row, str)" if self.plain else ""
            if self.tools:
                unless += ' or "tools" in row[0]'
            join = _JOIN.format(count=self.section.join_rows, unless=unless).strip("\n")
            if self.plain:
                join = join.replace("if [turn", "if isinstance(row, str) or [turn").replace(
                    " or isinstance(row, str):", ":"
                )
            lines += ["\n", join, "\n", "train_rows, test_rows = joined(train_rows), joined(test_rows)"]
        lines += ['print(f"{len(train_rows)} rows to train on, {len(test_rows)} held out")']
        return lines

    # ── What a row is ──

    def _loose(self) -> list[str]:
        if not any(part.traits.loose for part in self.parts):
            return []
        return [
            'def text(cell):\n    """A cell as text; an empty one is no text."""\n    return "" if cell is None else str(cell)'
        ]

    def _tool_calls(self) -> list[str]:
        if not self.calls:
            return []
        return [
            textwrap.dedent('''
            def tool_call(call):
                """A tool call with its arguments as an object, which is how chat templates take them."""
                function = call.get("function", call)
                arguments = function.get("arguments") or {}
                if isinstance(arguments, str):
                    arguments = json.loads(arguments)
                arguments = {name: value for name, value in arguments.items() if value is not None}
                made = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
                return {**made, "id": call["id"]} if call.get("id") else made
            ''').strip("\n")
        ]

    # ── In words ──

    def _words_on_files(self) -> str:
        if self.seen.problem:
            return "The data could not be looked at when this was written: check the names of columns below."
        return ""

    def _words_on_rows(self) -> str:
        words: list[str] = []
        odd = dict.fromkeys(one for part in self.parts for one in part.traits.odd)
        for part in self.parts:
            if part.reasons:
                total = sum(count for _, count in part.reasons)
                reasons = ", ".join(f"{reason} ({count:,})" for reason, count in part.reasons)
                words.append(
                    f"{total:,} {'row' if total == 1 else 'rows'} cannot be used and {'is' if total == 1 else 'are'} left out: {reasons}."
                )
        if odd:
            words.append(f"Not read here as it was in the run, for the sake of brevity: {', '.join(odd)}.")
        return " ".join(words)

    def _words_on_split(self, shared: bool, own: bool) -> str:
        if shared:
            return "These are never trained on. Their loss tells whether the model learns the skill, or the rows by heart."
        if own:
            return "They are never trained on, and come from elsewhere than the training rows."
        return "None are held out, so nothing will tell learning from memorising."


def _numbers(numbers: tuple[int, ...]) -> str:
    return "{" + ", ".join(map(str, numbers)) + "}"
