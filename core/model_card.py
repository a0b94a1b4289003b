"""The model card that goes along with an export: base, data, recipe, losses, scores, proof, licence, and how to use it.

It names the data and counts its rows; no row is quoted. On the hub no path of this machine is told.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import hub, system_prompt
from .export import ADAPTERS, ASK_SCRIPT, adapter_file, beginning, not_in_vllm, serve_adapter
from .leaving import Finished, base_name, modelfile_name, several_modelfiles, subfolder
from .model import DEMO_FACTS
from .recipe import DEMO, Recipe
from .runs import event_log, state
from .runs.store import RunFolder
from .text import bytes_words, clean, one_line

_HEAD_BYTES = 16 * 1024
_HUB_SECONDS = 10.0
_LICENSE_KEYS = ("license", "license_name", "license_link")

NO_LICENSE = "unknown"


@dataclass(frozen=True)
class License:
    """What the base's card says of its licence: the hub's short name, and for `other` its name and address."""

    license: str = ""
    license_name: str = ""
    license_link: str = ""

    @property
    def words(self) -> str:
        """For people."""
        return self.license_name or self.license or NO_LICENSE


def base_license(recipe: Recipe) -> License:
    """The licence of the recipe's base model: from its card in its folder or the hub's cache, else as the hub says it.

    Unknown where none of them says. Blocking; raises nothing.
    """
    source = recipe.model.source
    if source == DEMO:
        return License(DEMO_FACTS.license)
    folder = Path(source).expanduser()
    if folder.is_dir():
        return license_in(folder / "README.md")
    if not hub.is_id(source):
        return License()
    snapshot = hub.cached_snapshot(source, "model", recipe.model.revision)
    found = license_in(snapshot / "README.md") if snapshot is not None else License()
    return found if found.license or hub.is_offline() else _license_on_hub(source, recipe.model.revision)


def license_in(card: Path) -> License:
    """The licence that a model card's front matter names."""
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            head = file.read(_HEAD_BYTES)
        told = yaml.safe_load(head.split("\n---", 1)[0]) if head.startswith("---") else None
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return License()
    return _license(told)


def _license(told: Any) -> License:
    get = told.get if isinstance(told, dict) else lambda _key: None
    texts = [get(key) for key in _LICENSE_KEYS]
    return License(*(one_line(text, 200) if isinstance(text, str) else "" for text in texts))


