"""The measured table, memory_points.csv, and how far the predictions of `core/memory.py` are from it.

`python -m tests.bench.gpu.memory_table` writes those errors into the README.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

from finetui.core.memory import estimate_shape
from finetui.core.memory_parts import GIB, MemoryEstimate
from finetui.core.memory_shape import from_config

from . import shapes
from .memory_one import Point, recipe_of

TABLE = Path(__file__).with_name("memory_points.csv")


def predicted_gib(point: Point) -> float:
    """What `core/memory.py` says of `point`, in GiB."""
    return predicted(point).gpu_reserved_bytes / GIB


def predicted(point: Point) -> MemoryEstimate:
    """What `core/memory.py` says of `point`, from the shape's config.json."""
    recipe = recipe_of(point, "model", "rows")
    shape = from_config(shapes.SHAPES[point.shape])
    assert shape is not None
    card = int((point.card_gib or 80) * GIB)
    lengths = point.row_tokens
    return estimate_shape(
        recipe, shape, card_bytes=card, longest_tokens=max(lengths), pads=len(set(lengths)) > 1
    )


def read(file: Path) -> list[dict[str, Any]]:
    """The answers in a points.jsonl that are measurements, each with its `Point` and whether it was its process's first."""
    found, begun = [], set[str]()
    for line in file.read_text().splitlines():
        answer = json.loads(line)
        if "point" in answer:
            point = Point(**answer["point"])
            if "error" not in answer:
                found.append(answer | {"point": point, "first": point.key not in begun})
            begun.add(point.key)
    return found


def card_of(file: Path) -> str:
    """The card that a points.jsonl was measured on."""
    return next((json.loads(line)["card"] for line in file.read_text().splitlines() if '"card"' in line), "")


COLUMNS = (
    *(field.name for field in dataclasses.fields(Point) if field.name != "trace"),
    "loaded_bytes",
    "allocated_bytes",
    "reserved_bytes",
    "offloaded_bytes",
    "host_bytes",
    "card",
)
"""Of the table. `reserved_bytes`: torch.cuda.max_memory_reserved() over loading, steps and evaluation. `offloaded_bytes`
(pinned host memory) and `host_bytes` (the highest resident memory) only of points that were the first of their process."""


def point_key(point: Point) -> Point:
    """`point` without what does not change the measurement."""
    return dataclasses.replace(point, trace=False)


def add_to_table(answers: list[dict[str, Any]], card: str, file: Path) -> None:
    """Adds measurements to the CSV in `file`, in place of older ones of the same points.

    What an earlier point left behind in its process is taken off.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        usual = {field.name: str(field.default) for field in dataclasses.fields(Point)}
        rows: list[dict[str, Any]] = [usual | row for row in csv.DictReader(stream)]
    for answer in answers:
        point: Point = answer["point"]
        row = {name: getattr(point, name) for name in COLUMNS if hasattr(point, name)}
        row |= {
            "loaded_bytes": answer["loaded_allocated"] - answer["before_allocated"],
            "allocated_bytes": max(answer["allocated"], answer["load_peak_allocated"])
            - answer["before_allocated"],
            "reserved_bytes": answer["reserved_whole"] - answer["before_allocated"],
            "offloaded_bytes": answer["pinned"] if answer["first"] else 0,
            "host_bytes": answer["host"]["VmHWM"] if answer["first"] else 0,
            "card": card,
        }
        rows.append({name: str(value) for name, value in row.items()})
    names = [field.name for field in dataclasses.fields(Point) if field.name != "trace"]
    rows = list({tuple(row[name] for name in names): row for row in rows}.values())
    rows = [{name: row[name] for name in COLUMNS} for row in rows]
    rows.sort(key=lambda row: [row[name] for name in ("split", "shape", "precision")])
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A row of the table."""

    point: Point
    reserved_bytes: int
    allocated_bytes: int
    loaded_bytes: int
    offloaded_bytes: int
    host_bytes: int

    @property
    def error(self) -> float:
        """The prediction against the measurement: 0.05 is 5 % too much, negative is too little."""
        return predicted(self.point).gpu_reserved_bytes / self.reserved_bytes - 1


