"""`finetui fit` chooses the fastest settings that fit; `finetui probe` tries the longest batch of a recipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...core.errors import FinetuiError
from ...core.named_files import given_path
from . import exits, output
from .estimate import card_bytes
from .recipes import JsonOption, SetOption, changed, commented, read, usage

if TYPE_CHECKING:
    from ...core.fit import Fit
    from ...core.lengths import Lengths
    from ...core.recipe import Recipe
    from ...core.runs.events import Probed

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file; - is standard input.")]
_TITLES = {
    "model.precision": "Precision",
    "training.packing": "Packing",
    "training.batch_size": "Batch size",
    "training.gradient_accumulation_steps": "Accumulation",
    "lora.gradient_checkpointing": "Checkpointing",
}


def fit(
    recipe: RecipeArgument,
    pin: Annotated[
        list[str] | None,
        typer.Option(
            "--pin",
            metavar="FIELD",
            help="Leave this field as it is, such as batch_size; may be given again.",
        ),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write what was chosen into RECIPE.")] = False,
    gpu_memory: Annotated[
        str, typer.Option("--gpu-memory", metavar="SIZE", help="Choose for another card, such as 24GiB.")
    ] = "",
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the fastest settings that fit this machine, and say why.

    The rows are counted with the model's tokenizer. The effective batch stays, so the same is learned: precision, packing,
    batch size, accumulation and checkpointing are chosen. --write keeps the recipe's other fields.
    """
    from ...core import fit as chooser
    from ...core import memory, system
    from ...core.runs import launch

    if write and recipe == "-":
        raise usage(
            "--write has no file to write to.", "The recipe comes from standard input.", "Name a file."
        )
    as_read, folder = read(recipe)
    wanted = changed(as_read, settings)
    ready = launch.resolved(wanted, folder)
    machine = system.snapshot()
    if gpu_memory:
        machine = chooser.for_card(machine, card_bytes(gpu_memory))
    facts, shape = memory.look(ready.model.source, ready.model.revision)
    lengths, uncounted = _lengths(ready)
    found = chooser.fit(ready, shape, machine, lengths, pinned(pin), facts=facts)
    kept = write and _write(as_read, _applied(wanted, found), recipe)
    if as_json:
        output.data(_document(found, lengths, uncounted))
        return
    _say(found, lengths, uncounted)
    if write:
        output.line(f"Wrote {recipe}." if kept else f"Wrote {recipe} anew; its comments are finetui's.")
    elif found.changes:
        output.line(f"finetui fit {recipe} --write keeps them.")


def pinned(names: list[str] | None) -> tuple[str, ...]:
    """The paths that `--pin` names, in full or by their last part. Raises FinetuiError (usage)."""
    from ...core.fit import CHOSEN

    paths = []
    for name in names or ():
        found = [path for path in CHOSEN if name.strip() in (path, path.rpartition(".")[2])]
        if not found:
            raise usage(
                f"--pin {name} is no field that is chosen.",
                "These are: " + ", ".join(CHOSEN) + ".",
                "finetui fit RECIPE --pin batch_size",
            )
        paths += found
    return tuple(paths)


def _lengths(recipe: Recipe) -> tuple[Lengths, str]:
    """The lengths of the recipe's rows; where they cannot be counted, full rows, and why in a sentence."""
    from ...core.dataset_inspect import Inspector
    from ...core.lengths import Lengths
    from .inspect import finished

    inspector = Inspector.start(recipe)
    try:
        return Lengths.from_ledger(finished(inspector), recipe.model.max_length), ""
    except FinetuiError as error:
        return Lengths.full(recipe.model.max_length), error.what
    finally:
        inspector.close()


def _applied(recipe: Recipe, found: Fit) -> Recipe:
    from ...core.draft import Draft

    draft = Draft(recipe)
    for path, value in found.changes:
        draft.set(path, value)
    return draft.recipe()


def _write(before: Recipe, after: Recipe, file: str) -> bool:
    """Writes `after` into the file that holds `before`, or that a link there leads to; its rights stay. Whether only the
    fields that differ were written, and not the whole file anew."""
    from ...core import atomic, recipe_file

    path = given_path(file).resolve()
    try:
        text = recipe_file.edited(path.read_bytes().decode("utf-8-sig"), before, after)
        mode = path.stat().st_mode & 0o777
        atomic.write_text(path, commented(after) if text is None else text, mode)
        path.chmod(mode)  # without what the umask takes away
        return text is not None
    except OSError as error:
        raise FinetuiError(
            f"{path} cannot be written.", f"{error.strerror or error}.", "Check the folder.", code="file"
        ) from error


def _document(found: Fit, lengths: Lengths, uncounted: str) -> dict[str, Any]:
    return {
        "recipe": found.recipe.name,
        "changes": dict(found.changes),
        "choices": [
            {
                "field": choice.path,
                "value": choice.value,
                "before": choice.before,
                "because": choice.because,
                "pinned": choice.pinned,
                "seconds": round(choice.seconds, 1),
                "bytes": choice.bytes,
            }
            for choice in found.choices
        ],
        "on_gpu": found.on_gpu,
        "threads": found.threads,
        "free_bytes": found.free_bytes,
        "headroom_bytes": found.headroom_bytes,
        "predicted_bytes": found.memory.total_bytes,
        "gpu_reserved_bytes": found.memory.gpu_reserved_bytes,
        "confidence": found.memory.confidence,
        "before": {
            "predicted_bytes": found.memory_before.total_bytes,
            "fits": found.fitted_before,
            "seconds": round(found.pace_before.seconds, 1),
        },
        "seconds": round(found.pace.seconds, 1),
        "seconds_range": [round(found.pace.low, 1), round(found.pace.high, 1)],
        "speedup": round(found.speedup, 2),
        "steps": found.pace.steps,
        "rows_per_step": round(found.pace.rows_per_step, 1),
        "tokens_per_second": round(found.pace.tokens_per_second),
        "rows": lengths.rows,
        "mean_tokens": round(lengths.mean, 1),
        "longest_tokens": lengths.longest,
        "counted": lengths.measured,
        "uncounted_because": uncounted,
        "remarks": list(found.remarks),
    }


