"""The quantizations of llama.cpp: what each is for, and what it costs.

Left out are those for models that were trained for them (TQ1_0, TQ2_0, Q1_0, Q2_0) and those that are Q8_0 for all but
mixtures of experts or need a GPU of one maker (MXFP4_MOE, NVFP4).

Facts, not taken on trust but looked up: bits per weight of Llama-3.1-8B from llama.cpp's tools/quantize/README.md; loss of
quality of Llama-3-8B on Wikitext-2 from its tools/perplexity/README.md. How large a file gets is in `gguf_size.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LOSS_SOURCE: Final = "llama.cpp's measurements, Llama-3-8B on Wikitext-2"


@dataclass(frozen=True)
class Quantization:
    """One type of llama.cpp. `number` is its `enum llama_ftype`; `bits` are those for a weight of Llama-3.1-8B."""

    name: str
    number: int
    bits: float
    summary: str
    converter: str = ""
    """The outtype with which the converter writes it by itself; the others are quantized from F16."""
    common: bool = False
    perplexity: float | None = None
    """By how much the perplexity rose, as a share of that of F16 (6.2332); None where it was not measured."""
    divergence: float | None = None
    """Mean Kullback–Leibler divergence of the next token's probabilities from those of F16."""
    matrix: bool = False
    """The loss was measured with an importance matrix: without one expect a little more."""
    needs_matrix: bool = False
    """llama.cpp makes it only with an importance matrix (`tensor_requires_imatrix` in llama-quant.cpp)."""

    @property
    def loss(self) -> str:
        """The expected loss of quality, in words and numbers."""
        if self.perplexity is None and self.needs_matrix:
            return "severe: llama.cpp's table does not even list it"
        if self.perplexity is None:
            return (
                "exact: nothing is lost" if self.name != "BF16" else "nothing that the training had is lost"
            )
        share = self.perplexity
        word = next(
            (
                word
                for most, word in (
                    (0.001, "not measurable in practice"),
                    (0.005, "hardly measurable"),
                    (0.02, "very small"),
                    (0.05, "small"),
                    (0.1, "noticeable"),
                    (0.2, "clear"),
                )
                if share <= most
            ),
            "severe",
        )
        more = ", with an importance matrix" if self.matrix else ""
        return f"{word}: perplexity +{share * 100:.2g} %, divergence {self.divergence:.4f}{more}"


def _ppl(delta: float) -> float:
    return delta / 6.2332


