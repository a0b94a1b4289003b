"""What exports take before a byte of them is written: disk, host memory and that of a GPU. No torch.

Disk is counted from the model's shape, within 1 % of the files for dense models of Llama's kind. Memory is counted from what each
process holds; its constants are what `python -m tests.bench export_memory` measured, rounded up.
Exports are made without the GPU: only a proof through Transformers uses one, and only where it has room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import export, memory, proof, system
from .errors import FinetuiError
from .model_facts import ModelFacts
from .recipe import ExportFormat, LoraSection, Recipe
from .system import Machine
from .text import bytes_words

SPARE_BYTES: Final = 64 * 1024**2
"""Left free on the disk: logs, events, what others write meanwhile."""

_MIB: Final = 1024**2
_WORKER_BYTES: Final = 280 * _MIB
"""The worker with torch."""
_MERGE_BYTES: Final = 160 * _MIB
"""Rows of a weight in 32 bit, a few times over (`merge.PART_ELEMENTS`)."""
_PACK_BYTES: Final = 512 * _MIB
"""bitsandbytes, and what it holds while it packs those rows (`four_bit.pack`)."""
_MODELFILE_BYTES: Final = 150 * _MIB
"""What the worker holds more as it makes a GGUF: Transformers and a tokenizer, to write the Modelfile."""
_CONVERTER_BYTES: Final = 300 * _MIB
"""llama.cpp's converter, which imports torch and Transformers, without the tensor under way."""
_LLAMA_BYTES: Final = 160 * _MIB
"""llama.cpp with its cache and what it computes, without the model."""
_TRANSFORMERS_BYTES: Final = 400 * _MIB
"""Transformers or PEFT and what they compute, without the model."""


@dataclass(frozen=True)
class Need:
    """What one format takes. Bytes; None is not known."""

    format: ExportFormat
    disk_bytes: int | None
    """What stays."""
    ram_bytes: int | None
    """The most that is resident while it is made."""
    proof_ram_bytes: int | None
    """The most that is resident while it is proved: the consumer loads it. On a GPU that has room it goes there."""
    proof_least_bytes: int | None
    """The same where memory is short: what is opened in 32 bit on a processor without bfloat16, for speed, is in 16 bit then."""
    proof_gpu_bytes: int | None
    """What must be free on a GPU for it to be proved there; 0 where it never is, as by llama.cpp."""
    there: bool = False
    """It stands there already."""


@dataclass(frozen=True)
class Budget:
    """What some formats take together."""

    needs: tuple[Need, ...]
    shared_bytes: int | None
    """Made on the way and removed at the end: the merged model, and the F16 file that others are quantized from."""
    shared: tuple[str, ...]
    """What that is, in words."""
    base_bytes: int | None = 0
    """A GGUF of the base, over which an adapter for llama.cpp is proved: made after the exports, and removed."""

    @property
    def disk_bytes(self) -> int | None:
        """The most that is on the disk at once; None where a part is not known."""
        return _sum([need.disk_bytes for need in self.needs] + [self.shared_bytes])

    @property
    def proof_disk_bytes(self) -> int | None:
        """The most that is on the disk at once while they are proved; None where a part is not known."""
        return _sum([need.disk_bytes for need in self.needs] + [self.base_bytes])

    @property
    def ram_bytes(self) -> int | None:
        """The most host memory that is resident at once while they are made."""
        return self._most("ram_bytes")

    @property
    def proof_ram_bytes(self) -> int | None:
        return self._most("proof_ram_bytes")

    @property
    def proof_least_bytes(self) -> int | None:
        return self._most("proof_least_bytes")

    @property
    def proof_gpu_bytes(self) -> int | None:
        return self._most("proof_gpu_bytes")

    def _most(self, field: str) -> int | None:
        """They are made and proved one after another."""
        return max((size for need in self.needs if (size := getattr(need, field)) is not None), default=None)


def _sum(parts: Sequence[int | None]) -> int | None:
    return None if any(part is None for part in parts) else sum(part or 0 for part in parts)


