"""What a script must know of a dataset to read it as the worker does: files, columns, shapes of rows, rows to leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import dataset as dataset_step
from .dataset_csv import delimiter_of, header_of
from .dataset_formats import Format
from .dataset_inputs import FileRead, Input, evaluation_inputs, source_kind, training_inputs
from .dataset_marks import learned
from .dataset_rows import Layout
from .dataset_source import FileKind, Source
from .errors import FinetuiError
from .recipe import DEMO, DatasetSection
from .script_traits import Gathered, Traits
from .text import one_line

MOST_ROWS = 200_000
"""Rows of a file that are looked at for what must be left out; those past it are taken to be clean."""

MOST_LEFT_OUT = 500
"""Line numbers that a script lists one by one."""


@dataclass(frozen=True)
class Part:
    """A file, or a hub dataset, that rows come from."""

    path: str
    """Absolute; a hub dataset's id."""
    kind: FileKind | None
    """None for a hub dataset."""
    traits: Traits
    source: int = 0
    """Its place among the mixed sources."""
    weight: float = 1.0
    encoding: str = "utf-8"
    packing: str = ""
    delimiter: str = ","
    header: tuple[str, ...] = ()
    """Names for the columns of a table that has none of its own."""
    config: str | None = None
    split: str = "train"
    demo: bool = False
    left_out: tuple[int, ...] = ()
    """Numbers of rows (lines of a text file) that cannot be used."""
    reasons: tuple[tuple[str, int], ...] = ()
    whole: bool = False
    """Every row was looked at, so `left_out` is all there is."""


@dataclass(frozen=True)
class Look:
    """A dataset as it was found, or as it is taken to be where it could not be looked at (`problem` says why)."""

    training: tuple[Part, ...]
    evaluation: tuple[Part, ...] = ()
    problem: str = ""


def look(section: DatasetSection) -> Look:
    """Reads what `section` names, local files whole (up to `MOST_ROWS` rows each). Blocking, seconds for large files;
    a hub dataset is asked for its first rows. Never fails: what cannot be looked at is taken to be of the usual form."""
    try:
        training = [part for entry in training_inputs(section, _unread) for part in _parts(entry, section)]
        evaluation = [
            part for entry in evaluation_inputs(section, _unread) for part in _parts(entry, section)
        ]
        if not training:
            raise FinetuiError("It holds no rows.")
    except (FinetuiError, OSError, ValueError) as error:
        return replace(unseen(section), problem=one_line(str(getattr(error, "what", error)), 200))
    return Look(_of_split(training, section), _of_split(evaluation, section, held_out=True))


def unseen(section: DatasetSection) -> Look:
    """What `section` says by itself, with the usual columns for what it leaves open."""
    training = [_guessed(section.source, section, 0, 1.0)]
    for source, weight in (section.mix or {}).items():
        training.append(_guessed(source, section, len(training), weight))
    evaluation: tuple[Part, ...] = ()
    if section.evaluation_source:
        evaluation = (_guessed(section.evaluation_source, section, 0, 1.0, held_out=True),)
    elif section.evaluation_split:
        evaluation = (replace(training[0], split=section.evaluation_split),)
    return Look(tuple(training), evaluation)


def _unread(_source: str, _config: str | None, _split: str) -> Iterable[Mapping[str, Any]]:
    return ()


def _of_split(parts: list[Part], section: DatasetSection, held_out: bool = False) -> tuple[Part, ...]:
    split = section.split
    if held_out and section.evaluation_split:
        split = section.evaluation_split
    return tuple(replace(part, split=split) for part in parts)


def _parts(entry: Input, section: DatasetSection) -> list[Part]:
    if entry.sources is None:
        return [_of_hub(str(entry.names[0]), section, entry)]
    found: list[Part] = []
    for source, read in zip(entry.sources, entry.read(section), strict=True):
        part = _read(source, read, section)
        found.append(
            replace(part, source=entry.index, weight=entry.weight, demo=source.path.parent == _demo_folder())
        )
    return found


def _demo_folder() -> Path:
    from . import demo

    return demo.train_path().parent


