"""A model in a local folder: its config, its weights' headers, its tokenizer and chat template. Reads no weights."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from .errors import FinetuiError
from .model_facts import AdapterFound, ModelFacts, is_base, read_config, remote_code_found
from .model_files import read_json, wanted
from .model_tokenizer import Tokens, check_tokenizer, read_tokens, read_words
from .text import bytes_words, one_line

MAX_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit for a header."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_OTHER_WEIGHTS = (".h5", ".msgpack", ".onnx", ".tflite", ".npz")
EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)
"""The ends of the names that families give to the embedding of the text's tokens."""

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8",
    "F8_E5M2": "float8",
    "I8": "int8",
    "U8": "uint8",
}


@dataclass(frozen=True)
class Weights:
    """What the headers of the safetensors say. Sizes in bytes."""

    parameters: int
    bytes: int
    dtype: str
    output_layer: int
    """Weights of a stored `lm_head`, 0 without one: the embeddings are then tied."""
    embedding_rows: int | None = None


def inspect_folder(
    folder: Path, source: str, title: str, *, remote_code: str | None = None, commit: str | None = None
) -> ModelFacts:
    """The facts of the model in `folder`. `commit` is the hub's for a snapshot of its cache; `remote_code` the commit
    (or the digest of a folder's code) whose code the person agreed to run.

    Raises FinetuiError: model-missing, model-not-a-model, model-gguf, model-adapter, model-no-weights, model-pickle,
    model-broken, model-no-tokenizer, model-tokenizer, model-remote-code, and those of `read_config`.
    """
    names = _names(folder)
    shown = one_line(title, 100)
    if "config.json" not in names:
        raise _no_config(folder, names, shown)
    config = read_json(folder / "config.json", shown)
    figures = read_config(config, shown)
    code = own_code(figures.code, names)
    if code:
        agreed_to = commit or code_digest(folder, code)
        if agreed_to != remote_code or any("--" in name for name in figures.code):
            raise remote_code_found(shown, source, agreed_to, code)
    files = weight_files(folder, names, shown)
    weights = read_weights([folder / name for name in files], shown)
    if not has_tokenizer(names):
        raise FinetuiError(
            f"{shown} has no tokenizer.",
            "Neither tokenizer.json nor tokenizer.model stands beside its weights.",
            "Copy the tokenizer files of the same model into the folder.",
            code="model-no-tokenizer",
        )
    tokens: Tokens | None = None
    if "tokenizer.json" in names:
        _check_end(folder / "tokenizer.json", shown)
        tokens = read_tokens(folder / "tokenizer.json", shown)
    rows = weights.embedding_rows or figures.vocabulary
    check_tokenizer(tokens, rows, shown)
    words = read_words(folder, names, shown)
    disk_bytes = sum(size for name in wanted(names) if (size := _size(folder / name)))
    tied = figures.tied_embeddings if figures.tied_embeddings is not None else not weights.output_layer
    return ModelFacts(
        source=source,
        kind="folder",
        title=shown,
        architecture=figures.architecture,
        parameters=weights.parameters - (weights.output_layer if tied else 0),
        hidden_size=figures.hidden_size,
        intermediate_size=figures.intermediate_size,
        layers=figures.layers,
        heads=figures.heads,
        kv_heads=figures.kv_heads,
        head_size=figures.head_size,
        vocabulary=figures.vocabulary,
        context_length=figures.context_length,
        tied_embeddings=tied,
        dtype=weights.dtype if not figures.quantization else figures.dtype or weights.dtype,
        weights_bytes=weights.bytes,
        chat_template=words.has_template,
        cached=True,
        model_type=figures.model_type,
        quantization=figures.quantization,
        sees_images=figures.sees_images,
        base=is_base(source if commit else title, words.has_template),
        eos_tokens=words.eos_tokens,
        template_text=words.template,
        download_bytes=0,
        disk_bytes=disk_bytes,
        remote_code_files=code,
        embedding_rows=rows,
        tokenizer_size=tokens.size if tokens else None,
    )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def own_code(named: tuple[str, ...], names: Iterable[str]) -> tuple[str, ...]:
    """The Python files that would run: those that the config names, and all beside them, which they may import."""
    if not named:
        return ()
    return tuple(sorted({*named, *(name for name in names if name.endswith(".py") and "/" not in name)}))


