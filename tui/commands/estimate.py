"""`finetui estimate`: the memory and disk space that a recipe needs, from the model's config.json alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .recipes import JsonOption, SetOption, changed, read, usage

if TYPE_CHECKING:
    from ...core.memory import MemoryEstimate, Part

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_LARGEST_CARD_BYTES = 1 << 44


def card_bytes(text: str) -> int:
    """`24GiB`, `24GB`, `24G` (as GiB) or a plain count of bytes. Raises FinetuiError (usage)."""
    found = _SIZE.fullmatch(text)
    if found:
        number, unit, binary = found.groups()
        base = 1000 if unit and not binary and text.strip().lower().endswith("b") else 1024
        size = int(float(number) * base ** (" kmgt".index(unit.lower()) if unit else 0))
        if 1 << 28 <= size <= _LARGEST_CARD_BYTES:
            return size
    raise usage(
        f"--gpu-memory {text} is not the size of a GPU's memory.",
        "It takes a number and a unit.",
        "Write it like 24GiB.",
    )


def estimate(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file; - is standard input.")],
    gpu_memory: Annotated[
        str, typer.Option("--gpu-memory", metavar="SIZE", help="Ask for another card, such as 24GiB.")
    ] = "",
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the memory and disk space that a recipe needs, without loading anything.

    The model may be a folder that holds nothing but a config.json. Rows are taken to be as long as the sequence length.
    """
    from ...core import memory, system
    from ...core.runs import launch

    read_recipe, folder = read(recipe)
    ready = launch.resolved(changed(read_recipe, settings), folder)
    machine = system.snapshot()
    card = card_bytes(gpu_memory) if gpu_memory else (machine.total_bytes if machine.has_gpu else None)
    facts, shape = memory.look(ready.model.source, ready.model.revision)
    found = memory.estimate_shape(ready, shape, card_bytes=card, facts=facts)
    on_cpu = memory.estimate_host(ready, shape)
    fits = None if card is None else found.gpu_total_bytes <= card
    if as_json:
        output.data(
            {
                "recipe": ready.name,
                "model": ready.model.source,
                "parameters": shape.parameters,
                "gpu_reserved_bytes": found.gpu_reserved_bytes,
                "gpu_total_bytes": found.gpu_total_bytes,
                "host_bytes": found.host_bytes,
                "host_needed_bytes": found.host_needed_bytes,
                "disk_bytes": found.disk_bytes,
                "parts": _table(found.parts),
                "host_parts": _table(found.host_parts),
                "disk_parts": _table(found.disk_parts),
                "without_gpu_bytes": on_cpu.total_bytes,
                "gpu_memory_bytes": card,
                "fits": fits,
                "confidence": found.confidence,
                "remarks": list(found.remarks),
            }
        )
        return
    _say(found, on_cpu, card)


def _table(parts: tuple[Part, ...]) -> dict[str, Any]:
    return {part.name.replace(" ", "_"): part.bytes for part in parts}


def _say(found: MemoryEstimate, on_cpu: MemoryEstimate, card: int | None) -> None:
    from ...core.text import bytes_words

    def block(title: str, total: int, parts: tuple[Part, ...]) -> None:
        output.line(f"{title:<14}{bytes_words(total):>11}")
        for part in parts:
            if part.bytes:
                output.line(f"  {part.name:<22}{bytes_words(part.bytes):>11}")

    block("GPU memory", found.gpu_total_bytes, found.parts)
    block("Host memory", found.host_bytes, found.host_parts)
    if found.host_needed_bytes < found.host_bytes:
        needed = bytes_words(found.host_needed_bytes)
        output.line(
            f"  {needed} of it must be there; the pages of the weight files give way when memory is short."
        )
    block("Disk", found.disk_bytes, found.disk_parts)
    output.line(f"Without a GPU {bytes_words(on_cpu.total_bytes):>11}  of host memory")
    if card is not None:
        spare = card - found.gpu_total_bytes
        words = f"{bytes_words(spare)} to spare" if spare >= 0 else f"{bytes_words(-spare)} too much"
        output.line(
            f"A card of {bytes_words(card)}: {'it fits' if spare >= 0 else 'it does not fit'}, {words}."
        )
    for remark in found.remarks:
        output.line(remark)
