"""Exports broken on purpose: each function does to an export what goes wrong elsewhere."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from finetui.core.worker import converting, llama_cpp


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def zero(file: Path, part: str) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(tensors) if part in name)
        tensors[name] = torch.zeros_like(tensors[name])

    rewrite(file, change)


def cut(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 9 // 10])


def _other_template(folder: Path) -> None:
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8")
            (folder / name).write_text(
                text.replace("<|im_start|>assistant", "<|im_start|>bot"), encoding="utf-8"
            )


def _other_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    a, e = "<0x61>", "<0x65>"
    vocabulary[a], vocabulary[e] = vocabulary[e], vocabulary[a]
    file.write_text(json.dumps(tokenizer), encoding="utf-8")


def _no_end(folder: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        file = folder / name
        if file.is_file():
            settings = json.loads(file.read_text(encoding="utf-8"))
            for key, value in (("eos_token_id", 0), ("eos_token", "<unk>")):
                if key in settings:
                    settings[key] = value
            file.write_text(json.dumps(settings), encoding="utf-8")


def unmerged(folder: Path, base: Path) -> None:
    shutil.copyfile(base / "model.safetensors", folder / "model.safetensors")


FOLDERS = {
    "wrong template": _other_template,
    "swapped tokenizer": _other_tokenizer,
    "missing end token": _no_end,
}


def _replaced(file: Path, old: bytes, new: bytes) -> None:
    assert len(old) == len(new)
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new))


def switch_beginning(file: Path) -> None:
    """Lets llama.cpp put a beginning-of-text token where it puts none, or none where it puts one."""
    key = b"tokenizer.ggml.add_bos_token" + struct.pack("<I", 7)
    data = bytearray(file.read_bytes())
    data[data.index(key) + len(key)] ^= 1
    file.write_bytes(data)


def break_gguf(file: Path, fault: str, base: Path) -> None:
    if fault == "wrong template":
        _replaced(file, b"<|im_start|>assistant", b"<|im_start|>assistent")
    elif fault == "swapped tokenizer":
        _replaced(file, b"<0x61>", b"<0x@@>")
        _replaced(file, b"<0x65>", b"<0x61>")
        _replaced(file, b"<0x@@>", b"<0x65>")
    elif fault == "missing end token":
        key = b"tokenizer.ggml.eos_token_id" + struct.pack("<I", 4)
        data = file.read_bytes()
        at = data.index(key) + len(key)
        file.write_bytes(data[:at] + struct.pack("<I", 0) + data[at + 4 :])
    elif fault == "beginning token":
        switch_beginning(file)
    elif fault == "truncated":
        cut(file)
    elif fault == "one tensor zeroed":
        reader = GGUFReader(str(file), "r+")
        tensor = next(t for t in reader.tensors if t.name == "blk.1.attn_v.weight")
        tensor.data[:] = 0
        reader.data.flush()
    else:
        file.unlink()
        tool = llama_cpp.converter(lambda _said: None, lambda: None)
        converting.convert(tool, base, file, "f16", lambda _share: None, name="tiny", begins=False)