def code_digest(folder: Path, files: tuple[str, ...]) -> str:
    """What stands for the code of a folder, which has no commit: 40 hexadecimal digits over the files' names and bytes."""
    digest = hashlib.sha256()
    for name in files:
        digest.update(name.encode("utf-8", "replace") + b"\0")
        if "/" not in name and "--" not in name:
            try:
                digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
            except OSError:
                digest.update(b"missing")
    return digest.hexdigest()[:40]


def _names(folder: Path) -> frozenset[str]:
    shown = one_line(str(folder), 200)
    try:
        return frozenset(p.name for p in folder.iterdir())
    except FileNotFoundError:
        raise FinetuiError(
            f"There is no folder {shown}.",
            "Nothing stands at this path." if folder.is_absolute() else f"Looked in {Path.cwd()}.",
            "Check the spelling, or give the whole path.",
            code="model-missing",
        ) from None
    except NotADirectoryError:
        raise _a_file(folder) from None
    except OSError as error:
        raise FinetuiError(
            f"{shown} cannot be read.",
            f"The system says: {error.strerror}.",
            "Check its permissions.",
            code="model-missing",
        ) from error


def _a_file(file: Path) -> FinetuiError:
    shown = one_line(file.name, 100)
    if file.suffix.lower() == ".gguf":
        return _gguf(shown)
    if file.suffix.lower() in _PICKLES:
        return _pickle(shown, file.name)
    beside = file.parent / "config.json"
    return FinetuiError(
        f"{shown} is a file, not a folder with a model.",
        "A model is a folder that holds config.json, safetensors and a tokenizer.",
        f"Name its folder: {one_line(str(file.parent), 150)}"
        if beside.is_file()
        else "Name the model's folder.",
        code="model-not-a-model",
    )


def _no_config(folder: Path, names: frozenset[str], shown: str) -> FinetuiError:
    if "adapter_config.json" in names:
        return _adapter(folder, shown)
    if any(name.lower().endswith(".gguf") for name in names):
        return _gguf(shown)
    if "model_index.json" in names:
        return FinetuiError(
            f"{shown} makes images.",
            "Its model_index.json says that it is a diffusion pipeline.",
            "Choose a chat or text model.",
            code="model-not-text",
        )
    inside = sorted(name for name in names if (folder / name / "config.json").is_file())
    snapshots = folder / "snapshots"
    if not inside and snapshots.is_dir():
        inside = sorted(f"snapshots/{p.name}" for p in snapshots.iterdir() if (p / "config.json").is_file())
    fix = "Name a folder that holds config.json, safetensors and a tokenizer."
    if inside:
        fix = f"Did you mean {one_line(str(folder / inside[0]), 200)}?"
    return FinetuiError(
        f"{shown} is not a model.", "There is no config.json in the folder.", fix, code="model-not-a-model"
    )


def _adapter(folder: Path, shown: str) -> FinetuiError:
    base = ""
    try:
        found = read_json(folder / "adapter_config.json", shown).get("base_model_name_or_path")
        base = one_line(found, 120) if isinstance(found, str) else ""
    except FinetuiError:
        pass
    return adapter_found(shown, base, str(folder.absolute()))


def adapter_found(shown: str, base: str, adapter: str) -> AdapterFound:
    """The card for an adapter where a model was expected."""
    return AdapterFound(
        f"{shown} is an adapter, not a whole model.",
        f"It holds only what was learned on top of {base or 'another model'}.",
        f"Choose its base: {base}; this can be the adapter to go on from."
        if base
        else "Choose the model that it was trained on; this can be the adapter to go on from.",
        base=base,
        adapter=adapter,
    )


def _gguf(shown: str) -> FinetuiError:
    return FinetuiError(
        f"{shown} is a GGUF: made for running, not for training.",
        "Its weights are packed for llama.cpp and Ollama, mostly rounded to a few bits.",
        "Choose the original model (config.json and safetensors); finetui can write a GGUF when training is done.",
        code="model-gguf",
    )


