"""A small model as a folder, in the hub's cache and on the hub, and what the model step answers about it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetui.core import model
from finetui.core.errors import FinetuiError

from ..hub_server import COMMIT, Hub

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
WEIGHTS = {"model.embed_tokens.weight": [300, 64], "model.layers.0.self_attn.q_proj.weight": [64, 64]}
PARAMETERS = 300 * 64 + 64 * 64


def safetensors(shapes: dict[str, list[int]], dtype: str = "BF16", width: int = 2) -> bytes:
    """A safetensors file with zeros: 8 bytes of length, a JSON header, the data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = width
        for n in shape:
            size *= n
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * end


def folder(path: Path, **changes: Any) -> Path:
    """A whole small model; `changes` are files by name (with `__` for `.`), None leaves one out."""
    files: dict[str, Any] = {
        "config.json": CONFIG,
        "model.safetensors": safetensors(WEIGHTS),
        "tokenizer.json": {},
        "tokenizer_config.json": {"chat_template": "{{ messages }}"},
    }
    files.update({name.replace("__", "."): content for name, content in changes.items()})
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if content is not None:
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            (path / name).write_bytes(raw)
    return path


def refused(source: str | Path) -> FinetuiError:
    with pytest.raises(FinetuiError) as caught:
        model.inspect(str(source))
    assert caught.value.what and caught.value.fix, "a card has a what and a fix"
    return caught.value


def snapshot(home: Path, repository: str, **changes: Any) -> Path:
    """A model in the hub's cache, as huggingface_hub lays it out."""
    root = home / "hub" / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    return folder(root / "snapshots" / COMMIT, **changes)


ASK = """
import dataclasses, json, sys
from finetui.core import model
from finetui.core.errors import FinetuiError
answers = {}
for source in sys.argv[1:]:
    name, _, revision = source.partition("@")
    try:
        answers[source] = dataclasses.asdict(model.inspect(name, revision or None))
    except FinetuiError as error:
        answers[source] = {"code": error.code, "text": str(error)}
print(json.dumps(answers, default=str))
"""


def ask(server: Hub | str, home: Path, *sources: str, token: str | None = None) -> dict[str, dict[str, Any]]:
    """`model.inspect` in a fresh process: huggingface_hub reads its variables when it is imported."""
    url = server if isinstance(server, str) else server.url
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
        environment.pop(name, None)
    if token:
        environment["HF_TOKEN"] = token
    done = subprocess.run(
        [sys.executable, "-c", ASK, *sources],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing is drawn into the wizard's terminal"
    return json.loads(done.stdout)


def remote(**changes: bytes | None) -> dict[str, bytes]:
    files: dict[str, bytes | None] = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": safetensors(WEIGHTS),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b'{"chat_template": "x"}',
    }
    files.update({name.replace("__", "."): content for name, content in changes.items()})
    return {name: content for name, content in files.items() if content is not None}
