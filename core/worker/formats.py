"""The making of each export format, and of what formats share: the merged model, the F16 GGUF that others are quantized from."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .. import export as export_step
from .. import export_record, leaving
from ..errors import FinetuiError
from ..recipe import ExportFormat, Recipe
from ..runs.chosen import Chosen
from ..runs.store import RunFolder
from . import adapter, converting, four_bit, importance, llama_cpp, loftq, merge, modelfile, tokenizer, verify
from .chat import Chat
from .child import Check
from .workbench import Workbench

_ADAPTER_FILES: Final = (".safetensors", ".json", ".jinja", ".model", ".txt", ".md")


@dataclasses.dataclass
class Making:
    """Makes the formats of one round on its `bench`. `tell` is given what is done, in words, and its share from 0 to 1."""

    model: Any
    tokenizer: Any
    recipe: Recipe
    run: RunFolder
    base: Path
    weights: Chosen
    record: export_record.Record
    bench: Workbench
    tell: Callable[[str, float], None]
    check: Check
    _render: tuple[modelfile.Render | None, str, str] | None = None

    def make(self, info: export_step.FormatInfo) -> Path:
        """Makes a format, verifies it and gives it its place."""
        if info.format == "adapter":
            self._adapter(self.bench.begin("adapter"))
            part = self._finish("adapter")
        elif info.format == "adapter_gguf":
            self._adapter_gguf(self.bench.begin("adapter_gguf"))
            part = self._finish("adapter_gguf")
        elif info.format == "merged":
            part = self._merge()
        elif info.format == "merged_4bit":
            part = self._pack()
        else:
            part = self._gguf(info)
        record = dataclasses.replace(
            self.record,
            format=info.format,
            weighed=self._weighed(info.format),
            begins=self._begins_otherwise if info.format == "adapter_gguf" else None,
        )
        export_record.write(part, record)
        return self.bench.place(part, info.format)

    def ready(self, format: ExportFormat) -> Path | None:
        """RUN/exports/<format>, where it is whole and made from the very same."""
        folder = self.run.exports / format
        record = export_record.read(folder)
        if record is None or record.key != self.record.key or record.weighed != self._weighed(format):
            return None
        try:
            self._verify(format, folder)
        except FinetuiError:
            return None
        return folder

    def file_name(self, info: export_step.FormatInfo) -> str:
        """What a GGUF is called."""
        return f"{self.recipe.name}-{info.quantization}.gguf"

    def _name(self) -> str:
        """What programs call the model: by its base and its run."""
        return f"{leaving.base_name(self.recipe).rsplit('/')[-1]} {self.recipe.name}"

    def _weighed(self, format: ExportFormat) -> bool:
        return export_step.weighed(format, self.recipe.export.importance)

    def _finish(self, format: ExportFormat) -> Path:
        self._verify(format, self.bench.begin(format))
        return self.bench.finish(format)

    def _adapter(self, made: Path) -> None:
        adapter.copy(self._learned(), made, self.recipe, _ADAPTER_FILES)
        self._write_ask_script(made)

    def _adapter_gguf(self, made: Path) -> None:
        tool = llama_cpp.adapter_converter(lambda said: self.tell(said, 0.0), self.check)
        plain = self.bench.begin("plain")
        adapter.copy(self._learned(), plain, self.recipe, (".safetensors", ".json"))
        adapter.state_scale(plain)
        self.tell("converting the adapter", 0.3)
        converting.convert_adapter(
            tool,
            plain,
            self.base,
            made / export_step.adapter_file(self.recipe.name),
            self.check,
            name=self._name(),
        )
        self.bench.drop("plain")
        if (text := self._modelfile_over_base()) is not None:
            (made / "Modelfile").write_text(text, encoding="utf-8")

    @functools.cached_property
    def _begins_otherwise(self) -> bool | None:
        """`Record.begins`. None too where a tokenizer cannot be loaded, as one that needs code of its own."""
        try:
            base, own = (
                Chat(tokenizer.load(folder), self.recipe.model.max_length)
                for folder in (self.base, self.weights.folder)
            )
        except FinetuiError:
            return None
        return None if own.begins == base.begins_texts else own.begins

    def _modelfile_over_base(self) -> str | None:
        """The Modelfile of the adapter's GGUF; None where none would be truthful, or a tokenizer needs code of its own."""
        try:
            of_base, own = (modelfile.render_of(folder) for folder in (self.base, self.weights.folder))
        except (OSError, ValueError):
            return None
        name, base = export_step.adapter_file(self.recipe.name), leaving.base_name(self.recipe)
        prompt, context = self.recipe.dataset.system_prompt, self._context()
        begins = self._begins_otherwise
        return modelfile.write_over(name, base, of_base[0], *own, prompt, context, begins)

    def _context(self) -> int:
        return modelfile.context_of(self.base, self.recipe.model.max_length)

    def _learned(self) -> Path:
        """What was learned, as it goes over the base in 16 bit. A checkpoint holds the adapter as it is trained."""
        if self.weights.result or not loftq.is_wanted(self.recipe):
            return self.weights.folder
        if part := self.bench.part("learned"):
            return part
        made = self.bench.begin("learned")
        adapter.copy(self.weights.folder, made, self.recipe, _ADAPTER_FILES)
        loftq.leave(made, self.recipe, self.run)
        return self.bench.finish("learned")

    def _write_ask_script(self, folder: Path) -> None:
        shutil.copyfile(Path(__file__).with_name("ask_script.py"), folder / export_step.ASK_SCRIPT)
        if self.recipe.dataset.system_prompt:
            (folder / "system_prompt.txt").write_text(self.recipe.dataset.system_prompt, encoding="utf-8")

    def _merge(self) -> Path:
        """The merged model as a part of its own; one that a killed worker began is gone on with."""
        if part := self.bench.part("merged"):
            return part
        made = self.bench.begin("merged")
        try:
            merge.merge(self.base, self._learned(), made, lambda share: self.tell("merging", share * 0.3))
        except merge.CannotMerge as reason:
            self.bench.drop("merged")
            self.tell(f"merging with Unsloth, as {reason}", 0.0)
            self._merge_with_unsloth(self.bench.begin("merged"))
        except FinetuiError:
            self.bench.drop("merged")  # its weights are no numbers: nothing in it is of use
            raise
        self._write_ask_script(made)
        return self._finish("merged")

    def _merge_with_unsloth(self, target: Path) -> None:
        if self.model is None or loftq.is_wanted(self.recipe):  # the loaded one holds the repair too
            from unsloth import FastLanguageModel

            from .model import runs_code

            self.model, self.tokenizer = FastLanguageModel.from_pretrained(
                str(self._learned().absolute()),
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
        """A merged model to convert: the one that is exported, or one made for the purpose."""
        return self.ready("merged") or self._merge()

    def _pack(self) -> Path:
        """The merged model in 4 bit. Like a merge, one that a killed worker began is gone on with."""
        if part := self.bench.part("merged_4bit"):
            return part
        source, made = self._merged(), self.bench.begin("merged_4bit")
        four_bit.pack(source, made, lambda share: self.tell("packing", 0.3 + share * 0.65), self.check)
        return self._finish("merged_4bit")

    def _f16(self) -> Path:
        """The F16 GGUF that others are quantized from: the one that is exported, or one made for the purpose."""
        info = export_step.FORMATS["gguf_f16"]
        folder = self.ready("gguf_f16") or self.bench.part("gguf_f16") or self._gguf(info)
        return folder / self.file_name(info)

    def _gguf(self, info: export_step.FormatInfo) -> Path:
        if part := self.bench.part(info.format):
            return part
        made = self.bench.begin(info.format)
        file = made / self.file_name(info)
        if info.needs_llama_cpp:
            self._quantize(file, info)
        else:
            self._convert(file, info.quantization.lower())
        (made / "Modelfile").write_text(self._modelfile(file.name), encoding="utf-8")
        return self._finish(info.format)

    def _convert(self, target: Path, outtype: str) -> None:
        model = self._merged()
        tool = llama_cpp.converter(lambda said: self.tell(said, 0.0), self.check)
        label = f"converting to {outtype.upper()}"
        converting.convert(
            tool,
            model,
            target,
            outtype,
            lambda share: self.tell(label, 0.3 + share * 0.2),
            self.check,
            name=self._name(),
            begins=Chat(tokenizer.load(model), self.recipe.model.max_length).begins,
        )

    def _quantize(self, target: Path, info: export_step.FormatInfo) -> None:
        tool = llama_cpp.quantizer(lambda said: self.tell(said, 0.0), self.check)
        source = self._f16()
        matrix = self._matrix(source) if self._weighed(info.format) else None
        label = f"quantizing to {info.quantization}"
        converting.quantize(
            tool,
            source,
            target,
            info.quantization,
            lambda share: self.tell(label, 0.8 + share * 0.15),
            self.check,
            matrix,
        )

    def _matrix(self, f16: Path) -> Path:
        """The importance matrix of these weights, the one beside the run or a new one."""

        def tell(said: str, share: float) -> None:
            self.tell(said, 0.5 + share * 0.3)

        return importance.make(
            self.recipe, self.run, self.record.key, self.weights.folder, f16, tell, self.check
        )

    def _modelfile(self, gguf_name: str) -> str:
        if self._render is None:
            self._render = modelfile.render_of(self._merged())
        prompt, context = self.recipe.dataset.system_prompt, self._context()
        return modelfile.write(gguf_name, *self._render, prompt, context)

    def _verify(self, format: ExportFormat, folder: Path) -> None:
        if format == "adapter":
            verify.adapter(folder)
        elif format == "adapter_gguf":
            verify.adapter_gguf(folder / export_step.adapter_file(self.recipe.name))
        elif format in ("merged", "merged_4bit"):
            verify.merged(folder)
        else:
            verify.gguf(folder / self.file_name(export_step.FORMATS[format]))