def _pickle(shown: str, name: str) -> FinetuiError:
    return FinetuiError(
        f"{shown} has its weights only as pickle files.",
        f"{one_line(name, 80)} can run any code when it is opened, so finetui reads safetensors only.",
        "Take a version with safetensors, or convert it where you trust its origin.",
        code="model-pickle",
    )


def no_weights(names: Iterable[str], shown: str) -> FinetuiError:
    """The card for a model without safetensors, by what stands there in their place."""
    ordered = sorted(names)
    gguf = [n for n in ordered if n.lower().endswith(".gguf")]
    if gguf:
        return _gguf(shown)
    pickles = [
        n
        for n in ordered
        if n.lower().endswith(_PICKLES) and "training_args" not in n and "optimizer" not in n
    ]
    if pickles:
        return _pickle(shown, pickles[0])
    if "adapter_model.safetensors" in ordered:
        return FinetuiError(
            f"{shown} holds an adapter's weights only.",
            "adapter_model.safetensors is what was learned on top of another model.",
            "Choose the base model, or a merged export.",
            code="model-no-weights",
        )
    other = [n for n in ordered if n.lower().endswith((".safetensors", *_OTHER_WEIGHTS))]
    why = f"Only {one_line(other[0], 80)} was found." if other else "It has a config.json and nothing more."
    return FinetuiError(
        f"{shown} has no weights.",
        why,
        "Download it again; model.safetensors (or its index and parts) must be there.",
        code="model-no-weights",
    )


def weight_files(folder: Path, names: frozenset[str], shown: str) -> tuple[str, ...]:
    """The names of the files that Transformers would load. Raises model-no-weights, model-pickle, model-broken, …"""
    if "model.safetensors" in names:
        return ("model.safetensors",)
    index_name = "model.safetensors.index.json"
    if index_name not in names:
        parts = sorted(n for n in names if n.startswith("model-") and n.endswith(".safetensors"))
        if parts:
            raise FinetuiError(
                f"{shown} is incomplete.",
                f"It is cut in parts ({one_line(parts[0], 60)}, …) and {index_name} is missing.",
                "Download it again.",
                code="model-broken",
            )
        raise no_weights(names, shown)
    weight_map = read_json(folder / index_name, shown).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise FinetuiError(
            f"{shown} is broken.",
            f"{index_name} lists no weights.",
            "Download it again.",
            code="model-broken",
        )
    shards = sorted({str(name) for name in weight_map.values()})
    outside = [
        s for s in shards if "/" in s or "\\" in s or s in ("", ".", "..") or not s.endswith(".safetensors")
    ]
    if outside:
        raise FinetuiError(
            f"{shown} names files outside its folder.",
            f"Its index lists {one_line(outside[0], 80)}.",
            "Do not use this model; take it from its first source.",
            code="model-broken",
        )
    missing = [s for s in shards if s not in names]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FinetuiError(
            f"{shown} is incomplete: {len(missing)} of {len(shards)} weight files are missing.",
            f"Not there: {one_line(missing[0], 80)}{more}.",
            "Finish the download, or copy the missing files into the folder.",
            code="model-broken",
        )
    return tuple(shards)


def read_weights(files: list[Path], shown: str) -> Weights:
    """What the headers of `files` say, added up. Raises FinetuiError (model-broken) for a file that is cut off."""
    return add_headers((safetensors_header(file, shown) for file in files), shown)


