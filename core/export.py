"""The export step: the formats, their sizes, and what to do with each next. No torch."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from .errors import FinetuiError
from .gguf_size import Shape, gguf_bytes
from .model import ModelFacts
from .quantizations import QUANTIZATIONS
from .recipe import ExportFormat, LoraSection, Recipe


@dataclass(frozen=True)
class FormatInfo:
    """One export format for people. `needs_llama_cpp`: made with llama.cpp's quantizer."""

    format: ExportFormat
    title: str
    summary: str
    bits_per_weight: float | None
    """Bits for each of the model's weights, as llama.cpp reports them for Llama-3.1-8B; None for the adapter."""
    needs_llama_cpp: bool = False
    needs_matrix: bool = False
    """Made only with an importance matrix."""
    quantization: str = ""
    """llama.cpp's name, such as `Q4_K_M`; empty for what is no GGUF."""
    common: bool = True
    """Shown at once; the others are folded away."""
    loss: str = "exact: nothing is lost"
    """The expected loss of quality, in words and numbers (`quantizations.LOSS_SOURCE`)."""


ADAPTERS: Final[tuple[ExportFormat, ...]] = ("adapter", "adapter_gguf")
"""What holds only what was learned."""


FORMATS: Final[dict[ExportFormat, FormatInfo]] = {
    info.format: info
    for info in (
        FormatInfo(
            "adapter",
            "Adapter (LoRA)",
            "only what was learned; small, used together with the base model",
            None,
        ),
        FormatInfo(
            "adapter_gguf",
            "Adapter, GGUF",
            "the same for llama.cpp, over a GGUF of the base model",
            None,
            common=False,
        ),
        FormatInfo("merged", "Merged, 16-bit", "a whole model in a folder, for Transformers and vLLM", 16.0),
        FormatInfo(
            "merged_4bit",
            "Merged, 4-bit",
            "the same in NF4 for a GPU, a third of it; not to be trained on",
            5.68,
            common=False,
            loss="like Q4_K_M's or somewhat more",
        ),
        *(
            FormatInfo(
                cast(ExportFormat, f"gguf_{q.name.lower()}"),
                f"GGUF {q.name}",
                q.summary,
                q.bits,
                needs_llama_cpp=not q.converter,
                needs_matrix=q.needs_matrix,
                quantization=q.name,
                common=q.common,
                loss=q.loss,
            )
            for q in QUANTIZATIONS.values()
        ),
    )
}


def weighed(format: ExportFormat, importance: bool) -> bool:
    """Whether `format` is made with an importance matrix: where llama.cpp needs one, or where `importance` asks for it."""
    info = FORMATS[format]
    return info.needs_matrix or (importance and info.needs_llama_cpp)


def with_importance(recipe: Recipe, importance: bool | None) -> Recipe:
    """The recipe with its importance matrix as `importance` says; None leaves it."""
    if importance is None:
        return recipe
    section = recipe.export.model_copy(update={"importance": importance})
    return recipe.model_copy(update={"export": section})


COMMON: Final[tuple[ExportFormat, ...]] = tuple(f for f, info in FORMATS.items() if info.common)
"""The formats that most people choose from; the rest are for those who look for them."""

NF4_BITS: Final = 4 + (8 + 32 / 256) / 64
"""Bits of a weight in NF4: its code, and its share of a block's 8-bit scale and of that scale's own scale."""
_TOKENIZER_BYTES_PER_TOKEN = 75


def _shape(facts: ModelFacts) -> Shape | None:
    hidden, heads = facts.hidden_size, facts.heads
    if not (hidden and heads and facts.intermediate_size and facts.layers and facts.vocabulary):
        return None
    head_size = facts.head_size or hidden // heads
    return Shape(
        hidden=hidden,
        intermediate=facts.intermediate_size,
        layers=facts.layers,
        query=heads * head_size,
        key_value=(facts.kv_heads or heads) * head_size,
        vocabulary=facts.vocabulary,
        tied=bool(facts.tied_embeddings),
    )


def estimated_bytes(format: ExportFormat, facts: ModelFacts, lora: LoraSection) -> int | None:
    """About how large the export will be, in bytes; None where the model's shape is not known.

    Within a few percent for dense models of Llama's kind. The adapter is counted in 32 bit, as PEFT saves it.
    """
    shape = _shape(facts)
    info = FORMATS[format]
    if format in ADAPTERS:
        if shape is None:
            return None
        if lora.method == "full":
            return None
        tables = shape.hidden * shape.vocabulary * len(lora.modules_to_save)
        matrices = [shape.projection(target) for target in lora.target_modules]
        sides = sum(map(sum, matrices))
        if lora.dora:  # and the length of each row
            rows = sum(outputs for _, outputs in matrices)
            tables += rows * shape.layers
        return 4 * (lora.rank * sides * shape.layers + tables) + _TOKENIZER_BYTES_PER_TOKEN * shape.vocabulary
    if info.quantization and shape is not None:
        guess = gguf_bytes(info.quantization, shape)
        if facts.parameters:  # experts, biases and other parts that the shape alone does not tell
            guess = round(guess * max(1.0, facts.parameters * 2 / gguf_bytes("F16", shape)))
        return guess
    if format == "merged_4bit" and shape is not None and facts.parameters:
        packed = shape.layers * sum(inputs * outputs for inputs, outputs in shape.projections().values())
        return round(packed * (NF4_BITS - 16.0) / 8) + (estimated_bytes("merged", facts, lora) or 0)
    if facts.parameters is None or info.bits_per_weight is None:
        return None
    tokenizer = _TOKENIZER_BYTES_PER_TOKEN * (facts.vocabulary or 0)
    return round(facts.parameters * info.bits_per_weight / 8) + tokenizer


