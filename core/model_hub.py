"""A model on the hub: from the hub's cache where it is whole, else through the hub's API. Downloads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import hub
from .errors import FinetuiError
from .model_facts import ModelFacts, read_config
from .model_folder import (
    has_chat_template,
    has_tokenizer,
    inspect_folder,
    no_weights,
    read_json,
)
from .secrets import hub_token
from .text import one_line

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

_INCOMPLETE = ("model-broken", "model-no-weights", "model-no-tokenizer", "model-not-a-model", "model-missing")
"""What a snapshot that was only partly downloaded looks like; the hub is then asked."""

_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64", "U8": "uint8"}


def inspect_hub(repository: str, revision: str | None = None) -> ModelFacts:
    """The facts of the model `repository` at `revision`. Raises FinetuiError as `model.inspect` says."""
    snapshot = hub.cached_snapshot(repository, "model", revision)
    if snapshot is not None:
        try:
            facts = inspect_folder(snapshot, repository, repository.split("/")[-1])
            return replace(facts, kind="hub", revision=snapshot.name, license=_card_license(snapshot))
        except FinetuiError as error:
            if error.code not in _INCOMPLETE:
                raise
    if hub.is_offline():
        raise hub.offline_card(
            repository, "model", "HF_HUB_OFFLINE is set, and the hub's cache does not hold it whole."
        )
    return _ask(repository, revision)


def _card_license(snapshot: Path) -> str:
    """The licence from a cached model card's front matter, or nothing."""
    try:
        with (snapshot / "README.md").open(encoding="utf-8", errors="replace") as file:
            head = file.read(8192)
    except OSError:
        return ""
    if not head.startswith("---"):
        return ""
    for line in head.split("\n---", 1)[0].splitlines():
        if line.startswith("license:"):
            return one_line(line.removeprefix("license:").strip().strip("'\""), 40)
    return ""


def _ask(repository: str, revision: str | None) -> ModelFacts:
    from huggingface_hub import HfApi

    hub.quiet()
    token = hub_token() or False
    api = HfApi(endpoint=hub.endpoint(), token=token)
    title = one_line(repository.split("/")[-1], 100)
    try:
        info = api.model_info(repository, revision=revision, files_metadata=True, timeout=hub.TIMEOUT_SECONDS)
        names = frozenset(s.rfilename for s in info.siblings or () if "/" not in s.rfilename)
        if "config.json" not in names:
            raise _no_config(info, names, title)
        config = read_json(_small_file(repository, "config.json", info.sha), title)
        figures = read_config(config, title)
        weights_bytes, parameters, dtype = _weights(info, names, title)
        if not has_tokenizer(names):
            raise FinetuiError(
                f"{title} has no tokenizer.",
                "Its repository holds neither tokenizer.json nor tokenizer.model.",
                "Choose a version that has one.",
                code="model-no-tokenizer",
            )
        template = has_chat_template(Path("."), names - {"tokenizer_config.json"}, title)
        if not template and "tokenizer_config.json" in names:
            file = _small_file(repository, "tokenizer_config.json", info.sha)
            template = has_chat_template(file.parent, ("tokenizer_config.json",), title)
    except FinetuiError:
        raise
    except Exception as error:
        raise hub.card(error, repository, "model") from error
    return ModelFacts(
        source=repository,
        kind="hub",
        title=title,
        architecture=figures.architecture,
        parameters=parameters,
        hidden_size=figures.hidden_size,
        intermediate_size=figures.intermediate_size,
        layers=figures.layers,
        heads=figures.heads,
        kv_heads=figures.kv_heads,
        head_size=figures.head_size,
        vocabulary=figures.vocabulary,
        context_length=figures.context_length,
        tied_embeddings=figures.tied_embeddings,
        dtype=figures.dtype or dtype,
        weights_bytes=weights_bytes,
        chat_template=template,
        license=_license(info),
        revision=info.sha,
        cached=False,
        model_type=figures.model_type,
        quantization=figures.quantization,
        sees_images=figures.sees_images,
    )


def _small_file(repository: str, name: str, revision: str | None) -> Path:
    """One small file of the repository, through the hub's own cache."""
    from huggingface_hub import hf_hub_download

    return Path(
        hf_hub_download(
            repository,
            name,
            revision=revision,
            cache_dir=hub.cache_folder(),
            endpoint=hub.endpoint(),
            token=hub_token() or False,
            etag_timeout=hub.TIMEOUT_SECONDS,
        )
    )


def _no_config(info: ModelInfo, names: frozenset[str], title: str) -> FinetuiError:
    if "adapter_config.json" in names:
        base = getattr(info.card_data, "base_model", None)
        base = one_line(base, 120) if isinstance(base, str) else ""
        return FinetuiError(
            f"{title} is an adapter, not a whole model.",
            f"It holds only what was learned on top of {base or 'another model'}.",
            f"Choose its base: {base}" if base else "Choose the model that it was trained on.",
            code="model-adapter",
        )
    if any(name.lower().endswith(".gguf") for name in names):
        return no_weights(names, title)
    return FinetuiError(
        f"{title} is not a model in Transformers' form.",
        "Its repository has no config.json.",
        "Choose another version of it.",
        code="model-not-a-model",
    )


def _weights(info: ModelInfo, names: frozenset[str], title: str) -> tuple[int | None, int | None, str]:
    """Size in bytes, number of parameters and dtype of the weights, as far as the hub tells."""
    if "model.safetensors" in names:
        files = {"model.safetensors"}
    else:
        files = {n for n in names if n.startswith("model-") and n.endswith(".safetensors")}
    if not files:
        raise no_weights(names, title)
    sizes = [s.size for s in info.siblings or () if s.rfilename in files]
    known = [size for size in sizes if size is not None]
    weights_bytes = sum(known) if len(known) == len(sizes) else None
    counted: Mapping[str, Any] = getattr(info.safetensors, "parameters", None) or {}
    dtype = max(counted, key=lambda name: counted[name]) if counted else ""
    total: int | None = sum(n * (2 if name == "U8" else 1) for name, n in counted.items()) or None
    if total is None and weights_bytes is not None:
        total = weights_bytes // _BYTES.get(dtype, 2)
    return weights_bytes, total, _DTYPES.get(dtype, dtype.lower())


def _license(info: ModelInfo) -> str:
    found = getattr(info.card_data, "license", None)
    if isinstance(found, str):
        return one_line(found, 40)
    tags = [t for t in info.tags or () if t.startswith("license:")]
    return one_line(tags[0].removeprefix("license:"), 40) if tags else ""