def add_headers(headers: Iterable[tuple[dict[str, Any], int]], shown: str) -> Weights:
    """The sums over `headers` of safetensors files, each with its file's size. Raises FinetuiError (model-broken)."""
    parameters = size = 0
    by_dtype: dict[str, int] = {}
    output_layer = 0
    rows: int | None = None
    for header, file_bytes in headers:
        size += file_bytes
        packed = {n.rsplit(".quant_state.", 1)[0] for n in header if ".quant_state." in n}
        for name, tensor in header.items():
            if name == "__metadata__" or any(
                f".{part}" in name for part in ("absmax", "quant_map", "quant_state", "nested_")
            ):
                continue
            if not isinstance(tensor, Mapping) or name.endswith("_scales"):
                continue
            shape = tensor.get("shape")
            count = prod(shape) if isinstance(shape, list) and all(isinstance(n, int) for n in shape) else 0
            if name in packed or name.endswith("_blocks"):
                count *= 2  # two 4-bit weights in a byte
            dtype = str(tensor.get("dtype", ""))
            by_dtype[dtype] = by_dtype.get(dtype, 0) + count
            parameters += count
            if name.endswith("lm_head.weight"):
                output_layer = count
            if name.endswith(EMBEDDINGS) and isinstance(shape, list) and len(shape) == 2:
                rows = shape[0] if isinstance(shape[0], int) and dtype != "U8" else None
    most = max(by_dtype, key=lambda d: by_dtype[d]) if by_dtype else ""
    if not parameters:
        raise FinetuiError(
            f"{shown} is broken.",
            "Its weight files hold no weights.",
            "Download it again.",
            code="model-broken",
        )
    return Weights(parameters, size, _DTYPES.get(most, one_line(most, 20)), output_layer, rows)


def safetensors_header(file: Path, shown: str) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file (8 bytes of length, then JSON) and the file's size. Raises FinetuiError
    (model-broken)."""

    def broken(why: str, fix: str = "Download that file again.") -> FinetuiError:
        return FinetuiError(
            f"{shown} is broken.", f"{one_line(file.name, 80)} {why}", fix, code="model-broken"
        )

    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            if start.startswith(b"version "):
                raise broken("is a Git LFS pointer, not the weights.", "Run `git lfs pull` in the folder.")
            if len(start) < 8:
                raise broken("is empty or cut off.")
            (length,) = struct.unpack("<Q", start)
            if length > MAX_HEADER_BYTES or length > size - 8:
                raise broken("is not a safetensors file, or it is cut off.")
            header = json.loads(stream.read(length))
    except OSError as error:
        raise broken(f"cannot be read: {error.strerror}.", "Check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise broken("has a damaged header.") from error
    return checked_header(header, 8 + length, size, broken), size


def checked_header(
    header: object, start: int, size: int, broken: Callable[[str], FinetuiError]
) -> dict[str, Any]:
    """`header` where it is one, of a file of `size` bytes whose data begin at `start`. Raises what `broken` makes."""
    if not isinstance(header, dict):
        raise broken("has a damaged header.")
    ends = [t["data_offsets"][1] for t in header.values() if _has_offsets(t)]
    needed = start + max(ends, default=0)
    if size < needed:
        raise broken(f"is cut off: it has {bytes_words(size)} of {bytes_words(needed)}.")
    return header


def _has_offsets(tensor: object) -> bool:
    if not isinstance(tensor, Mapping):
        return False
    offsets = tensor.get("data_offsets")
    return isinstance(offsets, list) and len(offsets) == 2 and isinstance(offsets[1], int)


def _check_end(file: Path, shown: str) -> None:
    """Refuses a JSON object that is cut off, without reading all of it: a tokenizer may have tens of megabytes."""
    try:
        with file.open("rb") as stream:
            start = stream.read(64)
            stream.seek(max(0, file.stat().st_size - 64))
            end = stream.read()
    except OSError as error:
        raise FinetuiError(
            f"{shown} is broken.",
            f"{one_line(file.name, 80)} cannot be read: {error.strerror}.",
            "Check its permissions.",
            code="model-broken",
        ) from error
    if not start.strip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") or not end.rstrip().endswith(b"}"):
        why = (
            "is a Git LFS pointer, not the tokenizer."
            if start.startswith(b"version ")
            else "is empty or cut off."
        )
        raise FinetuiError(
            f"{shown} is broken.",
            f"{one_line(file.name, 80)} {why}",
            "Run `git lfs pull` in the folder." if "LFS" in why else "Download that file again.",
            code="model-broken",
        )


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether the files that make a tokenizer are among `names`."""
    found = set(names)
    return (
        bool(found & {"tokenizer.json", "tokenizer.model", "tekken.json", "spiece.model"})
        or {
            "vocab.json",
            "merges.txt",
        }
        <= found
    )