def _license_on_hub(repository: str, revision: str | None) -> License:
    from huggingface_hub import HfApi

    from .secrets import hub_token

    try:
        api = HfApi(endpoint=hub.endpoint(), token=hub_token() or False)
        info = api.model_info(repository, revision=revision, timeout=_HUB_SECONDS)
        found = _license(info.card_data.to_dict() if info.card_data is not None else None)
        tags = [tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")]
    except Exception:  # the edge of huggingface_hub; an unknown licence is said as unknown
        return License()
    return found if found.license else License(one_line(tags[0], 200) if tags else "")


def write(run: RunFolder, exports: Sequence[Finished], licence: License, place: str = "") -> str:
    """The card's text. `place` is the hub repository that it goes to, empty for a folder. Raises FinetuiError (recipe)."""
    recipe = system_prompt.trained(run)
    reducer = state.Reducer()
    for record in event_log.read_all(run.events):
        reducer.add(record)
    sections = [
        _front_matter(recipe, exports, licence),
        f"# {_plain(recipe.name)}",
        _opening(recipe, exports),
        "## How to use it\n\n" + _usage_section(recipe, exports, place),
        "## Training\n\n" + _training(recipe, reducer),
        "## Proof\n\n" + _proof(exports),
        "## Licence\n\n" + _licence_section(recipe, licence),
    ]
    return "\n\n".join(sections) + "\n"


def usage(recipe: Recipe, exports: Sequence[Finished], place: str = "") -> tuple[tuple[str, str], ...]:
    """How each export is used from where it went: titles, and shell commands that stand in its folder or name `place`."""
    found: list[tuple[str, str]] = []
    formats = {done.format for done in exports}
    several = several_modelfiles(exports)
    name, base = recipe.name.lower(), base_name(recipe, here=not place)
    system = f" -sys {shlex.quote(recipe.dataset.system_prompt)}" if recipe.dataset.system_prompt else ""
    for done in exports:
        if done.gguf is not None:
            file = done.gguf.name
            if place:
                found.append(
                    (f"{done.info.title} in Ollama", f"ollama run hf.co/{place}:{done.info.quantization}")
                )
                found.append(
                    (
                        f"{done.info.title} in llama.cpp",
                        f"llama-cli -hf {place}:{done.info.quantization} -cnv{system}",
                    )
                )
            else:
                modelfile = modelfile_name(done, several=several)
                tag = f"{name}:{done.info.quantization.lower()}" if several else name
                create = f"ollama create {shlex.quote(tag)} -f {shlex.quote(modelfile)}"
                found.append((f"{done.info.title} in Ollama", f"{create} && ollama run {shlex.quote(tag)}"))
                found.append(
                    (
                        f"{done.info.title} in llama.cpp",
                        f"llama-cli -m {shlex.quote('./' + file)} -cnv{system}",
                    )
                )
        elif done.format == "adapter_gguf":
            lora = shlex.quote("./" + adapter_file(recipe.name))
            over = shlex.join(["llama-server", "-m", "BASE.gguf", *beginning(done.begins)])
            serve = f"{over} --lora {lora} --alias {shlex.quote(name)}"
            found.append((f"{done.info.title} in llama.cpp, over a GGUF of {base}", serve))
            modelfile = modelfile_name(done, several=several)
            has_modelfile = any(file.name == "Modelfile" for file in done.files)
            if not place and has_modelfile and done.begins is None:  # Ollama cannot be told
                create = f"ollama create {shlex.quote(name)} -f {modelfile} && ollama run {shlex.quote(name)}"
                found.append(
                    (f"{done.info.title} in Ollama, with a GGUF of {base} here as BASE.gguf", create)
                )
        elif done.format == "adapter":
            folder = subfolder(done.format, formats)
            at = place or "./" + folder
            if not place and any(file.name == ASK_SCRIPT for file in done.files):
                script = f"{folder}/{ASK_SCRIPT}" if folder else ASK_SCRIPT
                found.append(("Ask the adapter", f'python {script} "Hello!"'))
            if not (place and folder) and not not_in_vllm(recipe.lora):  # it takes a repository's root only
                found.append(("Serve the adapter with vLLM", serve_adapter(base, name, at, recipe.lora)))
        else:
            folder = subfolder(done.format, formats)
            four_bit = done.format == "merged_4bit"
            what = "the 4-bit model" if four_bit else "the merged model"
            if not place:
                script = f"{folder}/{ASK_SCRIPT}" if folder else ASK_SCRIPT
                found.append((f"Ask {what}", f'python {script} "Hello!"'))
            if not (place and folder):  # vLLM takes a repository's root only
                at = place or (f"./{folder}" if folder else ".")
                serve = f"vllm serve {at} --served-model-name {name}"
                found.append((f"Serve {what} with vLLM", serve + " --quantization bitsandbytes" * four_bit))
    return tuple(found)


def _front_matter(recipe: Recipe, exports: Sequence[Finished], licence: License) -> str:
    formats = {done.format for done in exports}
    base = base_name(recipe)
    data: dict[str, Any] = {}
    if licence.license:
        data |= {key: value for key in _LICENSE_KEYS if (value := getattr(licence, key))}
    if "/" in base:
        data["base_model"] = base
        quantized = bool(formats) and not formats & {*ADAPTERS, "merged"}
        data["base_model_relation"] = (
            "adapter" if formats and formats <= set(ADAPTERS) else "quantized" if quantized else "finetune"
        )
    if _is_hub_dataset(recipe):
        data["datasets"] = [recipe.dataset.source]
    whole = formats & {"merged", "merged_4bit"}
    data["library_name"] = "peft" if "adapter" in formats and not whole else "transformers"
    if formats and all(done.gguf is not None for done in exports):
        data["library_name"] = "gguf"
    data["pipeline_tag"] = "text-generation"
    data["tags"] = ["finetui", "unsloth", *(["lora"] if recipe.lora.method == "lora" else [])]
    return "---\n" + yaml.safe_dump(data, sort_keys=False, allow_unicode=True).strip() + "\n---"


def _opening(recipe: Recipe, exports: Sequence[Finished]) -> str:
    method = "Full fine-tuning" if recipe.lora.method == "full" else "LoRA fine-tuning"
    held = ", ".join(f"{done.info.title} ({bytes_words(done.bytes)})" for done in exports)
    return f"{method} of {_plain(base_name(recipe))}, made with finetui and Unsloth. Here: {held}."


def _usage_section(recipe: Recipe, exports: Sequence[Finished], place: str) -> str:
    parts = [f"{title}:\n\n{_fenced('sh', command)}" for title, command in usage(recipe, exports, place)]
    if place:
        parts += [f"From Python:\n\n{_fenced('python', code)}" for code in _python(recipe, exports, place)]
    if (what := not_in_vllm(recipe.lora)) and any(done.format == "adapter" for done in exports):
        parts.append(f"vLLM takes no adapter with {what}; it serves the merged model.")
    if recipe.dataset.system_prompt:
        where = (
            "the commands for a GGUF give it along; for the others it stands in system_prompt.txt"
            if any(done.gguf is not None for done in exports)
            else "it stands in system_prompt.txt"
        )
        parts.append(f"It was trained with a system prompt, and expects it: {where}.")
    return "\n\n".join(parts)


def _python(recipe: Recipe, exports: Sequence[Finished], place: str) -> list[str]:
    formats = {done.format for done in exports}
    head = "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    found: list[str] = []

    def within(format: str) -> str:
        apart = subfolder(format, formats)
        return f", subfolder={apart!r}" if apart else ""

    for format in ("merged", "merged_4bit"):
        if format in formats:
            folder = within(format)
            needs = "# pip install transformers accelerate bitsandbytes\n" if format == "merged_4bit" else ""
            found.append(
                f"{needs}{head}\ntokenizer = AutoTokenizer.from_pretrained({place!r}{folder})\n"
                f"model = AutoModelForCausalLM.from_pretrained({place!r}{folder})"
            )
    if "adapter" in formats:
        folder = within("adapter")
        found.append(
            f"{head}from peft import PeftModel\n\nbase = AutoModelForCausalLM.from_pretrained({base_name(recipe)!r})\n"
            f"model = PeftModel.from_pretrained(base, {place!r}{folder})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({place!r}{folder})"
        )
    return found


def _training(recipe: Recipe, reducer: state.Reducer) -> str:
    rows: list[tuple[str, str]] = [("Base model", base_name(recipe)), ("Data", _data_name(recipe))]
    if (dataset := reducer.dataset) is not None:
        held_out = f", {dataset.evaluation_rows:,} held out" if dataset.evaluation_rows else ""
        rows.append(("Rows", f"{dataset.rows:,} trained on{held_out}"))
        rows.append(("Tokens in an epoch", f"{dataset.tokens:,}, {dataset.trained_tokens:,} of them learned"))
    training, lora = recipe.training, recipe.lora
    if (step := reducer.step) is not None:
        rows.append(("Steps", f"{step.step:,} ({step.epoch:.2f} epochs)"))
    if lora.method == "lora":
        layers = ", ".join(lora.target_modules)
        rows.append(("LoRA", f"rank {lora.rank}, alpha {lora.alpha}, dropout {lora.dropout:g}, on {layers}"))
    rows += [
        ("Precision of the base", recipe.model.precision),
        ("Sequence length", f"{recipe.model.max_length:,} tokens"),
        ("Effective batch", f"{recipe.effective_batch_size:,} rows"),
        ("Learning rate", f"{training.learning_rate:g}, {training.schedule}, {training.optimizer}"),
        ("Seed", str(training.seed)),
    ]
    if step is not None:
        rows.append(("Last training loss", f"{step.loss:.4f}"))
    if (kept := reducer.best_kept) is not None:
        rows.append(("Weights", kept.sentence))
    if reducer.evaluation is not None:
        rows.append(("Held-out loss", f"{reducer.evaluation.loss:.4f}"))
    if reducer.best is not None:
        rows.append(("Best held-out loss", f"{reducer.best.loss:.4f} at step {reducer.best.step:,}"))
    if (score := reducer.score) is not None:
        for name, count in (("Valid", "valid"), ("Right category", "category_right"), ("Exact", "exact")):
            before, after = getattr(score.base, count), getattr(score.tuned, count)
            rows.append((f"{name} answers of {score.rows:,}", f"{after:,} (base: {before:,})"))
    table = [f"| {_plain(name)} | {_plain(value)} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *table]) + "\n\nLosses are in nats per token."


def _proof(exports: Sequence[Finished]) -> str:
    lines: list[str] = []
    for done in exports:
        verdict = "not compared with the trained model" if done.proof is None else f"**{done.proof.verdict}**"
        # What a consumer says of a broken one may name paths of this machine.
        told = done.proof.sentence if done.proof is not None and done.proof.verdict != "broken" else ""
        lines.append(f"- {done.info.title}: {verdict}. {_plain(told)}".rstrip())
    return (
        "Each export is opened by what will use it, and compared with the model that was trained.\n\n"
        + "\n".join(lines)
    )


def _licence_section(recipe: Recipe, licence: License) -> str:
    base = _plain(base_name(recipe))
    if not licence.license:
        return (
            f"The licence of {base} is unknown: its card was not found, or names none. "
            "Look it up before you share this model; it applies to what is made from it."
        )
    link = f" ({_plain(licence.license_link)})" if licence.license_link else ""
    return f"{_plain(licence.words)}{link}, carried over from {base}."


def _data_name(recipe: Recipe) -> str:
    source = recipe.dataset.source
    if source == DEMO:
        return "finetui's demo data"
    return (
        source if _is_hub_dataset(recipe) else re.split(r"[/\\]", source.rstrip("/\\"))[-1] or "local files"
    )


def _is_hub_dataset(recipe: Recipe) -> bool:
    source = recipe.dataset.source
    return source != DEMO and "/" in source and hub.is_id(source) and not Path(source).expanduser().exists()


def _fenced(language: str, code: str) -> str:
    """A block of code that no line of it can end early."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}{language}\n{clean(code)}\n{fence}"


def _plain(text: str) -> str:
    """`text` from outside as Markdown that is nothing but text."""
    return re.sub(r"([\\`*_{}\[\]<>|#!])", r"\\\1", one_line(text, 300))
