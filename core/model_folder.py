"""A model in a local folder: its config, its weights' headers, its tokenizer and chat template. Reads no weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .errors import FinetuiError
from .model_facts import AdapterFound, ModelFacts, is_base, read_config, remote_code_found
from .model_files import read_json, unreadable, wanted
from .model_tokenizer import Tokens, check_tokenizer, read_tokens, read_words
from .model_weights import PICKLES, gguf_refused, pickle_refused, read_weights, weight_files
from .text import one_line


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
    return replace(
        figures.facts(source, "folder", shown),
        parameters=weights.parameters - (weights.output_layer if tied else 0),
        tied_embeddings=tied,
        dtype=weights.dtype if not figures.quantization else figures.dtype or weights.dtype,
        weights_bytes=weights.bytes,
        modules=weights.modules,
        chat_template=words.has_template,
        cached=True,
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
        return gguf_refused(shown)
    if file.suffix.lower() in PICKLES:
        return pickle_refused(shown, file.name)
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
        return gguf_refused(shown)
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


def adapter_found(shown: str, base: str, adapter: str, on_hub: bool = False) -> AdapterFound:
    """The card for an adapter where a model was expected."""
    go_on = (
        f"to go on from this adapter, fetch it (`hf download {one_line(adapter, 120)}`) and name its folder as model.adapter."
        if on_hub
        else "this can be the adapter to go on from."
    )
    return AdapterFound(
        f"{shown} is an adapter, not a whole model.",
        f"It holds only what was learned on top of {base or 'another model'}.",
        f"Choose {f'its base: {base}' if base else 'the model that it was trained on'}; {go_on}",
        base=base,
        adapter=adapter,
    )


def _check_end(file: Path, shown: str) -> None:
    """Refuses a JSON object that is cut off, without reading all of it: a tokenizer may have tens of megabytes."""
    try:
        with file.open("rb") as stream:
            start = stream.read(64)
            stream.seek(max(0, file.stat().st_size - 64))
            end = stream.read()
    except OSError as error:
        raise unreadable(file, shown, error) from error
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
