"""The model step: what a model source is, and whether it can be tuned here. No torch.

Folders are read by `model_folder`, hub ids by `model_hub`; `model_facts` understands a config.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from . import hub
from .errors import FinetuiError
from .model_catalog import CATALOG
from .model_facts import AdapterFound, ModelFacts, RemoteCodeFound
from .model_folder import inspect_folder
from .recipe import DEMO
from .text import one_line

__all__ = [
    "DEMO_FACTS",
    "AdapterFound",
    "ModelFacts",
    "RemoteCodeFound",
    "check_template",
    "inspect",
    "source_kind",
]

DEMO_FACTS = ModelFacts(
    source=DEMO,
    kind="demo",
    title="SmolLM2-135M-Instruct",
    architecture="LlamaForCausalLM",
    parameters=134_515_008,
    hidden_size=576,
    intermediate_size=1536,
    layers=30,
    heads=9,
    kv_heads=3,
    head_size=64,
    vocabulary=49_152,
    context_length=8192,
    tied_embeddings=True,
    dtype="bfloat16",
    weights_bytes=2 * 134_515_008,
    chat_template=True,
    license="apache-2.0",
    cached=True,
    model_type="llama",
)
"""The demo's model, known without preparing it. It comes with a Python package, so a run downloads nothing."""


def source_kind(source: str) -> Literal["demo", "folder", "hub"]:
    """What `source` names. An existing path, or what is written like one, is a folder; owner/name is a hub id.

    Raises FinetuiError (model-missing) for what can be neither.
    """
    if source == DEMO:
        return "demo"
    try:
        exists = _path(source).exists()
    except (OSError, ValueError):
        exists = False
    if exists or source.startswith(("/", ".", "~")) or source.lower().endswith(".gguf"):
        return "folder"
    if hub.is_id(source):
        return "hub"
    raise FinetuiError(
        f"{one_line(source, 100)} is neither a folder nor a hub id.",
        "There is no such folder, and a hub id is written owner/name.",
        "Check the spelling, or give the whole path.",
        code="model-missing",
    )


def _path(source: str) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError:  # ~somebody who does not exist
        return Path(source)


def inspect(source: str, revision: str | None = None, remote_code: str | None = None) -> ModelFacts:
    """Looks at `source` (`demo`, a folder, or a hub id) and refuses what cannot be tuned.

    Blocking (files, and the hub for an id that is not cached): call it from a thread. A hub id that is whole in the hub's
    cache is read from there, without network. Raises FinetuiError, each with its own `code`: model-missing,
    model-not-a-model, model-not-text, model-gguf, model-adapter (AdapterFound), model-no-weights, model-pickle, model-broken,
    model-no-tokenizer, model-tokenizer, model-quantized, model-unknown, model-remote-code (RemoteCodeFound, unless
    `remote_code` names exactly this commit), model-hostile, hub-busy, hub-offline, hub-not-found, hub-gated, hub-revision,
    hub-failed; and model-no-chat-template only from `check_template`.
    """
    kind = source_kind(source)
    if kind == "demo":
        return DEMO_FACTS
    if kind == "folder":
        folder = _path(source)
        try:
            return inspect_folder(
                folder, source, folder.resolve().name or str(folder), remote_code=remote_code
            )
        except ValueError as error:  # NUL in a path
            raise FinetuiError(
                f"{one_line(source, 100)} is not a path.",
                str(error),
                "Check the spelling.",
                code="model-missing",
            ) from error
    from .model_hub import inspect_hub

    return inspect_hub(source, revision, remote_code)


def check_template(facts: ModelFacts, format: str = "auto") -> None:
    """Refuses a base model that has no chat template, unless the dataset's `format` is plain writing (text).

    Raises FinetuiError (model-no-chat-template); its fix names the instruct version where one is known.
    """
    if facts.chat_template is not False or format == "text":
        return
    raise FinetuiError(
        f"{facts.title} has no chat template.",
        "It is a base model: it goes on with a text, and was never shown where a question ends and an answer begins.",
        f"Choose its instruct version, such as {_instruct(facts)}; or set the dataset's format to text, to learn plain writing.",
        code="model-no-chat-template",
    )


def _instruct(facts: ModelFacts) -> str:
    stem = facts.title.lower().removesuffix("-base").removesuffix("-pt")
    for model in CATALOG:
        if not model.base and model.id.split("/")[1].lower().startswith(stem):
            return model.id
    if facts.kind == "hub":
        name = facts.source
        for ending in ("-base", "-Base"):
            if name.endswith(ending):
                return name.removesuffix(ending)
        return f"{name.removesuffix('-pt')}-it" if "gemma" in stem else f"{name}-Instruct"
    return "unsloth/Qwen3-0.6B"
