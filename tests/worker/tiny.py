"""A random Llama small enough to train, export and chat within seconds, made without a download and without torch.

Hidden size 64, two layers, and a tokenizer whose tokens are single bytes (Llama's byte fallback, so that llama.cpp's
converter takes it too), with ChatML as its chat template.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
EOS = "<|im_end|>"
HIDDEN, LAYERS, HEADS, KV_HEADS, INTERMEDIATE, CONTEXT = 64, 2, 4, 2, 128, 2048


def vocabulary() -> dict[str, int]:
    """Five special tokens, 256 bytes, and the space that Llama's tokenizers write as U+2581."""
    names = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "<pad>", "<extra>"]
    return {name: index for index, name in enumerate(names)}


def _tokenizer(chat_template: str | None, folder: Path) -> None:
    vocab = vocabulary()
    added = [
        {
            "id": vocab[name],
            "content": name,
            "special": True,
            "normalized": False,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
        }
        for name in (*SPECIAL, "<pad>")
    ]
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "bos_token": "<s>",
        "eos_token": EOS,
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "add_prefix_space": False,
        "additional_special_tokens": ["<|im_start|>"],  # llama.cpp's converter knows it by this
        "clean_up_tokenization_spaces": False,
    }
    if chat_template is not None:
        settings["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def make(
    folder: Path,
    chat_template: str | None = CHAT_TEMPLATE,
    seed: int = 0,
    hidden: int = HIDDEN,
    intermediate: int = INTERMEDIATE,
    experts: int = 0,
) -> Path:
    """A whole model folder at `folder` (made when missing). `chat_template=None` makes a base model that has none.

    The K- and I-quants of llama.cpp need `hidden` and `intermediate` to be multiples of 256. With `experts` it is a Mixtral,
    a mixture of so many experts, two of which are asked for each token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocab = vocabulary()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": hidden // HEADS,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "vocab_size": len(vocab),
        "bos_token_id": vocab["<s>"],
        "eos_token_id": vocab[EOS],
        "pad_token_id": vocab["<pad>"],
        "torch_dtype": "float32",
        "initializer_range": 0.02,
    }
    if experts:
        config |= {
            "architectures": ["MixtralForCausalLM"],
            "model_type": "mixtral",
            "num_local_experts": experts,
            "num_experts_per_tok": 2,
        }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": vocab[EOS], "pad_token_id": vocab["<pad>"]}), encoding="utf-8"
    )
    _tokenizer(chat_template, folder)

    random = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0.0, 0.05, shape).astype(np.float32)

    kv = KV_HEADS * hidden // HEADS
    tensors = {
        "model.embed_tokens.weight": weights(len(vocab), hidden),
        "lm_head.weight": weights(len(vocab), hidden),
    }
    tensors["model.norm.weight"] = np.ones(hidden, np.float32)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.self_attn.q_proj.weight": weights(hidden, hidden),
            f"{at}.self_attn.k_proj.weight": weights(kv, hidden),
            f"{at}.self_attn.v_proj.weight": weights(kv, hidden),
            f"{at}.self_attn.o_proj.weight": weights(hidden, hidden),
            f"{at}.input_layernorm.weight": np.ones(hidden, np.float32),
            f"{at}.post_attention_layernorm.weight": np.ones(hidden, np.float32),
        }
        for expert in range(max(1, experts)):
            ours = f"{at}.block_sparse_moe.experts.{expert}" if experts else f"{at}.mlp"
            gate, up, down = ("w1", "w3", "w2") if experts else ("gate_proj", "up_proj", "down_proj")
            tensors |= {
                f"{ours}.{gate}.weight": weights(intermediate, hidden),
                f"{ours}.{up}.weight": weights(intermediate, hidden),
                f"{ours}.{down}.weight": weights(hidden, intermediate),
            }
        if experts:
            tensors[f"{at}.block_sparse_moe.gate.weight"] = 10 * weights(experts, hidden)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def rows(count: int) -> list[dict[str, Any]]:
    """`count` conversations in the messages format, each different, with answers of one word."""
    words = ("red", "blue", "green", "gold", "grey")
    return [
        {
            "messages": [
                {"role": "user", "content": f"Item {index}: which colour?"},
                {"role": "assistant", "content": f"{words[index % len(words)]} {index}"},
            ]
        }
        for index in range(count)
    ]


def write_rows(path: Path, count: int) -> Path:
    """`rows(count)` as a JSONL file at `path`."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(count)), encoding="utf-8")
    return path
