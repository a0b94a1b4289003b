"""The part of a script that reads the dataset: every row as a list of turns, in the worker's order, split alike."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

from .recipe import Recipe
from .script_look import Look, Part, Traits
from .script_text import Cell, literal

_JSONL = """
def read_{name}(path):
    with {opened} as file:
        return [json.loads(line) for line in file if line.strip()]
"""
_NUMBERED_JSONL = '''
def read_{name}(path):
    """Each line's number and its row."""
    with {opened} as file:
        return [(number, json.loads(line)) for number, line in enumerate(file, 1) if line.strip()]
'''
_TOLERANT_JSONL = '''
def read_{name}(path):
    """Each line's number and its row; a line that is no JSON object is nothing."""
    rows = []
    with {opened} as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append((number, json.loads(line)))
            except ValueError:
                pass
    return rows
'''
_JSON = """
def read_{name}(path):
    with {opened} as file:
        found = json.load(file)
    if isinstance(found, dict):  # an object of lists, or of columns
        lists = [rows for rows in found.values() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
        found = found[{split}] if {split} in found else lists[0] if lists else [
            dict(zip(found, cells)) for cells in zip(*found.values())
        ]
    return {returned}
"""
_CSV = """
def read_{name}(path):
    with {opened} as file:
        return list(csv.DictReader(file{options}))
"""
_NUMBERED_CSV = '''
def read_{name}(path):
    """The line that each row begins at, and the row."""
    rows, begins = [], 1
    with {opened} as file:
        reader = csv.reader(file{delimiter})
        header = {header}
        for cells in reader:
            number, begins = begins, reader.line_num + 1
            if header is None:
                header = [cell.strip() for cell in cells]
            elif any(cells):
                rows.append((number, dict(zip(header, cells))))
    return rows
'''
_TABLE = """
def read_{name}(path):
    return {returned}
"""
_TEXT = '''
def read_{name}(path):
    """Whole paragraphs in blocks of some 2,000 characters; a heading starts a new one when the block is half full."""
    blocks, lines, length = [], [], 0
    with {opened} as file:
        middle = False  # of a line that is longer than a block
        while piece := file.readline(2000):
            inside, middle = middle, not piece.endswith(("\\n", "\\r"))
            blank = not piece.strip() and not inside
            heading = not inside and piece.startswith("#") and length >= 1000
            if lines and ((blank and length >= 2000) or heading or length >= 4000):
                blocks.append("".join(lines))
                lines, length = [], 0
            if lines or not blank:
                lines.append(piece)
                length += len(piece)
    blocks.append("".join(lines))
    texts = [block.replace("\\r\\n", "\\n").strip() for block in blocks]
    return [{{"text": text}} for text in texts if text]
