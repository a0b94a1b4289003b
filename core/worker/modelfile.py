"""The Ollama Modelfile of an export: the same template, stop tokens and system prompt as in training.

Ollama's templates are Go's, the tokenizer's are Jinja. A Go template is written only where the tokenizer renders, to
the character, what that template would; otherwise Ollama is left to the template inside the GGUF.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..export import NOT_IN_OLLAMA, begins_otherwise

Messages = list[dict[str, str]]
Render = Callable[[Messages], str]
"""Messages to the text that the model sees, with the opening of the answer at its end."""


def render_of(folder: Path) -> tuple[Render | None, str, str]:
    """How the tokenizer in `folder` writes a conversation (None without a chat template), and its first and last token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)

    def render(messages: Messages) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    bos, eos = str(tokenizer.bos_token or ""), str(tokenizer.eos_token or "")
    return (render if tokenizer.chat_template else None, bos, eos)


@dataclass(frozen=True)
class _Known:
    """A family of templates: each message is `before` role `between` content `after`, then `opening`."""

    name: str
    before: str
    between: str
    after: str
    stops: tuple[str, ...]

    def render(self, messages: Messages) -> str:
        parts = [self.before + m["role"] + self.between + m["content"] + self.after for m in messages]
        return "".join(parts) + self.before + "assistant" + self.between

    def go(self) -> str:
        message = f"{self.before}{{{{ .Role }}}}{self.between}{{{{ .Content }}}}{self.after}"
        return "{{ range .Messages }}" + message + "{{ end }}" + f"{self.before}assistant{self.between}"


_KNOWN: Final = (
    _Known("chatml", "<|im_start|>", "\n", "<|im_end|>\n", ("<|im_end|>",)),
    _Known(
        "llama-3",
        "<|start_header_id|>",
        "<|end_header_id|>\n\n",
        "<|eot_id|>",
        ("<|eot_id|>", "<|end_of_text|>"),
    ),
    _Known("zephyr", "<|", "|>\n", "</s>\n", ("</s>",)),
    _Known("phi-3", "<|", "|>\n", "<|end|>\n", ("<|end|>",)),
)

_QUESTION: Final[Messages] = [{"role": "user", "content": "U1"}]
_PROBES: Final[tuple[Messages, ...]] = (
    [{"role": "system", "content": "S1"}, {"role": "user", "content": "U1"}],
    [
        {"role": "system", "content": "S1"},
        {"role": "user", "content": "U1"},
        {"role": "assistant", "content": "A1"},
        {"role": "user", "content": "U2"},
    ],
)


_LEAST_CONTEXT: Final = 4096
"""Ollama's own context where memory is little; so much a talk should have."""


def context_of(folder: Path, max_length: int) -> int:
    """How many tokens Ollama is to hold (num_ctx): no fewer than the longest row of the training, which its own choice may cut,
    and no more than that or `_LEAST_CONTEXT`: the memory for it is taken at once. Never more than the model in `folder` knows."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        known = config.get("max_position_embeddings") or config["text_config"]["max_position_embeddings"]
        return min(int(known), max(max_length, _LEAST_CONTEXT))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return max(max_length, _LEAST_CONTEXT)


def write(
    gguf_name: str, render: Render | None, bos: str, eos: str, system_prompt: str | None, context: int
) -> str:
    """The Modelfile's text for the GGUF beside it. `render` None: the tokenizer has no chat template.

    The system prompt is the recipe's; without one, it is what the template itself puts in when there is none, so
    that Ollama shows the model what training showed it.
    """
    return _written([f"FROM ./{gguf_name}"], render, bos, eos, system_prompt, context)


def write_over(
    adapter_name: str,
    base: str,
    base_render: Render | None,
    render: Render | None,
    bos: str,
    eos: str,
    system_prompt: str | None,
    context: int,
    begins: bool | None = None,
) -> str | None:
    """The Modelfile's text for the adapter beside it, over a GGUF of `base`, which is for the person to name.

    None where it could not be truthful: the template is none that is known here, and that in a GGUF of the base, whose
    template is `base_render`, is another one. `begins`: as in the export's record.
    """
    if render and _recognise(render, bos) is None or not render and base_render:
        asked = (*_PROBES, _QUESTION)
        ours = [_rendered(render, probe, bos) if render else None for probe in asked]
        theirs = [_rendered(base_render, probe, bos) if base_render else None for probe in asked]
        if ours != theirs:
            return None
    first = [
        f"# The adapter goes over its base model, {base}. Put a GGUF of it here as BASE.gguf, or write its path, or what",
        "# Ollama calls it, after FROM. Over another model it talks gibberish.",
        *([f"# {begins_otherwise(begins).why} {NOT_IN_OLLAMA}"] if begins is not None else []),
        "FROM ./BASE.gguf",
        f"ADAPTER ./{adapter_name}",
    ]
    return _written(first, render, bos, eos, system_prompt, context)


def _written(
    lines: list[str], render: Render | None, bos: str, eos: str, system_prompt: str | None, context: int
) -> str:
    known = _recognise(render, bos) if render else None
    system = system_prompt
    if known and render:
        lines.append(f'TEMPLATE """{known.go()}"""')
        system = system or _built_in_system(render, known, bos)
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    lines.append(f"PARAMETER num_ctx {context}")
    # The likeliest answer, as in finetui's talk and proof; plain writing would go round in circles.
    lines += ["PARAMETER temperature 0"] if render else []
    stops = [*(known.stops if known else ()), *([eos] if eos and not (known and eos in known.stops) else [])]
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """`text` as a Modelfile takes it: in three quotes where it has quotes or lines, which then cannot hold three."""
    if '"' in text or "\n" in text or text != text.strip():
        safe = text.replace('"""', "'''")
        return f'"""{safe} """' if safe.endswith('"') else f'"""{safe}"""'
    return f'"{text}"'


def _rendered(render: Render, messages: Messages, bos: str) -> str | None:
    try:
        text = render(messages)
    except Exception:  # a template is a program from outside, and may refuse in any way it likes
        return None
    return text.removeprefix(bos) if bos and bos != "<|im_start|>" else text


def _recognise(render: Render, bos: str) -> _Known | None:
    rendered = [_rendered(render, probe, bos) for probe in _PROBES]
    for known in _KNOWN:
        if rendered == [known.render(probe) for probe in _PROBES]:
            return known
    return None


def _built_in_system(render: Render, known: _Known, bos: str) -> str | None:
    """What the template says as the system when nobody does."""
    text = _rendered(render, _QUESTION, bos) or ""
    opening = known.before + "system" + known.between
    if text.startswith(opening) and known.after in text:
        return text[len(opening) :].split(known.after, 1)[0] or None
    return None