def _say(found: Fit, lengths: Lengths, uncounted: str) -> None:
    import textwrap

    from ...core.text import bytes_words
    from ..widgets.gauges import time_words

    width = output.width()
    if lengths.measured:
        output.line(
            f"{lengths.rows or 0:,} rows of {lengths.mean:,.0f} tokens on average, {lengths.longest:,} at most."
        )
    else:
        output.line(
            f"The rows could not be counted ({uncounted.rstrip('.')}); they are taken to fill the sequence."
        )
    output.line()
    for choice in found.choices:
        value = _value(choice.value)
        arrow = f"{_value(choice.before)} -> {value}" if choice.changed else value
        mark = "*" if choice.changed else " "
        output.line(f"{mark} {_TITLES[choice.path]:<14}{arrow}")
        words = choice.because if choice.pinned else f"chosen because {choice.because}"
        words += f"; {choice.costs}" if choice.costs else ""
        for row in textwrap.wrap(words, width - 4):
            output.line(f"    {row}")
    output.line()
    where = "GPU" if found.on_gpu else "host"
    output.line(
        f"{where.capitalize() if where == 'host' else where} memory  {bytes_words(found.memory.total_bytes)} of "
        f"{bytes_words(found.free_bytes)} free, {bytes_words(found.headroom_bytes)} kept as headroom"
        + (
            ""
            if found.fitted_before
            else f"; as it was it would not fit ({bytes_words(found.memory_before.total_bytes)})"
        )
    )
    if found.pace.steps:
        before = time_words(found.pace_before.low, found.pace_before.high)
        now = time_words(found.pace.low, found.pace.high)
        faster = (
            f", about {found.speedup:.1f} × as fast as before ({before})" if found.speedup >= 1.05 else ""
        )
        output.line(f"Time        {now} for {found.pace.steps:,} steps{faster}")
    for remark in found.remarks:
        output.line(remark)


def _value(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def probe(recipe: RecipeArgument, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Try the longest batch of a recipe: does it fit, and how long does a step take?

    The model is loaded and one batch goes forward and backward, with one step of the optimizer and one batch of evaluation,
    in a process of its own. Nothing is kept. Predicted and measured memory stand side by side.
    """
    import shutil
    import tempfile
    from pathlib import Path

    from ...core import paths, recipe_file
    from ...core.runs import launch
    from ...core.runs.store import RunFolder

    as_read, folder = read(recipe)
    ready = launch.resolved(changed(as_read, settings), folder)
    run = RunFolder(Path(tempfile.mkdtemp(prefix="probe-", dir=paths.private_dir(paths.cache()))))
    try:
        for inner in (run.control, run.checkpoints):
            inner.mkdir(mode=0o700)
        recipe_file.save(ready, run.recipe)
        found = _probed(run, as_json)
        after = recipe_file.load(run.recipe)
    finally:
        shutil.rmtree(run.path, ignore_errors=True)
    stepped = [
        (path, value)
        for path, value in (
            ("training.batch_size", after.training.batch_size),
            ("training.gradient_accumulation_steps", after.training.gradient_accumulation_steps),
            ("lora.gradient_checkpointing", after.lora.gradient_checkpointing),
        )
        if found.stepped_down
    ]
    if as_json:
        import dataclasses

        gap = found.gap
        output.data(dataclasses.asdict(found) | {"gap": gap, "settings_that_fit": dict(stepped)})
    elif stepped:
        output.line("It fits with: " + ", ".join(f"{path}={_value(value)}" for path, value in stepped))
    raise typer.Exit(exits.WARNINGS if found.stepped_down else exits.OK)


def _probed(run: Any, as_json: bool) -> Probed:
    """The probe's event. Raises FinetuiError: the worker's own card, or why its process died."""
    import time

    from ...core.runs import crash, launch
    from ...core.runs.event_log import EventReader
    from ...core.runs.events import Ended, Probed
    from ..plain import Plain

    plain = Plain(output.line if not as_json else lambda _line: None, output.width())
    process = launch.spawn(["probe", str(run.path)], run.log, run.path)
    reader, found, ended = EventReader(run.events), None, None
    try:
        while True:
            alive = process.poll() is None
            for record in reader.read():
                plain.add(record)
                if isinstance(record.event, Probed):
                    found = record.event
                elif isinstance(record.event, Ended):
                    ended = record.event
            if ended is not None or not alive:
                break
            time.sleep(0.1)
    except KeyboardInterrupt:
        process.kill()
        raise
    if ended is not None and ended.reason == "failed":
        raise FinetuiError(ended.what, ended.why, ended.fix, code=ended.code)
    if found is None:
        what, why, fix, code = crash.reason(run)
        if process.returncode in (-9, 137):
            why, code = "The system killed it, most likely because memory ran out.", "host-memory"
        print(crash.log_tail(run, 2000), file=sys.stderr)
        raise FinetuiError(
            what.replace("The worker", "The probe"),
            why,
            "A smaller batch size or sequence length, 4-bit precision, or a smaller model. The recipe is as it was.",
            code=code,
        )
    return found
