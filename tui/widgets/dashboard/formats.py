"""The formats of an export in lines: the menu, what each is for, and what those that are ticked take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from textual.content import Content

from ....core.export import FORMATS, weighed
from ....core.export_budget import Budget, Need
from ....core.quantizations import LOSS_SOURCE
from ....core.recipe import ExportFormat
from ....core.runs.events import Exported
from ....core.text import bytes_words
from ...theme import glyphs
from ..menu import Item
from ..text import literal

FORMS = (
    "The adapter alone is small, and needs the base model beside it. A GGUF is one file with everything in it, for Ollama, "
    "LM Studio and llama.cpp: Q8_0 is half of F16 and as good as exact. Merged is a folder for Transformers and vLLM."
)


def items(
    order: Sequence[ExportFormat],
    ticked: Collection[ExportFormat],
    done: Mapping[str, Exported],
    expected: Mapping[ExportFormat, int | None],
    unfolded: bool,
) -> tuple[Item, ...]:
    """One line for each format of `order`, with its size, and one that unfolds the others. Sizes in bytes."""
    marks = glyphs()
    found: list[Item] = []
    for format in order:
        info, there, size = FORMATS[format], done.get(format), expected.get(format)
        if there is not None:
            right = f"{marks.check} {bytes_words(there.bytes)}"
        else:
            right = f"~{bytes_words(size)}" if size else marks.dash
        words = info.summary + (f" {marks.middot} needs llama.cpp" if info.needs_llama_cpp else "")
        box = f"[{marks.check if format in ticked else ' '}]"
        found.append(Item(format, f"{box} {info.title}", literal(words), right, "", "$accent"))
    more = len(FORMATS) - len(order)
    if unfolded:
        found.append(Item("more", "[-] Fewer", "only the common ones", "", "", "$accent"))
    elif more:
        words = "merged in 4 bit, and more of llama.cpp's quantizations"
        found.append(Item("more", f"[+] {more} more", words, "", "", "$accent"))
    return tuple(found)


def about(format: ExportFormat | None, importance: bool) -> str:
    """What a format is for, what quality it costs, and whether an importance matrix is made for it where `importance` says
    whether one is asked for; None is the line that unfolds."""
    if format is None:
        return "For those who look for one of them: a little smaller, larger, or of an older form."
    info = FORMATS[format]
    words = f"{info.title}: {info.summary}."
    if info.quantization or format == "merged_4bit":
        words += f" Loss of quality: {info.loss}."
    if info.needs_matrix:
        words += " It cannot be made without an importance matrix, and always gets one."
    elif weighed(format, importance):
        words += " It is made with an importance matrix."
    return words


def on_gpu(need: Need, there: bool) -> str:
    """The memory that making and proving a format take, where a GPU is `there` to prove it with."""
    if not there or need.there or need.ram_bytes is None or need.proof_ram_bytes is None:
        return ""
    words = f" Making it takes {bytes_words(need.ram_bytes)} of memory and no GPU"
    if not need.proof_ram_bytes:
        return f"{words}."
    words += f", proving it {bytes_words(need.proof_ram_bytes)}"
    if need.proof_gpu_bytes:
        return f"{words} and {bytes_words(need.proof_gpu_bytes)} of the GPU; where that is short, the CPU does it."
    return f"{words} and no GPU either."


def importance_words(on: bool) -> str:
    """What turning the importance matrix on or off does, and to which formats."""
    always = ", ".join(info.quantization for info in FORMATS.values() if info.needs_matrix)
    if on:
        return (
            "With an importance matrix: llama.cpp reads training data with the tuned model, and quantizations spare what it "
            "needs most. Takes minutes, hours for a large model. F16, F32, BF16 and Q8_0 stay as they are."
        )
    return f"Without an importance matrix, but for those that cannot be made without: {always}."


def total(
    count: int,
    need_bytes: int,
    budget: Budget | None,
    free_bytes: int | None,
    too_large: bool,
    weighed: bool,
) -> Content:
    """What `count` ticked formats take together, against what is free. `weighed`: an importance matrix is made for them."""
    marks = glyphs()
    if not count:
        return Content.assemble(("Space ticks a format, Enter exports.", "$text-muted"))
    words = f"{count} ticked" + (f" {marks.middot} ~{bytes_words(need_bytes)}" if need_bytes else "")
    free = "" if free_bytes is None else f" of {bytes_words(free_bytes)} free"
    if budget is not None and budget.shared_bytes:
        free += f" ({bytes_words(budget.shared_bytes)} meanwhile)"
    if budget is not None and budget.ram_bytes:
        free += f" {marks.middot} {bytes_words(budget.ram_bytes)} memory"
    if weighed:
        free += f" {marks.middot} importance matrix"
    if too_large:
        return Content.assemble((f"{marks.warn} {words}{free}: too little space", "bold $text-warning"))
    return Content.assemble((words + free, "$foreground"))


def explanation() -> Content:
    """All formats, for the help."""
    lines = [Content.assemble(("Formats\n", "bold $accent"), FORMS)]
    for info in FORMATS.values():
        loss = f" ({info.loss})" if info.quantization or info.format == "merged_4bit" else ""
        lines.append(Content.assemble((f"{info.title}: ", "bold"), (info.summary + loss, "$text-muted")))
    lines.append(Content.assemble(("Importance: ", "bold"), (importance_words(True), "$text-muted")))
    lines.append(
        Content.assemble((f"Loss of quality: {LOSS_SOURCE}; a small model loses more.", "$text-muted"))
    )
    return Content("\n").join(lines)