@dataclass(frozen=True)
class NextCommand:
    """One way to use an export: `title` for people, `command` for a POSIX shell."""

    title: str
    command: str


_VLLM_RANKS: Final = (16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank takes; without it an adapter of a higher rank than the first is refused."""


def adapter_file(name: str) -> str:
    """What the GGUF of an adapter is called in its folder."""
    return f"{name}-lora.gguf"


def beginning(begins: bool | None) -> list[str]:
    """What tells llama.cpp whether the beginning-of-text token leads what is asked (`export_record.Record.begins`)."""
    if begins is None:
        return []
    return ["--override-kv", f"tokenizer.ggml.add_bos_token=bool:{'true' if begins else 'false'}"]


NOT_IN_OLLAMA: Final = "Ollama cannot be told: take a whole GGUF there, such as gguf_q8_0."


def begins_otherwise(begins: bool) -> FinetuiError:
    """The card for an adapter whose base model's GGUF begins a question otherwise than its training did."""
    had, has = ("a", "none") if begins else ("no", "one")
    return FinetuiError(
        "The base model's GGUF begins a question otherwise than the training did.",
        f"The training put {had} beginning-of-text token before a question, and a GGUF of the base model puts {has} there.",
        f"The commands for llama.cpp set it right (--override-kv). {NOT_IN_OLLAMA}",
        code="adapter-beginning",
    )


ASK_SCRIPT = "ask.py"
"""Beside an adapter or a merged model: a script that asks it a question."""


def not_in_vllm(lora: LoraSection) -> str:
    """What of an adapter vLLM refuses (vllm/lora/peft_helper.py), in a word or two; empty where it serves it."""
    return "DoRA" if lora.dora else "trained tables" if lora.modules_to_save else ""


def serve_adapter(base: str, name: str, place: str, lora: LoraSection) -> str:
    """The command with which vLLM serves the adapter at `place` over `base`."""
    words = ["vllm", "serve", base, "--enable-lora", "--lora-modules", f"{name}={place}"]
    if lora.adapter_rank > _VLLM_RANKS[0]:
        most = next((most for most in _VLLM_RANKS if most >= lora.adapter_rank), _VLLM_RANKS[-1])
        words += ["--max-lora-rank", str(most)]
    return shlex.join(words)


def next_commands(
    format: ExportFormat,
    path: Path,
    name: str,
    base: str,
    system_prompt: str | None = None,
    lora: LoraSection | None = None,
    begins: bool | None = None,
) -> tuple[NextCommand, ...]:
    """The ways to use the export at `path`, the best first, each an exact, quoted shell command.

    `path` is the GGUF file, or the folder of the other formats; `base` the base model's folder or hub id. A
    `system_prompt` that was trained is given along where the command can carry one. `lora` is what the adapter was trained by.
    `begins`: as in the export's record.
    """
    quoted = shlex.quote(str(path))
    ask = NextCommand("Ask it", shlex.join([sys.executable, str(path / ASK_SCRIPT), "Hello!"]))
    if format == "adapter":
        lora = lora or LoraSection()
        if what := not_in_vllm(lora):
            merge = shlex.join(["finetui", "export", str(path.parent.parent), "--format", "merged"])
            return (ask, NextCommand(f"vLLM takes no adapter with {what}: export it merged", merge))
        return (ask, NextCommand("Serve it with vLLM", serve_adapter(base, name, str(path), lora)))
    if format == "adapter_gguf":
        over = ["-m", "BASE.gguf", *beginning(begins), "--lora", str(path / adapter_file(name))]
        serve = ["llama-server", *over, "--alias", name]
        chat = ["llama-cli", *over, "-cnv", *(["-sys", system_prompt] if system_prompt else [])]
        run = str(path.parent.parent)
        if begins is None:
            ollama = NextCommand(
                "Chat in Ollama, over a GGUF of the base model or what Ollama calls it",
                f"{shlex.join(['finetui', 'ollama', run, '--base', 'BASE.gguf'])} && "
                f"ollama run {shlex.quote(name.lower())}",
            )
        else:
            whole = shlex.join(["finetui", "export", run, "--format", "gguf_q8_0"])
            ollama = NextCommand(
                "Ollama begins questions otherwise than training: export a whole GGUF", whole
            )
        return (
            NextCommand(
                "Serve it with llama.cpp over a GGUF of the base model (BASE.gguf)", shlex.join(serve)
            ),
            NextCommand("Chat in llama.cpp", shlex.join(chat)),
            ollama,
        )
    if format == "merged":
        vllm = ["vllm", "serve", str(path), "--served-model-name", name]
        return (ask, NextCommand("Serve it with vLLM", shlex.join(vllm)))
    if format == "merged_4bit":
        vllm = ["vllm", "serve", str(path), "--served-model-name", name, "--quantization", "bitsandbytes"]
        return (ask, NextCommand("Serve it with vLLM", shlex.join(vllm)))
    modelfile = shlex.quote(str(path.parent / "Modelfile"))
    model = shlex.quote(name.lower())
    system = f" -sys {shlex.quote(system_prompt)}" if system_prompt else ""
    return (
        NextCommand("Chat in Ollama", f"ollama create {model} -f {modelfile} && ollama run {model}"),
        NextCommand("Chat in llama.cpp", f"llama-cli -m {quoted} -cnv{system}"),
        NextCommand("Serve it with llama.cpp", f"llama-server -m {quoted} --alias {shlex.quote(name)}"),
    )


def next_command(
    format: ExportFormat,
    path: Path,
    name: str,
    base: str,
    system_prompt: str | None = None,
    begins: bool | None = None,
) -> str:
    """The exact shell command that uses the export at `path` next: the first of `next_commands`."""
    return next_commands(format, path, name, base, system_prompt, begins=begins)[0].command