def read_table(file: Path = TABLE) -> list[Measured]:
    """The rows of the table."""
    kinds = {field.name: type(field.default) for field in dataclasses.fields(Point)}
    found = []
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            values: dict[str, Any] = {"shape": row["shape"]}
            for name, kind in kinds.items():
                if name in row and name != "shape":
                    values[name] = row[name] == "True" if kind is bool else kind(row[name])
            names = ("reserved", "allocated", "loaded", "offloaded", "host")
            figures = (int(row[f"{name}_bytes"]) for name in names)
            found.append(Measured(Point(**values), *figures))
    return found


def summary(rows: list[Measured]) -> str:
    """Points, mean and largest error of `rows`, and how far below the truth the worst one is."""
    errors = [row.error for row in rows]
    mean = sum(map(abs, errors)) / len(errors)
    return (
        f"{len(errors):>4} points, mean {mean:6.1%}, most {max(map(abs, errors)):6.1%}, "
        f"highest {max(errors):+6.1%}, lowest {min(errors):+6.1%}"
    )


README = Path(__file__).parents[3] / "README.md"
BEGIN, END = (
    "<!-- made by python -m tests.bench.gpu.memory_table -->\n",
    "<!-- end of what was made -->\n",
)


def _percent(share: float, sign: str = "") -> str:
    return f"{100 * share:{sign}.1f} %".replace("-", "−")


def for_readme(rows: list[Measured]) -> str:
    """The errors of both splits as the README shows them, those of packed rows apart, and what was varied."""
    lines = ["| points | how many | mean error | largest | farthest below |", "|---|---|---|---|---|"]
    for packing in (False, True):
        for split, words in (("fit", "fitted to"), ("held-out", "held out")):
            chosen = [row for row in rows if row.point.split == split and row.point.packing == packing]
            if not chosen:
                continue
            errors = [row.error for row in chosen]
            names = ", ".join(sorted({row.point.shape for row in chosen}))
            mean, most = sum(map(abs, errors)) / len(errors), max(map(abs, errors))
            shown = f"{len(errors)} | {_percent(mean)} | {_percent(most)} | {_percent(min(0.0, *errors))}"
            lines.append(f"| {'packed, ' if packing else ''}{words}: {names} | {shown} |")
    points = [row.point for row in rows]

    def span(name: str) -> str:
        values = sorted({getattr(point, name) for point in points})
        return f"{values[0]:,} to {values[-1]:,}"

    def every(name: str) -> str:
        return ", ".join(sorted({str(getattr(point, name)) for point in points}))

    both = len({point.checkpointing for point in points}) == 2
    lines += [
        "",
        f"They vary {every('precision')}; {span('length')} tokens a row, {span('batch')} rows at once, rank {span('rank')};",
        f"methods: {every('method')}; checkpointing {'on and off' if both else 'on'}; {every('optimizer')}.",
    ]
    return "\n".join(lines) + "\n"


def write_readme(rows: list[Measured], readme: Path = README) -> None:
    """Puts `for_readme` between its marks in the README."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}{for_readme(rows)}{END}{after}", encoding="utf-8")


def compare(rows: list[Measured]) -> None:
    """Prints the errors by split and family, and the worst points."""
    for split in ("fit", "held-out"):
        chosen = [row for row in rows if row.point.split == split]
        if chosen:
            print(f"{split:<30}{summary(chosen)}")
        for key in sorted({(row.point.shape, row.point.precision) for row in chosen}):
            part = [row for row in chosen if (row.point.shape, row.point.precision) == key]
            print(f"  {' '.join(key):<28}{summary(part)}")
    for row in sorted(rows, key=lambda row: -abs(row.error))[:20]:
        print(f"{row.error:+7.1%} {row.reserved_bytes / GIB:7.2f} GiB {row.point}")


if __name__ == "__main__":
    write_readme(read_table())
