"""The export step: from RUN/adapter and the base model to the files that the person leaves with.

Each export is made in a work folder under RUN/exports, verified, and only then given its name, so that what stands
in RUN/exports/<format> is whole. A work folder that a killed worker left behind goes at the next export.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from .. import export as export_step
from .. import refusals
from ..errors import FinetuiError
from ..recipe import DEMO, ExportFormat, Recipe
from ..runs.events import Event, Exported, Progress, Warned
from ..runs.store import RunFolder
from ..text import bytes_words
from . import adapter, base_weights, llama_cpp, loftq, merge, modelfile, verify
from .child import Check, go_on

Emit = Callable[[Event], None]

_ADAPTER_FILES: Final = (".safetensors", ".json", ".jinja", ".model", ".txt", ".md")
_WORK_PREFIX: Final = ".work-"
_SPARE_BYTES: Final = 64 * 1024**2
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
    check: Check = go_on,
) -> list[Exported]:
    """Exports what the run learned, from RUN/adapter, in each of `formats`; returns those that succeeded.

    `model` and `tokenizer` may be None: they serve only bases that cannot be merged file by file, and are loaded
    then. `base` is the folder of the base model's weights; without it the recipe's source is looked up. `check` is
    called often and may raise to stop; nothing half-made stays.

    Emits progress, one `Exported` for each format that is whole, and a warning for each that failed while another
    did not. Raises FinetuiError where all failed: export-nothing, no-space, package-fetch, gguf-convert,
    llama-cpp-no-compiler, llama-cpp-build, merge-not-finite, export-damaged, export-failed.
    """
    if not adapter.is_saved(recipe, run):
        raise FinetuiError(
            "There is nothing to export yet.",
            "The run has saved nothing that it learned.",
            "Resume the run, or stop it with saving, then export.",
            code="export-nothing",
        )
    wanted: list[ExportFormat] = [
        f for f in export_step.FORMATS if f in formats
    ]  # the order in which work is shared
    work = _Work(model, tokenizer, recipe, run, wanted, emit, base or base_folder(recipe), check)
    failures: list[FinetuiError] = []
    with work:
        for index, format in enumerate(wanted):
            check()
            try:
                work.export(index, format)
            except FinetuiError as error:
                failures.append(error)
            except OSError as error:
                failures.append(_card(error, run))
    if failures and not work.exported:
        raise failures[-1]
    for failure in failures:
        emit(Warned(failure.code, failure.what, failure.why, failure.fix))
    return work.exported


def base_folder(recipe: Recipe) -> Path:
    """The folder with the recipe's base model. A hub model is taken from the hub's cache, and fetched if it must be."""
    source = recipe.model.source
    if source == DEMO:
        from . import demo_model

        return demo_model.prepare()
    folder = Path(source).expanduser().absolute()
    if (folder / "config.json").is_file():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    revision = recipe.model.remote_code or recipe.model.revision
    patterns = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(
            snapshot_download(source, revision=revision, allow_patterns=patterns, local_files_only=True)
        )
    except LocalEntryNotFoundError:
        from . import model

        return model.resolve_hub(recipe, lambda _done, _total: None)


def prepare_tools(formats: Sequence[str], emit: Emit, *, check: Check = go_on) -> None:
    """Fetches what the GGUF formats need, so that it is here when training ends. Warns where it cannot be had.

    Worth calling before training: without the network it costs nothing, and says so hours earlier.
    """
    infos = [info for info in export_step.FORMATS.values() if info.format in formats and info.quantization]
    try:
        if infos:
            llama_cpp.converter(lambda said: emit(Progress("export", text=said)), check)
        if any(info.needs_llama_cpp for info in infos):
            llama_cpp.quantizer(lambda said: emit(Progress("export", text=said)), check)
    except FinetuiError as error:
        emit(Warned(error.code, error.what, error.why, error.fix))


def _card(error: OSError, run: RunFolder) -> FinetuiError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return FinetuiError(
            "The disk is full.",
            f"The export did not fit on the disk of {run.path}. What was begun has been removed.",
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
    """One round of exports: the work folder, and what its formats share (the merged model, the F16 GGUF)."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        recipe: Recipe,
        run: RunFolder,
        formats: list[ExportFormat],
        emit: Emit,
        base: Path,
        check: Check,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.recipe, self.run, self.formats, self.emit = recipe, run, formats, emit
        self.base, self.check = base, check
        self.learned = adapter.folder(recipe, run)
        self.exported: list[Exported] = []
        self._index = 0
        self._told = ("", 0.0)
        self._share = 0.0
        self._render: tuple[modelfile.Render | None, str, str] | None = None
        self._weights: int | None = None

    def __enter__(self) -> _Work:
        self.run.exports.mkdir(mode=0o700, exist_ok=True)
        for left in self.run.exports.glob(".*"):
            shutil.rmtree(left, ignore_errors=True)
        self.folder = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=self.run.exports))
        return self

    def __exit__(self, *_error: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- one format --------------------------------------------------------------------------------------

    def export(self, index: int, format: ExportFormat) -> None:
        """Makes, verifies and places one format, and reports it."""
        started = time.monotonic()
        self._index, self._share = index, 0.0
        info = export_step.FORMATS[format]
        self._tell(info.title, 0.0)
        self._need_space(format)
        if format == "adapter":
            if self.recipe.lora.method == "full":
                raise refusals.no_adapter()
            made = self._adapter()
        elif format == "merged":
            made = self.folder / "merged"
            self._merge(made)
            self._write_ask_script(made)
        else:
            made = self._gguf(info)
        target = self.run.exports / format
        if target.exists():
            target.rename(self.folder / f"old-{format}")
        made.rename(target)
        file = target / self._file_name(info) if info.quantization else target
        exported = Exported(
            format=format,
            path=str(file.relative_to(self.run.path)),
            bytes=_size(file),
            base_bytes=_size_of_weights(self.base),
            seconds=time.monotonic() - started,
            command=export_step.next_command(
                format, file, self.recipe.name, self._base_name(), self.recipe.dataset.system_prompt
            ),
        )
        self._tell(info.title, 1.0)
        self.exported.append(exported)
        self.emit(exported)

    def _adapter(self) -> Path:
        made = self.folder / "adapter"
        made.mkdir()
        for file in sorted(self.run.adapter.iterdir()):
            if file.is_file() and not file.is_symlink() and file.suffix in _ADAPTER_FILES:
                shutil.copyfile(file, made / file.name)
        verify.adapter(made)
        self._write_ask_script(made)
        return made

    def _write_ask_script(self, folder: Path) -> None:
        shutil.copyfile(Path(__file__).with_name("ask_script.py"), folder / export_step.ASK_SCRIPT)
        if self.recipe.dataset.system_prompt:
            (folder / "system_prompt.txt").write_text(self.recipe.dataset.system_prompt, encoding="utf-8")

    def _merge(self, target: Path) -> None:
        try:
            merge.merge(self.base, self.learned, target, lambda share: self._tell("merging", share * 0.3))
        except merge.CannotMerge as reason:
            shutil.rmtree(target, ignore_errors=True)
            self._tell(f"merging with Unsloth, as {reason}", 0.0)
            self._merge_with_unsloth(target)
        verify.merged(target)

    def _merge_with_unsloth(self, target: Path) -> None:
        if self.model is None or loftq.is_wanted(self.recipe):  # the loaded one holds the repair too
            from unsloth import FastLanguageModel

            from .model import runs_code

            self.model, self.tokenizer = FastLanguageModel.from_pretrained(
                str(self.run.adapter.absolute()),
                max_seq_length=self.recipe.model.max_length,
                load_in_4bit=self.recipe.model.precision == "4bit",
                trust_remote_code=runs_code(self.recipe),
            )
        try:
            # safe_serialization=None: True becomes a pickle on machines with two processors.
            self.model.save_pretrained_merged(
                str(target.absolute()), self.tokenizer, save_method="merged_16bit", safe_serialization=None
            )
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
            raise FinetuiError(
                "The adapter could not be merged into this model.",
                f"Unsloth: {str(error)[:300]}",
                "Use the adapter together with its base model; export the format adapter.",
                code="merge-failed",
            ) from error

    def _merged(self) -> Path:
        """A merged model to convert: the export of this round, or one made for the purpose."""
        if any(done.format == "merged" for done in self.exported):
            return self.run.exports / "merged"
        target = self.folder / "for-gguf"
        if not (target / "config.json").is_file():
            self._merge(target)
        return target

    def _f16(self) -> Path:
        """The F16 GGUF that the K-quants are made from: the export of this round, or one made for the purpose."""
        name = self._file_name(export_step.FORMATS["gguf_f16"])
        if any(done.format == "gguf_f16" for done in self.exported):
            return self.run.exports / "gguf_f16" / name
        target = self.folder / "for-quants" / name
        if not target.is_file():
            target.parent.mkdir(exist_ok=True)
            self._convert(target, "f16")
        return target

    def _convert(self, target: Path, outtype: str) -> None:
        model = self._merged()
        tool = llama_cpp.converter(lambda said: self._tell(said, 0.0), self.check)
        partial = target.with_name(
            f"partial-{target.name}"
        )  # a stopped conversion leaves no file of the final name
        label = f"converting to {outtype.upper()}"
        llama_cpp.convert(
            tool, model, partial, outtype, lambda share: self._tell(label, 0.3 + share * 0.4), self.check
        )
        partial.rename(target)

    def _gguf(self, info: export_step.FormatInfo) -> Path:
        made = self.folder / info.format
        made.mkdir()
        file = made / self._file_name(info)
        if info.needs_llama_cpp:
            tool = llama_cpp.quantizer(lambda said: self._tell(said, 0.0), self.check)
            source = self._f16()
            label = f"quantizing to {info.quantization}"
            llama_cpp.quantize(
                tool,
                source,
                file,
                info.quantization,
                lambda share: self._tell(label, 0.7 + share * 0.25),
                self.check,
            )
        else:
            self._convert(file, info.quantization.lower())
        verify.gguf(file)
        (made / "Modelfile").write_text(self._modelfile(file.name), encoding="utf-8")
        return made

    def _modelfile(self, gguf_name: str) -> str:
        if self._render is None:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(
                str(self._merged()), local_files_only=True, trust_remote_code=False
            )

            def render(messages: modelfile.Messages) -> str:
                return str(
                    tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
                )

            has_template = bool(tokenizer.chat_template)
            bos, eos = str(tokenizer.bos_token or ""), str(tokenizer.eos_token or "")
            self._render = (render if has_template else None, bos, eos)
        return modelfile.write(gguf_name, *self._render, self.recipe.dataset.system_prompt)

    # ---- the rest ----------------------------------------------------------------------------------------

    def _file_name(self, info: export_step.FormatInfo) -> str:
        return f"{self.recipe.name}-{info.quantization}.gguf"

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
        info = export_step.FORMATS[format]
        if format == "adapter":
            need = _size(self.learned)
        else:
            if self._weights is None:
                self._weights = base_weights.count(self.base)
            bits = info.bits_per_weight or 16.0
            done = {exported.format for exported in self.exported}
            if format != "merged" and "merged" not in done and not (self.folder / "for-gguf").exists():
                bits += 16
            if info.needs_llama_cpp and "gguf_f16" not in done and not (self.folder / "for-quants").exists():
                bits += 16
            need = round(self._weights * bits / 8 * 1.03)
        free = shutil.disk_usage(self.run.exports).free
        if free < need + _SPARE_BYTES:
            raise FinetuiError(
                f"There is too little space for {info.title}.",
                f"It takes about {bytes_words(need + _SPARE_BYTES)} while it is made, "
                f"and {self.run.exports} has {bytes_words(free)} free.",
                f"Free some space, then: finetui export {self.run.id} --format {format}",
                code="no-space",
            )


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