QUANTIZATIONS: Final[dict[str, Quantization]] = {
    q.name: q
    for q in (
        Quantization("F16", 1, 16.0, "one exact file for llama.cpp, Ollama and LM Studio", "f16", True),
        Quantization(
            "Q8_0", 7, 8.5, "half of F16, and as good as exact", "q8_0", True, _ppl(0.00265), 0.001355
        ),
        Quantization(
            "Q6_K", 18, 6.56, "a little smaller than Q8_0, hardly worse", "", True, _ppl(0.021748), 0.005452
        ),
        Quantization("Q5_K_M", 17, 5.70, "a third of F16; a small loss", "", True, _ppl(0.056974), 0.010762),
        Quantization(
            "Q4_K_M",
            15,
            4.89,
            "under a third of F16; the usual choice from 3 B weights up",
            "",
            True,
            _ppl(0.175482),
            0.031273,
        ),
        Quantization(
            "Q3_K_M",
            12,
            4.0,
            "a quarter of F16; noticeably worse, above all in small models",
            "",
            True,
            _ppl(0.656864),
            0.101913,
        ),
        Quantization("F32", 0, 32.0, "twice F16; only to convert further", "f32"),
        Quantization(
            "BF16", 32, 16.0, "F16's size with the range of the training; some old GPUs lack it", "bf16"
        ),
        Quantization("Q5_1", 9, 6.0, "an old form; take Q5_K_M", "", False, _ppl(0.106223), 0.018045),
        Quantization("Q5_K_S", 16, 5.57, "a little less than Q5_K_M", "", False, _ppl(0.104964), 0.016595),
        Quantization("Q5_0", 8, 5.5, "an old form; take Q5_K_S", "", False, _ppl(0.131591), 0.022239),
        Quantization(
            "Q4_1", 3, 5.1, "an old form; Q4_K_M is smaller and better", "", False, _ppl(0.451103), 0.071683
        ),
        Quantization(
            "IQ4_NL",
            25,
            4.68,
            "about Q4_K_S, faster on some ARM processors",
            "",
            False,
            _ppl(0.223959),
            0.035742,
            True,
        ),
        Quantization("Q4_K_S", 14, 4.67, "a little less than Q4_K_M", "", False, _ppl(0.268895), 0.043136),
        Quantization(
            "Q4_0", 2, 4.6, "an old form, the fastest on phones", "", False, _ppl(0.468514), 0.07194
        ),
        Quantization(
            "IQ4_XS",
            30,
            4.46,
            "a tenth less than Q4_K_M, about as good; slower on a CPU",
            "",
            False,
            _ppl(0.228071),
            0.036334,
            True,
        ),
        Quantization("Q3_K_L", 13, 4.3, "between Q3_K_M and Q4_K_S", "", False, _ppl(0.556242), 0.087176),
        Quantization(
            "IQ3_M",
            27,
            3.76,
            "about Q3_K_M, smaller; slower on a CPU",
            "",
            False,
            _ppl(0.666694),
            0.102534,
            True,
        ),
        Quantization(
            "IQ3_S", 26, 3.66, "a little less than IQ3_M", "", False, _ppl(0.733867), 0.111278, True
        ),
        Quantization(
            "Q3_K_S", 11, 3.64, "worse than IQ3_S at the same size", "", False, _ppl(1.632152), 0.228217
        ),
        Quantization(
            "Q2_K",
            10,
            3.16,
            "a fifth of F16; only for models far too large otherwise",
            "",
            False,
            _ppl(3.519934),
            0.445132,
        ),
        Quantization(
            "IQ3_XS",
            22,
            3.5,
            "a little less than IQ3_S",
            perplexity=_ppl(0.931409),
            divergence=0.138693,
            matrix=True,
            needs_matrix=True,
        ),
        Quantization(
            "IQ3_XXS",
            23,
            3.25,
            "Q2_K's size, and far better than it",
            perplexity=_ppl(1.226803),
            divergence=0.183625,
            matrix=True,
            needs_matrix=True,
        ),
        Quantization(
            "Q2_K_S",
            21,
            2.97,
            "faster than IQ2_M on a CPU, and worse",
            perplexity=_ppl(3.092145),
            divergence=0.40336,
            matrix=True,
            needs_matrix=True,
        ),
        Quantization(
            "IQ2_M",
            29,
            2.93,
            "under a fifth of F16; for models of 30 B weights and more",
            perplexity=_ppl(2.369166),
            divergence=0.325989,
            matrix=True,
            needs_matrix=True,
        ),
        Quantization(
            "IQ2_S",
            28,
            2.74,
            "a little less than IQ2_M",
            perplexity=_ppl(3.419148),
            divergence=0.439197,
            matrix=True,
            needs_matrix=True,
        ),
        Quantization(
            "IQ2_XS",
            20,
            2.59,
            "a sixth of F16; for models of 70 B weights and more",
            perplexity=_ppl(4.529791),
            divergence=0.54629,
            matrix=True,
            needs_matrix=True,
        ),
        Quantization(
            "IQ2_XXS",
            19,
            2.38,
            "a seventh of F16; only for models far too large otherwise",
            perplexity=_ppl(7.860148),
            divergence=0.812022,
            matrix=True,
            needs_matrix=True,
        ),
        Quantization("IQ1_M", 31, 2.15, "a last resort for the largest models", needs_matrix=True),
        Quantization("IQ1_S", 24, 2.0, "an eighth of F16; smaller there is none", needs_matrix=True),
    )
}
