"""A script's functions that read files, and the expression that calls one for a file."""

from __future__ import annotations

from dataclasses import dataclass, field

from .script_look import Part

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


@dataclass
class Names:
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


def is_numbered(part: Part) -> bool:
    """Whether the number of each row must be known: some are left out, or only a part of them is taken."""
    return bool(part.left_out) or part.weight % 1 != 0


def reader(part: Part, where: str, readers: Names, imports: set[str]) -> str:
    """The expression that gives the rows of `part`, which `where` names; pairs of number and row where `is_numbered`.

    The functions that it calls go to `readers`, what they need to `imports`.
    """
    numbered = is_numbered(part)
    if part.kind is None:
        config = f", name={part.config!r}" if part.config else ""
        rows = f"load_dataset({where}{config}, split={part.split!r})"
        return f"enumerate({rows}, 1)" if numbered else rows
    encoding = "utf-8-sig" if part.encoding.lower() in ("utf-8", "utf-8-sig") else part.encoding
    newline = ', newline=""' if part.kind in ("CSV", "TSV", "text") else ""
    opener = 'gzip.open(path, "rt"' if part.packing == "gzip" else "open(path"
    opened = f"{opener}, encoding={encoding!r}{newline})"
    if part.packing == "zstd":
        imports |= {"import pyarrow", "import io"}
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
        return f"read_{readers.of(template.format(**spots, options=options, header=header), 'csv')}({where})"
    if part.kind == "text":
        rows = f"read_{readers.of(_TEXT.format(**spots), 'text')}({where})"
        return f"enumerate({rows}, 1)" if numbered else rows
    if part.kind == "Parquet":
        imports.add("import pyarrow.parquet")
        table = "pyarrow.parquet.read_table(path).to_pylist()"
    else:
        imports.add("from datasets import Dataset")
        table = "Dataset.from_file(str(path))"
    template = _TABLE.format(name="{name}", returned=f"list(enumerate({table}, 1))" if numbered else table)
    return f"read_{readers.of(template, 'table')}({where})"
