"""A model on the hub: from the hub's cache where it is whole, else through the hub's API. Downloads no weights."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import hub, hub_http
from .errors import FinetuiError
from .model_facts import ModelFacts, is_base, read_config, remote_code_found
from .model_files import check_links, check_names, read_json, wanted
from .model_folder import adapter_found, has_tokenizer, inspect_folder, own_code
from .model_tokenizer import read_words
from .model_weights import MAX_HEADER_BYTES, Weights, add_headers, checked_header, no_weights
from .secrets import hub_token
from .text import one_line

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

_INCOMPLETE = ("model-broken", "model-no-weights", "model-no-tokenizer", "model-not-a-model", "model-missing")
"""What a snapshot that was only partly downloaded looks like; the hub is then asked."""

MAX_SHARDS = 32
"""Headers are read of so many weight files at most; of a model of more the hub's own count is taken."""

_HEADER_GUESS = 64 * 1024
_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64", "U8": "uint8"}


def inspect_hub(repository: str, revision: str | None = None, remote_code: str | None = None) -> ModelFacts:
    """The facts of the model `repository` at `revision`. Raises FinetuiError as `model.inspect` says."""
    snapshot = hub.cached_snapshot(repository, "model", remote_code or revision)
    if snapshot is not None:
        try:
            check_links(snapshot, hub.cache_folder(), repository)
            facts = inspect_folder(
                snapshot,
                repository,
                repository.split("/")[-1],
                remote_code=remote_code,
                commit=snapshot.name,
            )
            return replace(facts, kind="hub", revision=snapshot.name, license=_card_license(snapshot))
        except FinetuiError as error:
            if error.code not in _INCOMPLETE:
                raise
    if hub.is_offline():
        raise hub.offline_card(
            repository, "model", "HF_HUB_OFFLINE is set, and the hub's cache does not hold it whole."
        )
    return _ask(repository, revision, remote_code)


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


def _ask(repository: str, revision: str | None, remote_code: str | None) -> ModelFacts:
    from huggingface_hub import HfApi

    hub.quiet()
    token = hub_token() or False
    api = HfApi(endpoint=hub.endpoint(), token=token)
    title = one_line(repository.split("/")[-1], 100)
    try:
        info = api.model_info(
            repository,
            revision=remote_code or revision,
            files_metadata=True,
            timeout=hub.TIMEOUT_SECONDS,
        )
        everything = [s.rfilename for s in info.siblings or ()]
        check_names(everything, repository)
        names = frozenset(name for name in everything if "/" not in name)
        if "config.json" not in names:
            raise _no_config(info, names, title, repository)
        config = read_json(_small_file(repository, "config.json", info.sha), title)
        figures = read_config(config, title)
        code = own_code(figures.code, names)
        if code and (info.sha != remote_code or any("--" in name for name in figures.code)):
            raise remote_code_found(title, repository, info.sha or "", code)
        weights_bytes, weights = _weights(info, names, title)
        if not has_tokenizer(names):
            raise FinetuiError(
                f"{title} has no tokenizer.",
                "Its repository holds neither tokenizer.json nor tokenizer.model.",
                "Choose a version that has one.",
                code="model-no-tokenizer",
            )
        small = (
            "tokenizer_config.json",
            "generation_config.json",
            "chat_template.jinja",
            "chat_template.json",
        )
        here = [name for name in small if name in names]
        folder = Path(".")
        for name in here:
            folder = _small_file(repository, name, info.sha).parent
        words = read_words(folder, [*here, *(names & {"additional_chat_templates"})], title)
    except FinetuiError:
        raise
    except Exception as error:
        raise hub.card(error, repository, "model") from error
    sizes = {s.rfilename: s.size or 0 for s in info.siblings or ()}
    disk_bytes = sum(sizes[name] for name in {*wanted(everything), *code})
    tied = figures.tied_embeddings
    if tied is None and weights.embedding_rows is not None:
        tied = not weights.output_layer
    return replace(
        figures.facts(repository, "hub", title),
        parameters=(weights.parameters - (weights.output_layer if tied else 0)) or None,
        tied_embeddings=tied,
        dtype=figures.dtype or weights.dtype,
        modules=weights.modules,
        weights_bytes=weights_bytes,
        chat_template=words.has_template,
        license=_license(info),
        revision=info.sha,
        cached=False,
        base=is_base(repository, words.has_template),
        eos_tokens=words.eos_tokens,
        template_text=words.template,
        download_bytes=max(0, disk_bytes - _here(repository, info, wanted(everything))),
        disk_bytes=disk_bytes,
        updated=info.last_modified.date() if info.last_modified else None,
        four_bit_variant=None if figures.quantization else _four_bit_variant(title),
        gated=bool(info.gated),
        remote_code_files=code,
        embedding_rows=weights.embedding_rows or figures.vocabulary,
    )


def _here(repository: str, info: ModelInfo, names: tuple[str, ...]) -> int:
    """Bytes of the wanted files that are whole in the cache already."""
    snapshot = hub.cached_snapshot(repository, "model", info.sha)
    total = 0
    if snapshot is None:
        return 0
    for name in names:
        with contextlib.suppress(OSError):
            total += (snapshot / name).stat().st_size
    return total


