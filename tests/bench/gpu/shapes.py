"""Models of real shapes with weights of zeros: folders that Transformers loads, made in a second and without a download.

What a weight is does not change the memory that training takes; only the embeddings are random, so that losses and
gradients are finite. The zeros are holes in the file, so a model of 16 GB takes almost no disk.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.worker import tiny

Config = dict[str, Any]

_LLAMA3_ROPE = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def _config(
    kind: str,
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head: int,
    vocabulary: int,
    tied: bool,
    theta: float = 1e4,
    **more: Any,
) -> Config:
    names = {
        "llama": "LlamaForCausalLM",
        "mistral": "MistralForCausalLM",
        "qwen2": "Qwen2ForCausalLM",
        "qwen3": "Qwen3ForCausalLM",
        "qwen3_moe": "Qwen3MoeForCausalLM",
        "gemma2": "Gemma2ForCausalLM",
        "gemma3_text": "Gemma3ForCausalLM",
        "phi3": "Phi3ForCausalLM",
        "smollm3": "SmolLM3ForCausalLM",
    }
    return {
        "architectures": [names[kind]],
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "rope_theta": theta,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 4,
        "pad_token_id": tiny.vocabulary()["<pad>"],
    } | more


_GEMMA: Config = {
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
}

SHAPES: dict[str, Config] = {
    "SmolLM2-135M": _config("llama", 576, 1536, 30, 9, 3, 64, 49152, True, 1e5),
    "SmolLM2-1.7B": _config("llama", 2048, 8192, 24, 32, 32, 64, 49152, True, 1e5),
    "Llama-3.2-1B": _config("llama", 2048, 8192, 16, 32, 8, 64, 128256, True, 5e5, rope_scaling=_LLAMA3_ROPE),
    "Llama-3.2-3B": _config(
        "llama", 3072, 8192, 28, 24, 8, 128, 128256, True, 5e5, rope_scaling=_LLAMA3_ROPE
    ),
    "Llama-3.1-8B": _config(
        "llama", 4096, 14336, 32, 32, 8, 128, 128256, False, 5e5, rope_scaling=_LLAMA3_ROPE | {"factor": 8.0}
    ),
    "Mistral-7B": _config("mistral", 4096, 14336, 32, 32, 8, 128, 32768, False, 1e6, sliding_window=None),
    "Qwen2.5-0.5B": _config("qwen2", 896, 4864, 24, 14, 2, 64, 151936, True, 1e6),
    "Qwen2.5-1.5B": _config("qwen2", 1536, 8960, 28, 12, 2, 128, 151936, True, 1e6),
    "Qwen2.5-7B": _config("qwen2", 3584, 18944, 28, 28, 4, 128, 152064, False, 1e6),
    "Qwen3-0.6B": _config("qwen3", 1024, 3072, 28, 16, 8, 128, 151936, True, 1e6),
    "Qwen3-1.7B": _config("qwen3", 2048, 6144, 28, 16, 8, 128, 151936, True, 1e6),
    "Qwen3-4B": _config("qwen3", 2560, 9728, 36, 32, 8, 128, 151936, True, 1e6),
    "Qwen3-8B": _config("qwen3", 4096, 12288, 36, 32, 8, 128, 151936, False, 1e6),
    "Gemma-2-2B": _config(
        "gemma2",
        2304,
        9216,
        26,
        8,
        4,
        256,
        256000,
        True,
        1e4,
        **_GEMMA,
        sliding_window=4096,
        final_logit_softcapping=30.0,
        attn_logit_softcapping=50.0,
    ),
    "Gemma-3-1B": _config(
        "gemma3_text",
        1152,
        6912,
        26,
        4,
        1,
        256,
        262144,
        True,
        1e6,
        **_GEMMA,
        sliding_window=512,
        rope_local_base_freq=1e4,
        sliding_window_pattern=6,
    ),
    "Phi-4-mini": _config("phi3", 3072, 8192, 32, 24, 8, 128, 200064, True, 1e4, partial_rotary_factor=0.75),
    "SmolLM3-3B": _config("smollm3", 2048, 11008, 36, 16, 4, 128, 128256, True, 5e6),
    "Qwen3-MoE-8L": _config(
        "qwen3_moe",
        2048,
        6144,
        8,
        32,
        4,
        128,
        151936,
        False,
        1e6,
        num_experts=32,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    ),
}
"""config.json by name, with the figures of the published models (the mixture of experts is a cut of Qwen3-30B-A3B)."""


def tensors(config: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each weight, as published checkpoints name them."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    kind = config["model_type"]
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocabulary, hidden)
    yield "model.norm.weight", (hidden,)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        if kind == "phi3":
            yield f"{at}.self_attn.qkv_proj.weight", (queries + 2 * keys, hidden)
            yield f"{at}.mlp.gate_up_proj.weight", (2 * inner, hidden)
            yield f"{at}.mlp.down_proj.weight", (hidden, inner)
        else:
            for name, rows in (("q", queries), ("k", keys), ("v", keys)):
                yield f"{at}.self_attn.{name}_proj.weight", (rows, hidden)
                if kind == "qwen2":
                    yield f"{at}.self_attn.{name}_proj.bias", (rows,)
            for inside, size in _mlps(config, at):
                yield f"{inside}.gate_proj.weight", (size, hidden)
                yield f"{inside}.up_proj.weight", (size, hidden)
                yield f"{inside}.down_proj.weight", (hidden, size)
            if kind == "qwen3_moe":
                yield f"{at}.mlp.gate.weight", (config["num_experts"], hidden)
        yield f"{at}.self_attn.o_proj.weight", (hidden, queries)
        if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
            yield f"{at}.self_attn.q_norm.weight", (config["head_dim"],)
            yield f"{at}.self_attn.k_norm.weight", (config["head_dim"],)
        yield f"{at}.input_layernorm.weight", (hidden,)
        yield f"{at}.post_attention_layernorm.weight", (hidden,)
        if kind in ("gemma2", "gemma3_text"):
            yield f"{at}.pre_feedforward_layernorm.weight", (hidden,)
            yield f"{at}.post_feedforward_layernorm.weight", (hidden,)


def _mlps(config: Config, at: str) -> Iterator[tuple[str, int]]:
    if config["model_type"] != "qwen3_moe":
        yield f"{at}.mlp", config["intermediate_size"]
        return
    for expert in range(config["num_experts"]):
        yield f"{at}.mlp.experts.{expert}", config["moe_intermediate_size"]


def config_only(name: str, folder: Path) -> Path:
    """A folder with nothing but the config.json of `name`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SHAPES[name], indent=2), encoding="utf-8")
    return folder


def make(name: str, folder: Path, *, zeros: bool = True) -> Path:
    """A whole model of the shape `name` at `folder`, with the tiny model's tokenizer of single bytes.

    `zeros`: all but the embeddings, which takes no room on the disk. DoRA divides by the length of each row.
    """
    config = SHAPES[name]
    tiny.make(folder)  # for its tokenizer and generation settings
    config_only(name, folder)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for key, shape in tensors(config):
        size = 2 * int(np.prod(shape))
        header[key] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
        start, end = header["model.embed_tokens.weight"]["data_offsets"] if zeros else (0, at)
        file.seek(8 + len(text) + start)
        floats = np.random.default_rng(0).normal(0.0, 0.05, 8 << 20).astype(np.float32)
        block = (floats.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        for offset in range(0, end - start, len(block)):
            file.write(block[: min(len(block), end - start - offset)])
    return folder
