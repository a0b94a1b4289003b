"""What a model's tokenizer files say, read without loading a tokenizer: its size, its template, its end tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FinetuiError
from .model_files import read_json, unreadable
from .text import clean, one_line

TEMPLATE_CHARACTERS = 40_000
"""Of a chat template, for display; the longest in use have about 20,000."""

_STRIDE = 512 * 1024
"""A tokenizer of 30 MB is looked through in pieces, so that other threads get their turn."""

_OVERLAP = 256
_ID = re.compile(rb'(?<!\\)(?:\\\\)*":\s*(\d{1,9})\b')
"""A key's closing quote (one after an odd number of backslashes is part of the token) and the number after it."""

_VOCABULARY = re.compile(rb'"vocab":\s*\{')
_MERGES = re.compile(rb'"merges":\s*\[')
_ADDED = re.compile(rb'"added_tokens":\s*\[')
_ADDED_BYTES = 8 * 1024 * 1024
_NOT_TEXT = re.compile(r"image|audio|video|vision|img|soft_token", re.IGNORECASE)


@dataclass(frozen=True)
class Tokens:
    """The token ids that a tokenizer.json gives out. `added` are the ones beside its vocabulary, by id."""

    size: int
    """The largest id plus one."""
    vocabulary_size: int
    added: Mapping[int, str]


@dataclass(frozen=True)
class Words:
    """What the settings beside a tokenizer say."""

    has_template: bool
    template: str
    eos_tokens: tuple[str, ...]


def read_tokens(file: Path, shown: str) -> Tokens | None:
    """The ids in a tokenizer.json; None where it holds no table of them. Raises FinetuiError (model-broken)."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_ADDED_BYTES)
            added = _added(head)
            largest = -1
            inside = False
            stream.seek(0)
            kept = b""
            while piece := stream.read(_STRIDE):
                kept += piece
                if not inside:
                    start = _VOCABULARY.search(kept)
                    if start is None:
                        kept = kept[-_OVERLAP:]
                        continue
                    inside, kept = True, kept[start.end() - 1 :]
                end = _MERGES.search(kept)
                for found in _ID.finditer(kept, 0, end.start() if end else len(kept)):
                    largest = max(largest, int(found[1]))
                if end:
                    break
                kept = kept[-_OVERLAP:]
    except OSError as error:
        raise unreadable(file, shown, error) from error
    if largest < 0 and not added:
        return None
    return Tokens(max([largest, *added]) + 1, largest + 1, added)


def _added(head: bytes) -> dict[int, str]:
    start = _ADDED.search(head)
    if start is None:
        return {}
    try:
        text = head[start.end() - 1 :].decode("utf-8", "replace")
        entries, _end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return {}
    found: dict[int, str] = {}
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("id"), int) and 0 <= entry["id"] < 10**9:
            found[entry["id"]] = one_line(str(entry.get("content", "")), 80)
    return found


def check_tokenizer(tokens: Tokens | None, rows: int | None, shown: str) -> None:
    """Raises FinetuiError (model-tokenizer) where the tokenizer gives out ids that the embedding has no row for.

    Placeholders of pictures and sound are let pass, as text never holds them: Gemma 3 1B has one too many of those.
    """
    if tokens is None or not rows or tokens.size <= rows:
        return
    beyond = {number: word for number, word in tokens.added.items() if number >= rows}
    text = [word for _number, word in sorted(beyond.items()) if not _NOT_TEXT.search(word)]
    if tokens.vocabulary_size <= rows and not text:
        return
    example = f", such as {text[0]}" if text else ""
    raise FinetuiError(
        f"{shown} has a tokenizer that is larger than its embedding.",
        f"The tokenizer counts {tokens.size:,} tokens{example}, the embedding has {rows:,} rows: the first row of data with "
        "such a token would end the training.",
        "Take the tokenizer files that belong to these weights, or a version whose embedding was resized.",
        code="model-tokenizer",
    )


def read_words(folder: Path, names: Iterable[str], shown: str) -> Words:
    """The chat template and the end tokens from the settings in `folder` that are among `names`.

    Raises FinetuiError (model-broken) where the tokenizer's settings cannot be read.
    """
    found = set(names)
    settings = read_json(folder / "tokenizer_config.json", shown) if "tokenizer_config.json" in found else {}
    template: Any = settings.get("chat_template")
    has_template = bool(template) or bool(
        found & {"chat_template.jinja", "chat_template.json", "additional_chat_templates"}
    )
    if "chat_template.jinja" in found:
        template = _text(folder / "chat_template.jinja") or template
    elif "chat_template.json" in found and not template:
        template = _quiet(folder / "chat_template.json").get("chat_template")
    ends = [_content(settings.get("eos_token"))]
    if "generation_config.json" in found:
        numbers = _quiet(folder / "generation_config.json").get("eos_token_id")
        named = settings.get("added_tokens_decoder")
        by_id = named if isinstance(named, Mapping) else {}
        if not by_id and "tokenizer.json" in found:
            by_id = _added_of(folder / "tokenizer.json")
        for number in numbers if isinstance(numbers, list) else [numbers]:
            if isinstance(number, int):
                ends.append(_content(by_id.get(str(number))))
    unique = tuple(dict.fromkeys(end for end in ends if end))
    return Words(has_template, _shown(template), unique[:8])


def _added_of(file: Path) -> dict[str, str]:
    try:
        with file.open("rb") as stream:
            return {str(number): word for number, word in _added(stream.read(_ADDED_BYTES)).items()}
    except OSError:
        return {}


def _content(token: object) -> str:
    if isinstance(token, Mapping):
        token = token.get("content")
    return one_line(token, 60) if isinstance(token, str) else ""


def _shown(template: object) -> str:
    """A template's source. Of several by name, the one called default."""
    if isinstance(template, list):
        by_name = {t.get("name"): t.get("template") for t in template if isinstance(t, Mapping)}
        template = by_name.get("default") or next(iter(by_name.values()), "")
    return clean(template, TEMPLATE_CHARACTERS) if isinstance(template, str) else ""


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(TEMPLATE_CHARACTERS * 4)
    except OSError:
        return ""


def _quiet(file: Path) -> dict[str, Any]:
    """A JSON object, or nothing: these settings are told about and not relied on."""
    try:
        return read_json(file, file.name)
    except FinetuiError:
        return {}
