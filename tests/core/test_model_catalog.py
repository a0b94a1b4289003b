"""The recommended models: their counts agree with their shapes, worked out here a second time."""

from __future__ import annotations

import pytest

from finetui.core import hub, model_types
from finetui.core.model_catalog import CATALOG

# Layers, hidden, inner, query width, key-value width, vocabulary, tied embeddings, other weights of a layer, others.
_SHAPES = {
    "SmolLM2-135M": (30, 576, 1536, 576, 192, 49_152, True, 2 * 576),
    "SmolLM2-360M": (32, 960, 2560, 960, 320, 49_152, True, 2 * 960),
    "SmolLM2-1.7B": (24, 2048, 8192, 2048, 2048, 49_152, True, 2 * 2048),
    "SmolLM3-3B": (36, 2048, 11_008, 2048, 512, 128_256, True, 2 * 2048),
    "gemma-3-270m": (18, 640, 2048, 1024, 256, 262_144, True, 4 * 640 + 2 * 256),
    "gemma-3-1b": (26, 1152, 6912, 1024, 256, 262_144, True, 4 * 1152 + 2 * 256),
    "gemma-2-2b": (26, 2304, 9216, 2048, 1024, 256_000, True, 4 * 2304),
    "Qwen2.5-0.5B": (24, 896, 4864, 896, 128, 151_936, True, 2 * 896 + 896 + 2 * 128),
    "Qwen2.5-1.5B": (28, 1536, 8960, 1536, 256, 151_936, True, 2 * 1536 + 1536 + 2 * 256),
    "Qwen2.5-Coder-1.5B": (28, 1536, 8960, 1536, 256, 151_936, True, 2 * 1536 + 1536 + 2 * 256),
    "Qwen2.5-7B": (28, 3584, 18_944, 3584, 512, 152_064, False, 2 * 3584 + 3584 + 2 * 512),
    "Qwen2.5-Coder-7B": (28, 3584, 18_944, 3584, 512, 152_064, False, 2 * 3584 + 3584 + 2 * 512),
    "R1-Distill-Qwen-1.5B": (28, 1536, 8960, 1536, 256, 151_936, False, 2 * 1536 + 1536 + 2 * 256),
    "R1-Distill-Qwen-7B": (28, 3584, 18_944, 3584, 512, 152_064, False, 2 * 3584 + 3584 + 2 * 512),
    "Qwen3-0.6B": (28, 1024, 3072, 2048, 1024, 151_936, True, 2 * 1024 + 256),
    "Qwen3-1.7B": (28, 2048, 6144, 2048, 1024, 151_936, True, 2 * 2048 + 256),
    "Qwen3-4B": (36, 2560, 9728, 4096, 1024, 151_936, True, 2 * 2560 + 256),
    "Qwen3-8B": (36, 4096, 12_288, 4096, 1024, 151_936, False, 2 * 4096 + 256),
    "Qwen3-14B": (40, 5120, 17_408, 5120, 1024, 151_936, False, 2 * 5120 + 256),
    "Qwen3-32B": (64, 5120, 25_600, 8192, 1024, 151_936, False, 2 * 5120 + 256),
    "TinyLlama": (22, 2048, 5632, 2048, 256, 32_000, False, 2 * 2048),
    "Llama-3.2-1B": (16, 2048, 8192, 2048, 512, 128_256, True, 2 * 2048),
    "Llama-3.2-3B": (28, 3072, 8192, 3072, 1024, 128_256, True, 2 * 3072),
    "Llama-3.1-8B": (32, 4096, 14_336, 4096, 1024, 128_256, False, 2 * 4096),
    "Distill-Llama-8B": (32, 4096, 14_336, 4096, 1024, 128_256, False, 2 * 4096),
    "Llama-3.3-70B": (80, 8192, 28_672, 8192, 1024, 128_256, False, 2 * 8192),
    "OLMo-2-0425-1B": (16, 2048, 8192, 2048, 2048, 100_352, False, 4 * 2048),
    "OLMo-2-1124-7B": (32, 4096, 11_008, 4096, 4096, 100_352, False, 4 * 4096),
    "Olmo-3-7B": (32, 4096, 11_008, 4096, 4096, 100_278, False, 4 * 4096),
    "granite-3.3-2b": (40, 2048, 8192, 2048, 512, 49_159, True, 2 * 2048),
    "granite-3.3-8b": (40, 4096, 12_800, 4096, 1024, 49_159, True, 2 * 4096),
    "Phi-3.5-mini": (32, 3072, 8192, 3072, 3072, 32_064, False, 2 * 3072),
    "phi-4": (40, 5120, 17_920, 5120, 1280, 100_352, False, 2 * 5120),
    "mistral-7b": (32, 4096, 14_336, 4096, 1024, 32_768, False, 2 * 4096),
    "Mistral-Nemo": (40, 5120, 14_336, 4096, 1024, 131_072, False, 2 * 5120),
    "Mistral-Small-24B": (40, 5120, 32_768, 4096, 1024, 131_072, False, 2 * 5120),
}
_SEEING = ("gemma-3-4b", "gemma-3-12b", "gemma-3-27b")
"""With a part that sees images, whose weights count too."""


def count(shape: tuple[int, int, int, int, int, int, bool, int]) -> int:
    layers, hidden, inner, queries, keys, vocabulary, tied, more = shape
    layer = 2 * hidden * queries + 2 * hidden * keys + 3 * hidden * inner + more
    return layers * layer + vocabulary * hidden * (1 if tied else 2) + hidden


@pytest.mark.parametrize("model", CATALOG, ids=lambda m: m.id)
def test_counts_agree_with_shapes(model: object) -> None:
    from finetui.core.model_catalog import CatalogModel

    assert isinstance(model, CatalogModel)
    if any(name in model.id for name in _SEEING):
        return
    names = [name for name in _SHAPES if name in model.id.replace("-0528-", "-")]
    name = max(names, key=len)
    assert model.parameters == count(_SHAPES[name]), name


def test_the_list_is_whole_and_in_order() -> None:
    assert len(CATALOG) >= 40
    assert len({m.id for m in CATALOG}) == len(CATALOG) == len({m.title for m in CATALOG})
    assert [m.parameters for m in CATALOG] == sorted(m.parameters for m in CATALOG)
    for m in CATALOG:
        assert hub.is_id(m.id) and m.license and 10 < len(m.good_at) < 60 and len(m.title) < 26
        assert m.context_length >= 2048
    assert len({m.family for m in CATALOG}) >= 8
    assert sum(m.base for m in CATALOG) == 2


def test_the_types_of_the_installed_transformers_are_known_without_importing_it() -> None:
    import subprocess
    import sys

    found = model_types.known_types()
    assert {"llama", "qwen3", "gemma3_text", "olmo3", "phi3", "smollm3", "granite"} <= found
    assert len(found) > 150 and not {"evil", "LlamaConfig"} & found
    known = model_types.KNOWN_TYPES
    assert len(known - found) < 12, known - found
    script = (
        "import sys; from finetui.core.model_types import known_types; known_types(); "
        "print('transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False"
