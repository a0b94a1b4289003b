"""The export step: from what the run learned and the base model to the files that the person leaves with.

Each export is made (`formats`) in a work folder under RUN/exports, verified, and only then given its name, so that what
stands in RUN/exports/<format> is whole. A worker that was killed is gone on from: see `workbench`.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from .. import export as export_step
from .. import export_budget, export_record, refusals_export, system_prompt
from ..errors import FinetuiError
from ..recipe import DEMO, ExportFormat, Recipe
from ..runs import chosen
from ..runs.chosen import Chosen
from ..runs.events import Event, Exported, Progress, Warned
from ..runs.store import RunFolder
from . import base_weights, four_bit, llama_cpp
from .child import Check, go_on
from .formats import Making
from .workbench import Workbench

Emit = Callable[[Event], None]

_PROGRESS_SECONDS: Final = 0.25


def export(
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    run: RunFolder,
    formats: Sequence[str],
    emit: Emit,
    *,
    base: Path | None = None,
    weights: Chosen | None = None,
    replace: bool = False,
    check: Check = go_on,
) -> list[Exported]:
    """Exports what the run learned in each of `formats`; returns those that stand there now.

    `weights` are those to export; without them, what the run ended with. `model` and `tokenizer` may be None: they serve
    only bases that cannot be merged file by file, and are loaded then. `base` is the folder of the base model's weights;
    without it the recipe's source is looked up. An export that stands there already is left as it is where it is of the
    same weights, and otherwise only overwritten with `replace`. `check` is called often and may raise to stop; nothing
    half-made stays.

    Emits progress, one `Exported` for each format that is whole, and a warning for each that failed while another
    did not. Raises FinetuiError where all failed: export-nothing, export-there, no-space, package-fetch, gguf-convert,
    llama-cpp-no-compiler, llama-cpp-build, merge-not-finite, export-damaged, export-failed.
    """
    recipe = system_prompt.put_in(recipe, system_prompt.of_run(run, recipe))
    weights = weights or chosen.choose(run, recipe, "result")
    wanted: list[ExportFormat] = [
        f for f in export_step.FORMATS if f in formats
    ]  # the order in which work is shared
    base = base or base_weights.folder(recipe)
    try:
        record = _record(recipe, run, weights, base)
        work = _Work(model, tokenizer, recipe, run, wanted, emit, base, weights, record, replace, check)
        work.bench.open()
    except OSError as error:
        raise _card(error, run) from error
    failures: list[FinetuiError] = []
    try:
        for index, format in enumerate(wanted):
            check()
            try:
                work.export(index, format)
            except FinetuiError as error:
                failures.append(error)
            except OSError as error:
                failures.append(_card(error, run))
    finally:
        work.bench.close(done=len(work.exported) == len(wanted))
    if failures and not work.exported:
        raise failures[-1]
    for failure in failures:
        emit(Warned(failure.code, failure.what, failure.why, failure.fix))
    return work.exported


def _record(recipe: Recipe, run: RunFolder, weights: Chosen, base: Path) -> export_record.Record:
    """What the exports of this round are made from; the format is filled in as each is made. Raises OSError."""
    learned, of_base = export_record.learned_print(weights.folder), export_record.base_print(base)
    return export_record.Record(
        format="",
        key=export_record.key(recipe, learned, of_base, f"2 {llama_cpp.CONVERTER.version}"),
        learned=learned,
        base=of_base,
        weights=str(weights.folder.relative_to(run.path)),
        step=weights.step,
        result=weights.result,
        revision=recipe.model.revision,
    )


def prepare_tools(recipe: Recipe, emit: Emit, *, check: Check = go_on) -> None:
    """Fetches what the GGUF formats need, so that it is here when training ends. Warns where it cannot be had.

    Worth calling before training: without the network it costs nothing, and says so hours earlier. Raises FinetuiError
    (export-4bit, export-4bit-model) where the recipe asks for merged_4bit, and this machine or model cannot.
    """
    formats = recipe.export.formats
    if "merged_4bit" in formats:
        four_bit.can_pack(base_weights.folder(recipe))
    infos = [info for info in export_step.FORMATS.values() if info.format in formats and info.quantization]

    def tell(said: str) -> None:
        emit(Progress("tools", text=said))

    try:
        if infos:
            llama_cpp.converter(tell, check)
        if "adapter_gguf" in formats:
            llama_cpp.adapter_converter(tell, check)
        if any(info.needs_llama_cpp for info in infos):
            llama_cpp.quantizer(tell, check)
    except FinetuiError as error:
        emit(Warned(error.code, error.what, error.why, error.fix))


def _card(error: OSError, run: RunFolder) -> FinetuiError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return FinetuiError(
            "The disk is full.",
            f"The export did not fit on the disk of {run.path}. What was half-made has been removed; whole parts are kept "
            f"for the next try (finetui clean {run.id} removes them).",
            f"Free some space, then: finetui export {run.id}",
            code="no-space",
        )
    return FinetuiError(
        "The export could not be written.",
        f"{error.filename or run.exports}: {error.strerror or error}.",
        f"Put that right, then: finetui export {run.id}",
        code="export-failed",
    )


class _Work:
    """One round of exports: each format is announced, made where there is room for it, and reported."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        recipe: Recipe,
        run: RunFolder,
        formats: list[ExportFormat],
        emit: Emit,
        base: Path,
        weights: Chosen,
        record: export_record.Record,
        replace: bool,
        check: Check,
    ) -> None:
        self.recipe, self.run, self.formats, self.emit = recipe, run, formats, emit
        self.base, self.weights = base, weights
        self.replace, self.check = replace, check
        self.bench = Workbench(run.exports, record.key)
        self.making = Making(
            model, tokenizer, recipe, run, base, weights, record, self.bench, self._tell, check
        )
        self.exported: list[Exported] = []
        self._index = 0
        self._told = ("", 0.0)
        self._share = 0.0
        self._shapes: dict[str, tuple[int, ...]] = {}

    def export(self, index: int, format: ExportFormat) -> None:
        """Makes, verifies and places one format, and reports it. One that stands there already is kept or replaced."""
        started = time.monotonic()
        self._index, self._share = index, 0.0
        info = export_step.FORMATS[format]
        self._tell(info.title, 0.0)
        kept = not self.replace and (self.run.exports / format).exists()
        if kept:
            target = self._there(info)
        else:
            if format in export_step.ADAPTERS and self.recipe.lora.method == "full":
                raise refusals_export.no_adapter()
            if (
                format == "adapter_gguf"
                and (error := refusals_export.no_adapter_gguf(self.recipe)) is not None
            ):
                raise error
            if format == "merged_4bit" and (error := refusals_export.no_four_bit()) is not None:
                raise error
            self._need_space(format)
            target = self.making.make(info)
        file = target / self.making.file_name(info) if info.quantization else target
        record = export_record.read(target)
        begins = record.begins if record is not None else None
        exported = Exported(
            format=format,
            path=str(file.relative_to(self.run.path)),
            bytes=_size(file),
            base_bytes=_size_of_weights(self.base),
            seconds=time.monotonic() - started,
            command=export_step.next_command(
                format,
                file,
                self.recipe.name,
                self._base_name(),
                self.recipe.dataset.system_prompt,
                begins,
            ),
            step=self.weights.step,
            kept=kept,
            begins=begins,
        )
        self._tell(info.title, 1.0)
        self.exported.append(exported)
        self.emit(exported)
        if begins is not None:
            note = export_step.begins_otherwise(begins)
            self.emit(Warned(note.code, note.what, note.why, note.fix))

    def _there(self, info: export_step.FormatInfo) -> Path:
        """The export that stands there already, if it is of the same weights. Raises FinetuiError (export-there)."""
        target = self.making.ready(info.format)
        if target is not None:
            return target
        record = export_record.read(self.run.exports / info.format)
        of = (
            "another finetui" if record is None else f"step {record.step}" if record.step else "other weights"
        )
        raise FinetuiError(
            f"{info.title} is there already, and it is not of what would be exported now.",
            f"{self.run.exports / info.format} is of {of}, or has been changed since; it was left as it is.",
            f"Replace it: finetui export {self.run.id} --format {info.format} --replace",
            code="export-there",
        )

    def _base_name(self) -> str:
        source = self.recipe.model.source
        local = source == DEMO or (Path(source).expanduser() / "config.json").is_file()
        return str(self.base) if local else source

    def _tell(self, text: str, share: float) -> None:
        """Progress: whole formats that are done, and the share of the one under way. At most four a second."""
        self.check()
        now = time.monotonic()
        if self._told[0] == text and now - self._told[1] < _PROGRESS_SECONDS and share < 1:
            return
        self._told = (text, now)
        self._share = max(self._share, min(share, 1.0))
        title = export_step.FORMATS[self.formats[self._index]].title
        said = title if text == title else f"{title}: {text}"
        self.emit(Progress("export", self._index + self._share, len(self.formats), "formats", said))

    def _need_space(self, format: ExportFormat) -> None:
        """Refuses before a byte is written what cannot fit. Raises FinetuiError (no-space)."""
        if not self._shapes and format not in export_step.ADAPTERS:
            self._shapes = base_weights.shapes(self.base)
        weights = sum(math.prod(shape) for shape in self._shapes.values())

        def size(format: ExportFormat) -> int:
            if format in export_step.ADAPTERS:
                return _size(self.weights.folder)
            if format == "merged_4bit":
                return four_bit.about_bytes(self._shapes)
            return round(weights * (export_step.FORMATS[format].bits_per_weight or 16.0) / 8 * 1.03)

        ready: list[ExportFormat] = [
            part for part in ("merged", "gguf_f16") if self.bench.part(part) or self.making.ready(part)
        ]
        free = shutil.disk_usage(self.run.exports).free
        found = export_budget.budget([format], size, there=[part for part in ready if part != format])
        error = export_budget.too_little_space(
            found.disk_bytes,
            free,
            self.run.exports,
            export_step.FORMATS[format].title,
            f"Free some space, then: finetui export {self.run.id} --format {format}",
        )
        if error is not None:
            raise error


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(
        os.lstat(os.path.join(parent, name)).st_size
        for parent, _folders, names in os.walk(path)
        for name in names
    )


def _size_of_weights(base: Path) -> int:
    return sum(file.stat().st_size for file in base_weights.files(base))
