"""A bundle for a bug report: what a run did and on what, without its data and without who it was.

Rows, prompts, answers and the person's own texts are no part of it. What libraries printed may quote them, so that is
compared with the rows first; where these cannot be read through here, only its frame is kept.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import atomic, doctor, recipe_file
from ..dataset_files import read_rows
from ..demo.recipe import demo_recipe
from ..errors import FinetuiError
from ..model_catalog import CATALOG
from ..recipe import DEMO, Recipe
from . import crash, event_log, events, manifest, state
from .hiding import LEFT_OUT, Names, texts_in, without
from .store import RunFolder

LOG_BYTES = 256 * 1024
MOST_STEPS = 2000
MOST_OTHERS = 4000
SECONDS = 30.0
"""For the comparison with the rows."""

_RECOMMENDED = frozenset(model.id for model in CATALOG)
_FREE = ("what", "why", "fix", "text", "sentence", "command", "failed", "path")
"""Fields of events that hold sentences; what else is text there are names out of our own lists."""
_FRAME = re.compile(r'Traceback \(most recent call last\):|  File ".*", line \d+.*|\s+[~^]+\s*|finetui: \w.*')
_FAULT = re.compile(
    r"((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt|Iteration|Warning))\b.*"
)

_ABOUT = """A report on a run of finetui, for whoever looks for a fault.

  recipe.yaml    the settings, without prompts; files by their kind only
  manifest.json  versions, and how the run was started
  events.jsonl   what happened: the newest {steps:,} steps, the newest {others:,} of the rest
  worker.log     the end of what the libraries printed
  crash.log      what the worker said as it died, if it did
  doctor.txt     what this machine can do
  versions.txt   what is installed now

Left out: tokens, rows, prompts, answers, system prompts, notes, paths of this machine, names of user, host and run, and
of models and datasets but for the models that finetui recommends.
{compared}
Look through it before you send it.
"""


def make(run: RunFolder) -> dict[str, str]:
    """The files of the bundle, by name. Blocking, up to half a minute over many rows. Raises nothing for damaged files: what
    cannot be read is missing."""
    recipe = _recipe(run)
    names = Names(_sources(run, recipe))
    told = list(_shown(event_log.read_all(run.events)))
    log = crash.log_tail(run, LOG_BYTES).splitlines()
    words = crash.own_words(run).splitlines()
    texts = [text for one in told for text in _free(one)] + log + words
    rows = _Rows(recipe)
    said = itertools.chain(_own(run, recipe), rows)
    cleared, finished = without(texts, said, SECONDS)
    compared = finished and rows.whole
    status = state.status(run)
    found = {
        "about.txt": _ABOUT.format(
            steps=MOST_STEPS,
            others=MOST_OTHERS,
            compared="What was printed was compared with all rows, and shares nothing with them."
            if compared
            else "The rows could not be gone through here, so only the frame of what was printed is kept.",
        ),
        "status.txt": names.hide(
            "".join(f"{f.name}: {getattr(status, f.name)}\n" for f in _plain_fields(status)), quoted=False
        ),
        "events.jsonl": "".join(json.dumps(_line(one, cleared, names, compared)) + "\n" for one in told),
        "worker.log": _log(log, cleared, names, compared),
        "crash.log": _log(words, cleared, names, compared),
        "doctor.txt": "".join(
            names.hide(f"{check.status:<5}{check.name:<18}{check.detail} {check.fix}", quoted=False).rstrip()
            + "\n"
            for check in doctor.checks()
        ),
        "versions.txt": "".join(f"{name} {version}\n" for name, version in manifest.versions().items()),
    }
    if recipe is not None:
        found["recipe.yaml"] = names.hide(recipe_file.dump(_impersonal(recipe)), quoted=False)
    launched = manifest.read(run)
    if launched is not None:
        kept = dataclasses.asdict(launched) | {"host": "", "sources": len(launched.sources)}
        found["manifest.json"] = names.hide(json.dumps(kept, indent=1), quoted=False)
    return found


def name(run: RunFolder) -> str:
    """What the bundle of `run` is called where nobody says otherwise."""
    when = re.match(r"\d{8}-\d{6}", run.id)
    return f"finetui-report-{when[0] if when else 'run'}.zip"


def write(run: RunFolder, target: Path) -> tuple[str, ...]:
    """Writes the bundle whole to `target` (0600), and returns the names of its files. Raises FinetuiError (file)."""
    files = make(run)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in files.items():
            bundle.writestr(name, text.encode("utf-8", "replace"))
    try:
        atomic.write_bytes(target, held.getvalue())
    except OSError as error:
        raise FinetuiError(
            "The report cannot be written.",
            f"{target}: {error.strerror or error}.",
            "Name another place with --output.",
            code="file",
        ) from error
    return tuple(files)


# ---- what is private ---------------------------------------------------------------------------------------------


def _recipe(run: RunFolder) -> Recipe | None:
    try:
        return recipe_file.load(run.recipe)
    except FinetuiError:
        return None


def _sources(run: RunFolder, recipe: Recipe | None) -> Iterator[tuple[str, str]]:
    """Files, folders and what is on the hub that the recipe names, and what stands in their place. A recommended model is
    no secret, nor is one without an owner."""
    yield str(run.path), "‹run›"
    yield run.id, "‹run›"
    if recipe is None:
        return
    named = {
        "‹dataset›": _datasets(recipe),
        "‹model›": (recipe.model.source, recipe.model.adapter),
    }
    for instead, sources in named.items():
        for source in sources:
            if not source or source == DEMO or source in _RECOMMENDED:
                continue
            path, suffix = Path(source), re.fullmatch(r".*(\.[A-Za-z]\w*)", source)
            if not ("/" in source or suffix or source == recipe.model.adapter):
                continue
            shown = instead + (suffix[1] if suffix else "")
            yield source, shown
            yield source.replace("/", "--"), shown  # as the hub's cache names it
            if len(path.name) > (3 if path.is_absolute() or suffix else 7):
                yield path.name, shown


def _own(run: RunFolder, recipe: Recipe | None) -> Iterator[str]:
    """What the person and the models wrote: the run's name, prompts, answers, notes."""
    from . import care

    named = [
        run.id[16:],
        *((recipe.name, recipe.name.lower()) if recipe is not None else ()),
    ]  # Ollama: small letters
    yield from (name for name in named if name != demo_recipe().name)
    if recipe is not None:
        yield from texts_in((recipe.dataset.system_prompt, recipe.training.sample_prompts))
    labels = care.labels(run)
    yield from texts_in((labels.title, labels.note))
    for record in event_log.read_all(run.events):
        event = record.event
        if isinstance(event, events.Sample):
            yield from texts_in((event.prompt, event.answer, event.reference))
        elif isinstance(event, events.DatasetReady):
            yield from texts_in((event.system_prompt,))
        elif isinstance(event, events.Scored):
            yield from texts_in([dataclasses.astuple(example) for example in event.examples])