def _of_hub(name: str, section: DatasetSection, entry: Input) -> Part:
    config = section.config if entry.index == 0 else None
    alone = {"source": name, "config": config, "mix": None, "evaluation_source": None, "row_limit": None}
    facts = dataset_step.inspect(section.model_copy(update={**alone, "evaluation_split": None}))
    mapping = facts.detection.mapping
    columns: dict[str, Any] = {
        role: mapping[role]
        for role in (
            "user",
            "context",
            "assistant",
            "system",
            "tools",
            "reasoning",
            "text",
            "chosen",
            "rejected",
        )
        if role in mapping
    }
    lists = (mapping["messages"],) if "messages" in mapping else ()
    turns = [turn for row in facts.first for turn in row]
    shares = facts.detection.format == "sharegpt"
    traits = Traits(
        facts.detection.format,
        Layout(lists=lists, **columns),
        role_key="from" if shares else "role",
        content_key="value" if shares else "content",
        roles=_USUAL_ROLES if shares else (),
        systems=any(turn.role == "system" for turn in turns),
        reasoning_key="reasoning_content" if lists and any(turn.reasoning for turn in turns) else "",
        calls=any(turn.calls for turn in turns),
        names=any(turn.name for turn in turns),
        loose=True,
    )
    return Part(name, None, traits, entry.index, entry.weight, config=config)


_USUAL_ROLES = (
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("system", "system"),
)


def _guessed(source: str, section: DatasetSection, index: int, weight: float, held_out: bool = False) -> Part:
    format: Format = "messages" if section.format == "auto" else section.format
    columns: dict[str, Any] = {
        "alpaca": {"user": "instruction", "context": "input", "assistant": "output"},
        "prompt_completion": {"user": "prompt", "assistant": "completion"},
        "text": {"text": "text"},
        "preference": {"user": "prompt", "chosen": "chosen", "rejected": "rejected"},
        "sharegpt": {"lists": ("conversations",)},
        "messages": {"lists": ("messages",)},
    }[format]
    named: dict[str, Any] = {str(role): column for role, column in (section.columns or {}).items()}
    if "messages" in named:
        named["lists"] = (named.pop("messages"),)
    shares = format == "sharegpt"
    traits = Traits(
        format,
        Layout(**(columns | named)),
        role_key="from" if shares else "role",
        content_key="value" if shares else "content",
        roles=_USUAL_ROLES if shares else (),
        systems=True,
        loose=True,
    )
    try:
        hub = source_kind(source) == "hub"
    except FinetuiError:
        hub = False
    demo = source == DEMO
    if demo:
        from . import demo as demo_data

        source = str(demo_data.heldout_path() if held_out else demo_data.train_path())
    kind: FileKind | None = None if hub else "JSONL"
    name = source.lower()
    for ending, kinds in ((".csv", "CSV"), (".tsv", "TSV"), (".parquet", "Parquet"), (".json", "JSON")):
        if not hub and name.endswith(ending):
            kind = kinds  # type: ignore[assignment]
    path = source if hub else str(Path(source).expanduser().absolute())
    config = section.config if index == 0 and not held_out else None
    return Part(path, kind, traits, index, weight, config=config, split=section.split, demo=demo)


def _read(source: Source, read: FileRead, section: DatasetSection) -> Part:
    format: Format = read.detection.format if read.detection else "messages"
    gathered = Gathered(format)
    reasons: Counter[str] = Counter()
    left_out: list[int] = []
    count = 0
    bare = source.kind == "JSONL" and source.head.lstrip().startswith("[")
    for located in read.rows:
        count += 1
        if count > MOST_ROWS:
            break
        reason = located.problem
        if not reason:
            try:
                learned(read.reader.read(located.row).said, section)
            except ValueError as error:
                reason = one_line(str(error), 100)
        if reason:
            reasons[reason] += 1
            left_out.append(located.number)
            continue
        gathered.take(located.row, read.reader.layout(located.row), bare)
    table = source.kind in ("CSV", "TSV")
    return Part(
        str(source.path.absolute()),
        source.kind,
        gathered.traits(),
        encoding=source.encoding or "utf-8",
        packing=source.packing,
        delimiter=delimiter_of(source) if table else ",",
        header=tuple(header_of(source) or ()) if table else (),
        left_out=tuple(left_out[:MOST_LEFT_OUT]),
        reasons=tuple(reasons.most_common(5)),
        whole=count <= MOST_ROWS and len(left_out) <= MOST_LEFT_OUT,
    )