def _four_bit_variant(title: str) -> str | None:
    """Unsloth's ready 4-bit version of the model called `title`, where the hub has one."""
    for ending in ("unsloth-bnb-4bit", "bnb-4bit"):
        name = f"unsloth/{title}-{ending}"
        if not hub.is_id(name):
            return None
        try:
            found = hub_http.read_json(f"/api/models/{name}", "")
        except Exception:  # a question on the side: no answer is no variant
            continue
        if isinstance(found, Mapping) and str(found.get("id", "")).lower() == name.lower():
            return one_line(str(found["id"]), 96)
    return None


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


def _no_config(info: ModelInfo, names: frozenset[str], title: str, repository: str) -> FinetuiError:
    if "adapter_config.json" in names:
        base = ""
        with contextlib.suppress(FinetuiError):
            settings = read_json(_small_file(repository, "adapter_config.json", info.sha), title)
            base = settings.get("base_model_name_or_path") or ""
        base = base or getattr(info.card_data, "base_model", None) or ""
        return adapter_found(title, one_line(base, 120) if isinstance(base, str) else "", repository, True)
    if any(name.lower().endswith(".gguf") for name in names):
        return no_weights(names, title)
    return FinetuiError(
        f"{title} is not a model in Transformers' form.",
        "Its repository has no config.json.",
        "Choose another version of it.",
        code="model-not-a-model",
    )


def _weights(info: ModelInfo, names: frozenset[str], title: str) -> tuple[int | None, Weights]:
    """Size in bytes, and what the headers of the weight files say; they are read as ranges of those files.

    Of a model of very many parts, and where the server knows no ranges, the hub's own count is taken.
    """
    files = _weight_files(info, names, title)
    sizes = {s.rfilename: s.size for s in info.siblings or () if s.rfilename in files}
    known = [size for size in sizes.values() if size is not None]
    weights_bytes = sum(known) if len(known) == len(files) else None
    if len(files) <= MAX_SHARDS:
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(_remote_header, info, name, sizes.get(name), title) for name in files]
        headers = [job.result() for job in jobs]
        read = [(header, size) for header, size in headers if header is not None]
        if len(read) == len(files):
            return weights_bytes, add_headers(read, title)
    counted: Mapping[str, Any] = getattr(info.safetensors, "parameters", None) or {}
    dtype = max(counted, key=lambda name: counted[name]) if counted else ""
    total: int | None = sum(n * (2 if name == "U8" else 1) for name, n in counted.items()) or None
    if total is None and weights_bytes is not None:
        total = weights_bytes // _BYTES.get(dtype, 2)
    return weights_bytes, Weights(total or 0, weights_bytes or 0, _DTYPES.get(dtype, dtype.lower()), 0)


def _weight_files(info: ModelInfo, names: frozenset[str], title: str) -> tuple[str, ...]:
    """The files that Transformers would load. Raises FinetuiError for none, and for an index that names absent ones."""
    if "model.safetensors" in names:
        return ("model.safetensors",)
    index = "model.safetensors.index.json"
    parts = tuple(sorted(n for n in names if n.startswith("model-") and n.endswith(".safetensors")))
    if not parts:
        raise no_weights(names, title)
    if index not in names:
        raise FinetuiError(
            f"{title} is incomplete.",
            f"Its repository holds {one_line(parts[0], 60)} and no {index}.",
            "Choose another version of it.",
            code="model-broken",
        )
    listed = read_json(_small_file(info.id, index, info.sha), title).get("weight_map")
    shards = sorted({str(name) for name in listed.values()}) if isinstance(listed, Mapping) else []
    missing = [name for name in shards if name not in names]
    if missing or not shards:
        raise FinetuiError(
            f"{title} is incomplete: {len(missing)} of {len(shards)} weight files are missing."
            if shards
            else f"{title} is broken.",
            f"Not in its repository: {one_line(missing[0], 80)}."
            if missing
            else f"{index} lists no weights.",
            "Choose another version of it, or ask its owner.",
            code="model-broken",
        )
    return tuple(shards)


def _remote_header(
    info: ModelInfo, name: str, size: int | None, title: str
) -> tuple[dict[str, Any] | None, int]:
    """The header of one weight file on the hub; None where it cannot be had in a small piece."""

    def broken(why: str) -> FinetuiError:
        return FinetuiError(
            f"{title} is broken.",
            f"{one_line(name, 80)} {why}",
            "Choose another version of it, or ask its owner.",
            code="model-broken",
        )

    if size is None or info.sha is None:
        return None, 0
    try:
        start = hub_http.read_range(info.id, info.sha, name, 0, _HEADER_GUESS)
        if len(start) < 8:
            raise broken("is empty or cut off.")
        (length,) = struct.unpack("<Q", start[:8])
        if length > size - 8 or length > MAX_HEADER_BYTES:
            raise broken("is not a safetensors file, or it is cut off.")
        if length > hub_http.MAX_JSON_BYTES:
            return None, size
        raw = start[8 : 8 + length]
        if len(raw) < length:
            raw += hub_http.read_range(info.id, info.sha, name, 8 + len(raw), length - len(raw))
    except hub_http.Bounded:
        return None, size
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise broken("has a damaged header.") from None
    return checked_header(header, 8 + length, size, broken), size


def _license(info: ModelInfo) -> str:
    found = getattr(info.card_data, "license", None)
    if isinstance(found, str):
        return one_line(found, 40)
    tags = [t for t in info.tags or () if t.startswith("license:")]
    return one_line(tags[0].removeprefix("license:"), 40) if tags else ""
