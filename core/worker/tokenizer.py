"""The tokenizer of a recipe's model without the model and without torch: found or fetched, loaded, fingerprinted."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import hub, paths
from ..errors import FinetuiError
from ..recipe import DEMO, ModelSection
from ..text import one_line
from .child import go_on
from .child import run as run_child

FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates/*",
)
"""What of a hub repository is fetched: never weights, never code."""

_MOST_BYTES = 256 * 1024 * 1024
_PREPARE_DEMO = "from finetui.core.worker import demo_model; demo_model.prepare()"


def without_torch() -> None:
    """Makes torch look absent to what is imported from here on in this process: `transformers` then starts in a second
    and holds a tenth of the memory. To be called before it is imported."""
    if "torch" not in sys.modules:
        sys.modules["torch"] = None  # type: ignore[assignment]


def with_torch_again() -> None:
    """Undoes `without_torch`: `datasets` takes torch for present when it is installed, and imports it."""
    if sys.modules.get("torch", 0) is None:
        del sys.modules["torch"]


def folder(model: ModelSection, tell: Callable[[str], None] = lambda _text: None) -> Path:
    """The folder with the model's tokenizer files; those of a hub model are fetched when they are not in the cache.

    `tell` gets a few words about what takes time. Raises FinetuiError (model-missing, model-no-tokenizer, hub-…).
    """
    if model.source == DEMO:
        return _demo(tell)
    try:
        local = Path(model.source).expanduser()
        here = local.is_dir()
    except (OSError, ValueError, RuntimeError):
        local, here = Path(model.source), False
    if here:
        if not _has_tokenizer(local):
            raise FinetuiError(
                f"{one_line(local.name, 100)} has no tokenizer.",
                "Neither tokenizer.json nor tokenizer.model stands in the folder.",
                "Copy the tokenizer files of the same model into it.",
                code="model-no-tokenizer",
            )
        return local.absolute()
    if not hub.is_id(model.source):
        raise FinetuiError(
            f"{one_line(model.source, 100)} is neither a folder nor a hub model.",
            "There is no such folder, and a hub model is written owner/name.",
            "Check the spelling, or give the whole path.",
            code="model-missing",
        )
    cached = hub.cached_snapshot(model.source, "model", model.revision)
    if cached is not None and _has_tokenizer(cached):
        return cached
    if hub.is_offline():
        raise hub.offline_card(model.source, "model", "The environment forbids the hub (HF_HUB_OFFLINE).")
    tell("fetching the tokenizer")
    return _fetched(model)


def _fetched(model: ModelSection) -> Path:
    from huggingface_hub import snapshot_download

    from ..secrets import hub_token

    try:
        found = Path(
            snapshot_download(
                model.source,
                revision=model.revision,
                allow_patterns=list(FILES),
                ignore_patterns=["*.safetensors", "*.bin", "*.py", "*.gguf"],
                token=hub_token() or False,
                endpoint=hub.endpoint(),
                etag_timeout=hub.TIMEOUT_SECONDS,
            )
        )
    except Exception as error:  # the edge of huggingface_hub
        raise hub.card(error, model.source, "model") from error
    if not _has_tokenizer(found):
        raise FinetuiError(
            f"{one_line(model.source, 100)} has no tokenizer.",
            "Neither tokenizer.json nor tokenizer.model stands in its repository.",
            "Choose another model.",
            code="model-no-tokenizer",
        )
    return found


def _demo(tell: Callable[[str], None]) -> Path:
    made = paths.demo_model()
    if _has_tokenizer(made):
        return made
    tell("preparing the demo's model")
    run_child([sys.executable, "-P", "-c", _PREPARE_DEMO], check=go_on)
    return paths.demo_model()


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))


def load(folder: Path) -> Any:
    """The tokenizer in `folder`, of transformers' fast kind where it can be. Runs no code from the folder.

    Raises FinetuiError (tokenizer-broken).
    """
    from transformers import AutoTokenizer

    too_large = [
        p.name
        for p in folder.iterdir()
        if p.name.startswith(("tokenizer", "chat_template")) and p.stat().st_size > _MOST_BYTES
    ]
    try:
        if too_large:
            raise ValueError(f"{too_large[0]} is larger than 256 MiB")
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the edge of transformers, which lets through what all its readers raise
        raise FinetuiError(
            "The model's tokenizer cannot be loaded.",
            one_line(f"{type(error).__name__}: {error}", 300),
            "Its files are damaged, or of a kind that this version does not know. Choose another model.",
            code="tokenizer-broken",
        ) from error
    finally:
        # `transformers` has decided by now; `datasets` would take the mark of absence for torch itself.
        if sys.modules.get("torch", sys) is None:
            del sys.modules["torch"]


def end_tokens(folder: Path, tokenizer: Any) -> frozenset[int]:
    """The tokens at which the model stops to write: the tokenizer's own, and those of generation_config.json."""
    ends: list[object] = [tokenizer.eos_token_id]
    try:
        stated = json.loads((folder / "generation_config.json").read_bytes()).get("eos_token_id")
        ends += stated if isinstance(stated, list) else [stated]
    except (OSError, ValueError, AttributeError):
        pass
    return frozenset(end for end in ends if isinstance(end, int) and not isinstance(end, bool))


def fingerprint(folder: Path) -> str:
    """SHA-256 over the files that decide how rows are tokenized. Reads a few MB."""
    digest = hashlib.sha256()
    names = (
        "tokenizer",
        "special_tokens",
        "added_tokens",
        "vocab",
        "merges",
        "spiece",
        "chat_template",
        "generation",
    )
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(names) and path.is_file():
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
