"""The model types that the installed Transformers knows, read from its own list without importing it."""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path

KNOWN_TYPES = frozenset(
    [
        "apertus",
        "arcee",
        "bitnet",
        "bloom",
        "codegen",
        "cohere",
        "cohere2",
        "deepseek_v2",
        "deepseek_v3",
        "dots1",
        "ernie4_5",
        "ernie4_5_moe",
        "exaone4",
        "falcon",
        "falcon_h1",
        "falcon_mamba",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "gemma3n",
        "gemma3n_text",
        "glm",
        "glm4",
        "glm4_moe",
        "glm4v",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gpt_oss",
        "gptj",
        "granite",
        "granitemoe",
        "granitemoehybrid",
        "granitemoeshared",
        "helium",
        "hunyuan_v1_dense",
        "hunyuan_v1_moe",
        "internvl",
        "jamba",
        "lfm2",
        "lfm2_moe",
        "lfm2_vl",
        "llama",
        "llama4",
        "llama4_text",
        "llava",
        "llava_next",
        "mamba",
        "mamba2",
        "ministral",
        "ministral3",
        "mistral",
        "mistral3",
        "mixtral",
        "mllama",
        "mpt",
        "nemotron",
        "nemotron_h",
        "olmo",
        "olmo2",
        "olmo3",
        "olmoe",
        "opt",
        "persimmon",
        "phi",
        "phi3",
        "phimoe",
        "pixtral",
        "qwen2",
        "qwen2_5_vl",
        "qwen2_moe",
        "qwen2_vl",
        "qwen3",
        "qwen3_moe",
        "qwen3_next",
        "qwen3_vl",
        "qwen3_vl_moe",
        "seed_oss",
        "smollm3",
        "smolvlm",
        "stablelm",
        "starcoder2",
        "xglm",
        "zamba2",
    ]
)
"""Model types whose code ships with Transformers, for where its own list cannot be read."""

_LISTS = ("models/auto/auto_mappings.py", "models/auto/configuration_auto.py")
_NAME = "CONFIG_MAPPING_NAMES"
_MAX_BYTES = 4 * 1024 * 1024


@functools.cache
def known_types() -> frozenset[str]:
    """Every model_type that needs no code from a repository: Transformers' own list, and `KNOWN_TYPES` where that list
    cannot be read."""
    found: set[str] = set()
    try:
        spec = importlib.util.find_spec("transformers")  # a package at the top: found, not imported
    except (ImportError, ValueError):
        spec = None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for name in _LISTS:
            found |= _read(Path(place) / name)
    return frozenset(found) or KNOWN_TYPES


def _read(file: Path) -> set[str]:
    """The first words of the pairs in the list, and the keys that are added to it one by one."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            return set()
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return set()
    found: set[str] = set()
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                call = node.value
                if isinstance(call.func, ast.Attribute) and _is_list(call.func.value):
                    found |= _words(call)
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if _is_list(target):
                found |= _words(node.value)
            elif isinstance(target, ast.Subscript) and _is_list(target.value):
                found |= _text(target.slice)
    return found


def _is_list(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == _NAME


def _words(node: ast.AST) -> set[str]:
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Tuple) and len(inner.elts) == 2:
            found |= _text(inner.elts[0])
        elif isinstance(inner, ast.Dict):
            for key in inner.keys:
                found |= _text(key) if key is not None else set()
    return found


def _text(node: ast.AST) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()