def budget(
    formats: Sequence[ExportFormat],
    size: Callable[[ExportFormat], int | None],
    *,
    there: Collection[ExportFormat] = (),
    largest: int | None = None,
    prove: bool = True,
    importance: bool = False,
) -> Budget:
    """The budget of `formats`, of which `size` tells the bytes. `there` need not be made: they stand ready. `largest` is the
    number of weights in the model's largest tensor. `importance` is whether an importance matrix is asked for."""

    def read(format: ExportFormat) -> int | None:
        return size("gguf_f16") if export.weighed(format, importance) else 0

    def opened(format: ExportFormat) -> int | None:
        """What Transformers or PEFT load of it."""
        return _sum([size(format), size("merged") if format == "adapter" else 0])

    def on_gpu(format: ExportFormat) -> int | None:
        if not prove or "gguf" in format:
            return 0
        model = opened(format)
        return None if model is None else proof.gpu_room_bytes(model)

    def on_host(format: ExportFormat, in_32_bit: bool) -> int | None:
        """The worker, and whoever opens the export with the model in it: an adapter comes with its base."""
        if not prove:
            return 0
        if format == "adapter_gguf":
            asked = _sum([_WORKER_BYTES, _LLAMA_BYTES, size(format), size("gguf_f16")])
            if asked is None or largest is None:
                return None
            return max(asked, _WORKER_BYTES + _converting(largest))  # the base is made a GGUF first
        if format.startswith("gguf"):
            return _sum([_WORKER_BYTES, _LLAMA_BYTES, size(format)])
        twice = opened(format) if in_32_bit and format != "merged_4bit" else 0
        return _sum([_WORKER_BYTES, _TRANSFORMERS_BYTES, opened(format), twice])

    needs = tuple(
        _need(
            format,
            size(format),
            format in there,
            largest,
            read=read(format),
            proof=(on_host(format, not system.computes_bf16()), on_host(format, False), on_gpu(format)),
        )
        for format in formats
    )
    making: list[ExportFormat] = [format for format in formats if format not in there]
    ready: set[ExportFormat] = {*formats, *there}
    on_the_way: list[ExportFormat] = []
    if "merged_4bit" in making and "merged" not in ready:
        on_the_way.append("merged")
        ready.add("merged")
    if any(format.startswith("gguf") for format in making):
        if any(export.FORMATS[format].needs_llama_cpp for format in making) and "gguf_f16" not in ready:
            on_the_way.append("gguf_f16")
        needs_merge = on_the_way or any(
            format.startswith("gguf") and not export.FORMATS[format].needs_llama_cpp for format in making
        )
        if needs_merge and "merged" not in ready:
            on_the_way.insert(0, "merged")
    shared = _sum([size(format) for format in on_the_way])
    titles = tuple(export.FORMATS[format].title for format in on_the_way)
    base = size("gguf_f16") if prove and "adapter_gguf" in making else 0
    return Budget(needs, shared, titles, base)


def _converting(largest: int) -> int:
    """The converter holds the tensor under way in 16 bit and in 32 bit, and as it leaves."""
    return _CONVERTER_BYTES + 8 * largest


def _need(
    format: ExportFormat,
    size: int | None,
    there: bool,
    largest: int | None,
    *,
    read: int | None,
    proof: tuple[int | None, int | None, int | None],
) -> Need:
    """`read` are the bytes of the model that is read rows to for an importance matrix, 0 without one; `proof` those of the
    host, at least, and of a GPU that it is proved in."""
    if there:
        return Need(format, 0, 0, 0, 0, 0, there=True)
    ram = None
    if format == "adapter":
        ram = _WORKER_BYTES
    elif format == "adapter_gguf":
        ram = _WORKER_BYTES + _CONVERTER_BYTES
    elif largest is not None and read is not None:
        ram = _WORKER_BYTES + _MERGE_BYTES + 2 * largest
        if format == "merged_4bit":
            ram += _PACK_BYTES
        elif format != "merged":  # the quantizer holds less than the converter did before it
            beside = _WORKER_BYTES + _MODELFILE_BYTES
            ram = max(ram, beside + _converting(largest), beside + _LLAMA_BYTES + read if read else 0)
    return Need(format, size, ram, *proof)


