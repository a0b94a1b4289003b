"""What is known of a model before it is loaded, read from its config.json."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from .errors import FinetuiError
from .text import one_line

UNPACKED = ("gemma2", "gpt_oss")
"""Model types that Unsloth does not pack [trainer: PADDING_FREE_BLOCKLIST]."""

_LARGEST_FIGURE = 100_000_000
"""Of a config.json: the longest contexts are a tenth of it, all else is far smaller."""

_QUANTIZED_ELSEWHERE = (
    "gptq",
    "awq",
    "aqlm",
    "eetq",
    "exl2",
    "hqq",
    "quip",
    "spqr",
    "vptq",
    "higgs",
    "auto-round",
)


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
    """Of the weights as stored, such as `bfloat16`."""
    weights_bytes: int | None = None
    """Size of the weight files on disk, or to be downloaded."""
    chat_template: bool | None = None
    license: str = ""
    revision: str | None = None
    cached: bool = True
    """Whether a run needs no download for it."""
    model_type: str = ""
    """Transformers' name for the family, such as `llama`."""
    quantization: str = ""
    """How the stored weights are quantized (`bitsandbytes 4-bit`); empty for whole ones."""
    sees_images: bool = False
    """A model that also takes images; only its text part is tuned."""
    base: bool | None = None
    """A base model, which was never shown conversations; False for an instruct model."""
    eos_tokens: tuple[str, ...] = ()
    """The tokens that end an answer, as text."""
    template_text: str = ""
    """The chat template's source (Jinja), cleaned for display."""
    download_bytes: int | None = None
    """What is still to be downloaded; 0 where nothing is."""
    disk_bytes: int | None = None
    """What the model takes on the disk, tokenizer and settings included."""
    updated: date | None = None
    """When the repository last changed."""
    four_bit_variant: str | None = None
    """A repository with the same model, already in 4-bit."""
    gated: bool = False
    """Its owner asks for terms to be accepted."""
    modules: tuple[str, ...] = ()
    """The names of the parts that hold weights, such as `q_proj`; empty where the weight files were not looked at."""
    remote_code_files: tuple[str, ...] = ()
    """Python files of the repository that would run; empty for all models that Transformers itself knows."""
    embedding_rows: int | None = None
    """Rows of the stored embedding: token ids below this number can be looked up."""
    tokenizer_size: int | None = None
    """The largest token id plus one."""

    @property
    def is_4bit(self) -> bool:
        """Whether the checkpoint itself is 4-bit, and so needs a GPU."""
        return "4-bit" in self.quantization


class AdapterFound(FinetuiError):
    """An adapter where a whole model was expected. `base` is what it belongs on (empty: not told), `adapter` the
    folder or the hub id that holds it."""

    def __init__(self, what: str, why: str, fix: str, *, base: str, adapter: str) -> None:
        super().__init__(what, why, fix, code="model-adapter")
        self.base = base
        self.adapter = adapter


class RemoteCodeFound(FinetuiError):
    """A model that runs code of its own repository, without consent. `revision` is what to write as model.remote_code
    once the person has agreed: the commit, or for a folder the digest of its code."""

    def __init__(
        self, what: str, why: str, fix: str, *, repo: str, revision: str, files: tuple[str, ...]
    ) -> None:
        super().__init__(what, why, fix, code="model-remote-code")
        self.repo = repo
        self.revision = revision
        self.files = files


@dataclass(frozen=True)
class Config:
    """The figures of a config.json; None is not given."""

    architecture: str
    model_type: str
    hidden_size: int | None
    intermediate_size: int | None
    layers: int | None
    heads: int | None
    kv_heads: int | None
    head_size: int | None
    vocabulary: int | None
    context_length: int | None
    tied_embeddings: bool | None
    dtype: str
    quantization: str
    sees_images: bool
    code: tuple[str, ...] = ()
    """Python files of the repository that would have to run, or files of another one (`owner/name--file.py`)."""

    def facts(self, source: str, kind: Literal["demo", "folder", "hub"], title: str) -> ModelFacts:
        """The model `source` as far as they tell of it; its weights and its tokenizer tell the rest."""
        return ModelFacts(
            source,
            kind,
            title,
            architecture=self.architecture,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_size=self.head_size,
            vocabulary=self.vocabulary,
            context_length=self.context_length,
            model_type=self.model_type,
            quantization=self.quantization,
            sees_images=self.sees_images,
        )