'''

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


@dataclass
class _Names:
    """One function for one kind of reading or of row, however many files share it."""

    code: list[str] = field(default_factory=list[str])
    known: dict[str, str] = field(default_factory=dict[str, str])

    def of(self, template: str, base: str) -> str:
        """The name of the function that `template` (with a {name} that is still open) makes; added where it is new."""
        name = self.known.get(template)
        if name is None:
            taken = sum(1 for one in self.known.values() if one == base or one.startswith(f"{base}_"))
            name = self.known[template] = base if not taken else f"{base}_{taken + 1}"
            self.code.append(template.replace("{name}", name).strip("\n"))
        return name


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
        readers, shapes = _Names(), _Names()
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

    def _numbered(self, part: Part) -> bool:
        return bool(part.left_out) or part.weight % 1 != 0

    def _reader(self, part: Part, readers: _Names) -> str:
        """The expression that gives the rows of `part`; pairs of number and row where `_numbered`."""
        where = self.where.get(part.path, repr(part.path))
        numbered = self._numbered(part)
        if part.kind is None:
            config = f", name={part.config!r}" if part.config else ""
            rows = f"load_dataset({where}{config}, split={part.split!r})"
            return f"enumerate({rows}, 1)" if numbered else rows
        encoding = "utf-8-sig" if part.encoding.lower() in ("utf-8", "utf-8-sig") else part.encoding
        newline = ', newline=""' if part.kind in ("CSV", "TSV", "text") else ""
        opener = 'gzip.open(path, "rt"' if part.packing == "gzip" else "open(path"
        opened = f"{opener}, encoding={encoding!r}{newline})"
        if part.packing == "zstd":
            self.imports |= {"import pyarrow", "import io"}
            opened = f'io.TextIOWrapper(pyarrow.input_stream(path, compression="zstd"), encoding={encoding!r}{newline})'
        delimiter = f", delimiter={part.delimiter!r}" if part.delimiter != "," else ""
        spots = {"opened": opened, "delimiter": delimiter, "name": "{name}"}
        if part.kind == "JSONL":
            broken = any(
                "JSON" in reason or "zeros" in reason or "nested" in reason for reason, _ in part.reasons
            )
            template = _TOLERANT_JSONL if broken else _NUMBERED_JSONL if numbered else _JSONL
            return f"read_{readers.of(template.format(**spots), 'jsonl')}({where})"
        if part.kind == "JSON":
            returned = "list(enumerate(found, 1))" if numbered else "found"
            template = _JSON.format(**spots, split=repr(part.split), returned=returned)
            return f"read_{readers.of(template, 'json')}({where})"
        if part.kind in ("CSV", "TSV"):
            options = delimiter + (f", fieldnames={list(part.header)!r}" if part.header else "")
            header = repr(list(part.header)) if part.header else "None"
            template = _NUMBERED_CSV if numbered else _CSV
            return (
                f"read_{readers.of(template.format(**spots, options=options, header=header), 'csv')}({where})"
            )
        if part.kind == "text":
            rows = f"read_{readers.of(_TEXT.format(**spots), 'text')}({where})"
            return f"enumerate({rows}, 1)" if numbered else rows
        if part.kind == "Parquet":
            self.imports.add("import pyarrow.parquet")
            table = "pyarrow.parquet.read_table(path).to_pylist()"
        else:
            self.imports.add("from datasets import Dataset")
            table = "Dataset.from_file(str(path))"
        template = _TABLE.format(
            name="{name}", returned=f"list(enumerate({table}, 1))" if numbered else table
        )
        return f"read_{readers.of(template, 'table')}({where})"

    def _rows(self, part: Part, readers: _Names, shapes: _Names, training: bool) -> str:
        """The expression that gives the conversations of `part`."""
        rows = self._reader(part, readers)
        shape = shapes.of(self._shape(part.traits), "to_conversation")
        numbered = self._numbered(part)
        conditions: list[str] = []
        if part.left_out:
            conditions.append(f"number not in {_numbers(part.left_out)}")
        made = f"{shape}(row)"
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

    def _shape(self, traits: Traits) -> str:
        """The function from a row to a conversation, its name still open."""
        layout = traits.layout

        def cell(name: str | None) -> str:
            return f"text({_cell(traits, name, True)})" if traits.loose else _cell(traits, name)

        lines: list[str] = []
        if traits.format == "text":
            return f"def {{name}}(row):\n    return {cell(layout.text)}"
        if traits.format in ("messages", "sharegpt"):
            lines += self._turns(
                traits,
                "row" if traits.bare else _cell(traits, layout.lists[0] if layout.lists else "messages"),
            )
        elif traits.format == "preference":
            lines += self._preference(traits)
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
        lines += self._system(traits)
        if traits.tools:
            lines += self._tools(traits)
        if len(lines) == 1 and lines[0].startswith("turns = "):
            lines = [lines[0].replace("turns = ", "return ", 1)]
        else:
            lines.append("return turns")
        body = "\n".join(lines)
        return f"def {{name}}(row):\n{textwrap.indent(body, '    ')}"

    def _turns(self, traits: Traits, cell: str) -> list[str]:
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

    def _preference(self, traits: Traits) -> list[str]:
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

    def _system(self, traits: Traits) -> list[str]:
        """System prompts put right, by the recipe's mode."""
        mode, prompt = self.section.system_mode, bool(self.section.system_prompt)
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

    def _tools(self, traits: Traits) -> list[str]:
        cell = _cell(traits, traits.layout.tools, get=True)
        return [
            f"tools = {cell} or []",
            "tools = json.loads(tools) if isinstance(tools, str) else tools",
            "if tools:  # kept with the first turn until the template is filled in",
            '    turns[0]["tools"] = [t if "function" in t else {"type": "function", "function": t} for t in tools]',
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


def _cell(traits: Traits, name: str | None, get: bool = False) -> str:
    """The expression for a cell of `row`, a path (`translation.de`) included; with `get`, None where it is not there."""
    if name is None:
        return "None"
    path = dict(traits.paths).get(name)
    if path is not None:
        return "row" + "".join(f"[{key!r}]" for key in path)
    return f"row.get({name!r})" if get else f"row[{name!r}]"


def _numbers(numbers: tuple[int, ...]) -> str:
    return "{" + ", ".join(map(str, numbers)) + "}"