def of_facts(
    recipe: Recipe,
    facts: ModelFacts | None,
    formats: Sequence[ExportFormat],
    *,
    there: Collection[ExportFormat] = (),
) -> Budget:
    """The budget from what is known of the model before anything is loaded."""

    def size(format: ExportFormat) -> int | None:
        return learned_bytes(format, recipe.lora, facts)

    largest = None
    if facts is not None and facts.vocabulary and facts.hidden_size:
        rows = facts.embedding_rows or facts.vocabulary
        largest = facts.hidden_size * max(rows, facts.intermediate_size or 0)
    return budget(
        formats,
        size,
        there=there,
        largest=largest,
        prove=recipe.export.prove,
        importance=recipe.export.importance,
    )


def learned_bytes(format: ExportFormat, lora: LoraSection, facts: ModelFacts | None) -> int | None:
    """As `export.estimated_bytes`; None too where nothing is known of the model."""
    return None if facts is None else export.estimated_bytes(format, facts, lora)


def too_little_space(
    need_bytes: int | None, free_bytes: int | None, place: Path | str, titles: str, fix: str
) -> FinetuiError | None:
    """The card for a disk that will not hold it; None where it will, or where that is not known."""
    if need_bytes is None or free_bytes is None or free_bytes >= need_bytes + SPARE_BYTES:
        return None
    return FinetuiError(
        f"There is too little space for {titles}.",
        f"It takes about {bytes_words(need_bytes + SPARE_BYTES)} while it is made, and {place} has "
        f"{bytes_words(free_bytes)} free.",
        fix,
        code="no-space",
    )


def too_little_to_prove(found: Budget, free_bytes: int | None) -> str:
    """A sentence where the disk will hold the exports but not what one of them is proved over; nothing where it will."""
    need = found.proof_disk_bytes
    if free_bytes is None or need is None or not found.base_bytes or free_bytes >= need + SPARE_BYTES:
        return ""
    return (
        f"Proving {export.FORMATS['adapter_gguf'].title} takes a GGUF of the base model, {bytes_words(found.base_bytes)} on the "
        f"disk for a while, and {bytes_words(free_bytes)} is free: it may stay unproved. finetui verify RUN proves it later."
    )


def too_little_memory(found: Budget, free_bytes: int | None) -> str:
    """A sentence where the host's memory is short for making or for proving; nothing where it is not."""
    if free_bytes is None:
        return ""
    made, proved = found.ram_bytes or 0, found.proof_least_bytes or 0
    if made > free_bytes:
        return (
            f"Making the exports takes about {bytes_words(made)} of memory, and {bytes_words(free_bytes)} is free: "
            "the system may end it. It goes on where it was when it is started again."
        )
    if proved > free_bytes:
        return (
            f"Proving the exports takes about {bytes_words(proved)} of memory, and {bytes_words(free_bytes)} is free: "
            "they may stay unproved. finetui verify RUN proves them later."
        )
    return ""


def memory_before_training(recipe: Recipe, machine: Machine, facts: ModelFacts) -> str:
    """A sentence where the exports at a training's end take more memory than is free now; nothing where they do not. It is
    no reason to refuse: memory may be freed meanwhile."""
    return too_little_memory(of_facts(recipe, facts, recipe.export.formats), machine.memory_available_bytes)


def before_training(recipe: Recipe, machine: Machine, facts: ModelFacts) -> list[tuple[str, FinetuiError]]:
    """What a training would run into at its end: no room for its exports. Pairs of the field's path and the error."""
    needs = of_facts(recipe, facts, recipe.export.formats)
    estimate = memory.estimate(recipe, facts, gpu=machine.has_gpu)
    kept = 0
    if estimate is not None:
        kept = sum(
            part.bytes for part in estimate.disk_parts if not part.name.startswith(("exports", "download"))
        )
    disk = needs.disk_bytes
    titles = ", ".join(export.FORMATS[format].title for format in recipe.export.formats)
    error = too_little_space(
        None if disk is None else disk + math.ceil(kept),
        machine.disk_free_bytes,
        "the disk of the runs",
        f"this run and its exports ({titles})",
        "Free some space, choose fewer or smaller formats, or set FINETUI_HOME to a folder on a larger disk.",
    )
    return [("export.formats", error)] if error is not None else []