def figure(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of `names` that is a whole number above 0 in a config.json; None where there is none. Raises FinetuiError
    (model-broken) for a number that no model has."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            if value > _LARGEST_FIGURE:
                raise FinetuiError(
                    "The model's config.json cannot be right.",
                    f"Its {name} is more than {_LARGEST_FIGURE:,}.",
                    "Download the model again, or choose another.",
                    code="model-broken",
                )
            return value
    return None


def read_config(config: Mapping[str, Any], title: str) -> Config:
    """The figures of a config.json. Raises FinetuiError for what is no model that writes text (model-not-text), of a
    type that Transformers does not know (model-unknown), quantized in a form that cannot be tuned
    (model-quantized), or of a size that no model has (model-broken)."""
    text = config.get("text_config")
    inner: Mapping[str, Any] = {**config, **text} if isinstance(text, Mapping) else config
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    architecture = one_line(first, 80) if isinstance(first, str) else ""
    model_type = config.get("model_type")
    model_type = one_line(model_type, 80) if isinstance(model_type, str) else ""
    _refuse_other_kinds(config, architecture, model_type, isinstance(text, Mapping), title)

    number = functools.partial(figure, inner)
    hidden = number("hidden_size", "n_embd", "d_model")
    heads = number("num_attention_heads", "n_head", "n_heads")
    tied = inner.get("tie_word_embeddings")
    if tied is None:
        tied = config.get("tie_word_embeddings")
    dtype = inner.get("dtype") or inner.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    return Config(
        architecture=architecture,
        model_type=model_type,
        hidden_size=hidden,
        intermediate_size=number("intermediate_size", "ffn_dim", "n_inner"),
        layers=number("num_hidden_layers", "n_layer", "n_layers"),
        heads=heads,
        kv_heads=number("num_key_value_heads") or heads,
        head_size=number("head_dim") or (hidden // heads if hidden and heads else None),
        vocabulary=number("vocab_size"),
        context_length=number("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"),
        tied_embeddings=tied if isinstance(tied, bool) else None,
        dtype=one_line(dtype, 20).removeprefix("torch.") if isinstance(dtype, str) else "",
        quantization=_quantization(config, title),
        sees_images="vision_config" in config,
        code=_code(config, model_type),
    )


def _code(config: Mapping[str, Any], model_type: str) -> tuple[str, ...]:
    """The files that `auto_map` names, here or in a nested configuration; none where Transformers has its own code."""
    from .model_types import known_types

    if model_type in known_types():
        return ()
    files: set[str] = set()
    waiting: list[Any] = [config]
    while waiting and len(files) < 100:
        found = waiting.pop()
        if not isinstance(found, Mapping):
            continue
        auto_map = found.get("auto_map")
        if isinstance(auto_map, Mapping):
            for named in auto_map.values():
                for one in named if isinstance(named, list) else [named]:
                    if isinstance(one, str) and "." in one:
                        files.add(one_line(one.rpartition(".")[0], 200) + ".py")
        waiting += [value for key, value in found.items() if key.endswith("_config")]
    return tuple(sorted(files))


def _refuse_other_kinds(
    config: Mapping[str, Any], architecture: str, model_type: str, has_text: bool, title: str
) -> None:
    if not architecture and not model_type:
        raise FinetuiError(
            f"{title} is not a language model.",
            "Its config.json names neither an architecture nor a model_type.",
            "Name a model in Transformers' form.",
            code="model-not-a-model",
        )
    writes = architecture.endswith(("ForCausalLM", "LMHeadModel")) or (
        architecture.endswith("ForConditionalGeneration") and has_text
    )
    from .model_types import known_types

    has_code = bool(_code(config, model_type))
    if (architecture and writes and not config.get("is_encoder_decoder")) or (
        not architecture and (model_type in known_types() or has_code)
    ):
        if model_type in known_types() or has_code:
            return
        raise FinetuiError(
            f"{title} has an architecture that is not known here.",
            f"Its type, {model_type or '(none given)'}, is not among those of the installed Transformers.",
            "Install a newer Transformers and Unsloth if it is new, or choose a model such as Qwen3, Llama or Gemma.",
            code="model-unknown",
        )
    kind = architecture or model_type
    lower = kind.lower()
    if any(
        word in lower
        for word in ("whisper", "wav2vec", "hubert", "musicgen", "speech", "audio", "encodec", "bark")
    ):
        why = f"{kind} works on sound."
    elif any(
        word in lower
        for word in ("vit", "clip", "image", "detection", "segment", "diffusion", "resnet", "swin")
    ):
        why = f"{kind} works on images."
    elif config.get("is_encoder_decoder"):
        why = f"{kind} has an encoder and a decoder; Unsloth tunes models that only decode."
    else:
        why = f"{kind} is not made to go on with a text (its architecture is no …ForCausalLM)."
    raise FinetuiError(
        f"{title} cannot be tuned here.",
        why,
        "Choose a chat or text model, such as Qwen3, Llama, Gemma or SmolLM2.",
        code="model-not-text",
    )


def remote_code_found(title: str, repo: str, revision: str, files: tuple[str, ...]) -> FinetuiError:
    """The card for a model with code of its own. Code that lies in yet another repository is refused for good: nobody
    could say which version of it they agreed to."""
    elsewhere = [name for name in files if "--" in name]
    if elsewhere:
        return FinetuiError(
            f"{title} runs code from another repository.",
            f"Its config.json names {one_line(elsewhere[0], 100)}, whose version nothing pins.",
            "Choose a model whose code ships with Transformers, such as Qwen3, Llama, Gemma or Mistral.",
            code="model-remote-code",
        )
    shown = ", ".join(files[:4]) + (f" and {len(files) - 4} more" if len(files) > 4 else "")
    return RemoteCodeFound(
        f"{title} runs code from its own repository.",
        f"Transformers does not know this type; {shown} of {one_line(repo, 100)} at {revision[:12]} would run here with "
        "your rights. finetui runs no remote code unless you agree.",
        f"Read the files. If you trust them, set the model's remote code to {revision}; or choose a model such as Qwen3.",
        repo=repo,
        revision=revision,
        files=files,
    )


def is_base(name: str, chat_template: bool | None) -> bool | None:
    """Whether a model is a base model, by its name and by whether it has a chat template. None is not known."""
    words = name.rpartition("/")[2].lower().replace("_", "-").replace(".", "-").split("-")
    if {"base", "pt"} & set(words):
        return True
    return None if chat_template is None else not chat_template


def _quantization(config: Mapping[str, Any], title: str) -> str:
    found = config.get("quantization_config")
    if not isinstance(found, Mapping):
        return ""
    method = str(found.get("quant_method", "bitsandbytes" if "load_in_4bit" in found else ""))[:40].lower()
    if method == "bitsandbytes" or found.get("load_in_4bit"):
        return "bitsandbytes 8-bit" if found.get("load_in_8bit") else "bitsandbytes 4-bit"
    if any(name in method for name in _QUANTIZED_ELSEWHERE):
        raise FinetuiError(
            f"{title} is quantized with {one_line(method, 20).upper()}, for use only.",
            "Such weights cannot carry a LoRA that is merged and exported afterwards.",
            "Name the original model in 16 bit; finetui loads it in 4-bit itself if you ask for it.",
            code="model-quantized",
        )
    return one_line(method, 40)
