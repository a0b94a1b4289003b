"""The model step: what a model source is, and whether it can be tuned here. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it is loaded. None is not known."""

    source: str
    kind: Literal["demo", "folder", "hub"]
    title: str
    """Short name for the rail, such as `Qwen3-0.6B`."""
    architecture: str = ""
    parameters: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_size: int | None = None
    vocabulary: int | None = None
    context_length: int | None = None
    tied_embeddings: bool | None = None
    dtype: str = ""
    weights_bytes: int | None = None
    """Size of the weight files on disk, or to be downloaded."""
    chat_template: bool | None = None
    license: str = ""
    revision: str | None = None
    cached: bool = True
    """Whether a run needs no download for it."""


def inspect(source: str, revision: str | None = None) -> ModelFacts:
    """Looks at `source` (`demo`, a folder, or a hub id) and refuses what cannot be tuned.

    Blocking (files, and the hub for an id that is not cached): call it from a thread. Raises FinetuiError, each with
    its own `code`: model-missing, model-not-a-model, model-gguf, model-adapter, model-no-weights, model-pickle,
    model-no-chat-template (only from `check_template`), hub-offline, hub-not-found, hub-gated.
    """
    raise NotImplementedError