def _datasets(recipe: Recipe) -> tuple[str | None, ...]:
    data = recipe.dataset
    return (data.source, data.evaluation_source, *(data.mix or {}))


class _Rows:
    """Every line of text in the rows that lie on this machine. `whole` says afterwards whether those were all of them."""

    def __init__(self, recipe: Recipe | None) -> None:
        self._recipe = recipe
        self.whole = recipe is not None

    def __iter__(self) -> Iterator[str]:
        if self._recipe is None:
            return
        for source in dict.fromkeys(_datasets(self._recipe)):
            if not source or source == DEMO:  # the demo's rows are public
                continue
            try:
                for row in read_rows(Path(source).expanduser(), self._recipe.dataset.split):
                    yield from texts_in(dict(row))
            except (FinetuiError, OSError, RuntimeError, ValueError):
                self.whole = False


# ---- what is shown -----------------------------------------------------------------------------------------------


def _shown(records: list[event_log.Record]) -> Iterator[event_log.Record]:
    """The newest records: so many steps and readings, so many of the rest; without those of other people's kinds."""
    often = [r for r in records if isinstance(r.event, (events.Step, events.Device))][-MOST_STEPS:]
    others = [r for r in records if not isinstance(r.event, (events.Step, events.Device, events.Unknown))][
        -MOST_OTHERS:
    ]
    yield from sorted((*often, *others), key=lambda record: record.seq)


def _free(record: event_log.Record) -> Iterator[str]:
    for name in _FREE:
        value = getattr(record.event, name, None)
        yield from (value,) if isinstance(value, str) else value or ()


def _line(record: event_log.Record, cleared: dict[str, str], names: Names, compared: bool) -> dict[str, Any]:
    """The event as plain data, without what is private."""
    told = json.loads(event_log.encode(record))
    event = record.event
    if isinstance(event, events.Sample):
        for name in ("prompt", "answer", "reference"):
            told[name] = f"‹{len(getattr(event, name)):,} characters›"
    told.pop("examples", None)
    if told.get("system_prompt"):
        told["system_prompt"] = LEFT_OUT
    if "host" in told:
        told["host"] = ""
    if isinstance(event, events.Started):
        told["name"] = ""
    for name in _FREE:
        if name not in told:
            continue
        value = told[name]
        kept = compared or name in ("what", "path", "fix")

        def shown(text: str, kept: bool = kept) -> str:
            return names.hide(cleared.get(text, text)) if kept else LEFT_OUT if text else ""

        told[name] = [shown(one) for one in value] if isinstance(value, list) else shown(str(value))
    return told


def _log(lines: list[str], cleared: dict[str, str], names: Names, compared: bool) -> str:
    """The log's end; its frame alone (tracebacks, kinds of errors) where it could not be `compared` with the rows."""
    kept: list[str] = []
    left_out = 0
    for line in lines:
        shown: str | None = names.hide(cleared.get(line, line), quoted=not line.lstrip().startswith("File "))
        if not compared:
            fault = _FAULT.match(line)
            shown = (
                names.hide(cleared.get(line, line), quoted=False)
                if _FRAME.fullmatch(line)
                else f"{fault[1]}: {LEFT_OUT}"
                if fault
                else None
            )
        if shown is None:
            left_out += 1
            continue
        if left_out:
            kept.append(f"‹{left_out:,} lines left out›")
        left_out = 0
        kept.append(shown)
    if left_out:
        kept.append(f"‹{left_out:,} lines left out›")
    return "\n".join(kept) + "\n"


def _impersonal(recipe: Recipe) -> Recipe:
    prompt = LEFT_OUT if recipe.dataset.system_prompt else recipe.dataset.system_prompt
    asked = tuple(f"{LEFT_OUT} {n}" for n, _ in enumerate(recipe.training.sample_prompts, 1))
    return recipe.model_copy(
        update={
            "name": "run",
            "dataset": recipe.dataset.model_copy(update={"system_prompt": prompt}),
            "training": recipe.training.model_copy(update={"sample_prompts": asked}),
        }
    )


def _plain_fields(status: state.RunStatus) -> list[dataclasses.Field[Any]]:
    """Of the status what is a figure or a word of ours."""
    return [
        f
        for f in dataclasses.fields(status)
        if f.name in ("state", "job", "stage") or isinstance(getattr(status, f.name), (int, float, bool))
    ]
