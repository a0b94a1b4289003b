"""The shape of a model as far as memory goes: the sizes of its matrices, from a config.json or from what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .model_facts import ModelFacts, figure
from .recipe import LoraSection


@dataclass(frozen=True)
class Shape:
    """Sizes in weights (rows or columns of a matrix). `kind` is Transformers' model_type."""

    kind: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    context_length: int | None = None
    window: int | None = None
    """Tokens that a sliding-window layer looks back; None where all layers see everything."""
    experts: int = 0
    """Experts of a layer; 0 for a dense model, -1 where there are some but their sizes are not known."""
    experts_per_token: int = 0
    expert_inner: int = 0
    counted: int | None = None
    """All weights as counted in the files, where that is known."""
    sees_images: bool = False

    @property
    def queries(self) -> int:
        return self.heads * self.head

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head

    @property
    def embedding(self) -> int:
        """Weights of one table of embeddings; the output layer has as many."""
        return self.vocabulary * self.hidden

    @property
    def embeddings(self) -> int:
        """Weights of the embeddings and, where it is not the same, of the output layer."""
        return self.embedding * (1 if self.tied else 2)

    @property
    def attention(self) -> int:
        """Weights of the matrices of one attention layer."""
        return self.hidden * (2 * self.queries + 2 * self.keys)

    @property
    def mlp(self) -> int:
        """Weights of the matrices of one feed-forward layer, all experts and their router included."""
        if self.experts > 0:
            return self.experts * (3 * self.hidden * self.expert_inner + self.hidden)
        return 3 * self.hidden * self.inner

    @property
    def vectors(self) -> int:
        """Weights of norms and biases."""
        norms = 4 if self.kind.startswith(("gemma2", "gemma3")) else 2
        bias = self.queries + 2 * self.keys if self.kind == "qwen2" else 0
        return self.layers * (norms * self.hidden + bias) + self.hidden

    @property
    def matrices(self) -> int:
        """Weights of all matrices in the layers: what 4-bit packs."""
        computed = self.layers * (self.attention + self.mlp)
        if self.counted is None:
            return computed
        return max(self.counted - self.embeddings - self.vectors, 0)

    @property
    def parameters(self) -> int:
        """All weights of the model."""
        return self.matrices + self.embeddings + self.vectors

    @property
    def largest_matrix(self) -> int:
        """Weights of the largest matrix in a layer; those of all experts are unpacked at once, gate and up as one."""
        inner = self.inner
        if self.experts > 0:
            inner = 2 * self.experts * self.expert_inner
        if self.kind == "phi3":
            return self.hidden * max(2 * inner, self.queries + 2 * self.keys)
        return self.hidden * max(inner, self.queries)

    def adapter_weights(self, section: LoraSection) -> int:
        """Trainable weights of the adapter: rank × (inputs + outputs) for each adapted matrix (LoRA, arXiv 2106.09685).

        Phi-3 keeps queries, keys and values, and gate and up, in one matrix each.
        """
        hidden, inner = self.hidden, self.inner
        sizes = {
            "q_proj": hidden + self.queries,
            "k_proj": hidden + self.keys,
            "v_proj": hidden + self.keys,
            "o_proj": self.queries + hidden,
            "gate_proj": hidden + inner,
            "up_proj": hidden + inner,
            "down_proj": inner + hidden,
            "qkv_proj": 0,
            "gate_up_proj": 0,
        }
        if self.kind == "phi3":
            sizes |= dict.fromkeys(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), 0)
            sizes |= {"qkv_proj": hidden + self.queries + 2 * self.keys, "gate_up_proj": hidden + 2 * inner}
        if self.experts > 0:  # Unsloth adapts all experts, gate and up as one matrix
            wide = self.experts * (hidden + 2 * self.expert_inner)
            sizes |= {"gate_proj": wide, "up_proj": 0 if "gate_proj" in section.target_modules else wide}
            sizes["down_proj"] = self.experts * (hidden + self.expert_inner)
        matrices = section.rank * sum(sizes[name] for name in section.target_modules)
        inner_in = {"o_proj": self.queries, "down_proj": inner}
        # DoRA: one length for each row of an adapted matrix.
        rows = sum(sizes[name] - inner_in.get(name, hidden) for name in section.target_modules if sizes[name])
        return self.layers * (matrices + (rows if section.dora and self.experts == 0 else 0))

    def table_weights(self, section: LoraSection) -> int:
        """Weights of the tables that are trained whole beside the adapter."""
        return self.embedding * len(section.modules_to_save)

    def trained_weights(self, section: LoraSection) -> int:
        """All weights that are trained: the adapter's and the tables', or the whole model's."""
        if section.method == "full":
            return self.parameters
        return self.adapter_weights(section) + self.table_weights(section)

    def facts(self) -> ModelFacts:
        """The shape as facts of a model that nobody has looked at."""
        return ModelFacts(
            "",
            "folder",
            "",
            parameters=self.parameters,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_size=self.head,
            vocabulary=self.vocabulary,
            tied_embeddings=self.tied,
            model_type=self.kind,
        )


def from_config(config: Mapping[str, Any]) -> Shape | None:
    """The shape that a config.json describes; None where a figure is missing that nothing can stand in for. Raises FinetuiError
    (model-broken) for figures that no model has."""
    text = config.get("text_config")
    inner: Mapping[str, Any] = {**config, **text} if isinstance(text, Mapping) else config

    def number(*names: str) -> int:
        return figure(inner, *names) or 0

    hidden, layers = (
        number("hidden_size", "n_embd", "d_model"),
        number("num_hidden_layers", "n_layer", "n_layers"),
    )
    heads, vocabulary = number("num_attention_heads", "n_head", "n_heads"), number("vocab_size")
    if not (hidden and layers and heads and vocabulary):
        return None
    kind = str(inner.get("model_type") or config.get("model_type") or "")[:40]
    tied = inner.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    experts = number("num_experts", "num_local_experts", "n_routed_experts")
    windowed = inner.get("use_sliding_window", True) and kind != "mistral"
    return Shape(
        kind=kind,
        hidden=hidden,
        inner=number("intermediate_size", "ffn_dim", "n_inner") or 4 * hidden,
        layers=layers,
        heads=heads,
        kv_heads=number("num_key_value_heads") or heads,
        head=number("head_dim") or hidden // heads,
        vocabulary=vocabulary,
        tied=bool(tied) if tied is not None else kind.startswith("gemma"),
        context_length=number("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len") or None,
        window=(number("sliding_window") or None) if windowed else None,
        experts=experts,
        experts_per_token=number("num_experts_per_tok", "moe_top_k"),
        expert_inner=number("moe_intermediate_size") or (number("intermediate_size") if experts else 0),
        sees_images="vision_config" in config,
    )


def from_facts(facts: ModelFacts) -> Shape | None:
    """The shape of a model that was looked at; None where it is not known.

    Experts are not among the facts: many more weights than the figures explain give them away.
    """
    if not (facts.hidden_size and facts.layers and facts.vocabulary):
        return None
    heads = facts.heads or max(1, facts.hidden_size // 64)
    dense = Shape(
        kind=facts.model_type,
        hidden=facts.hidden_size,
        inner=facts.intermediate_size or 4 * facts.hidden_size,
        layers=facts.layers,
        heads=heads,
        kv_heads=facts.kv_heads or heads,
        head=facts.head_size or max(1, facts.hidden_size // heads),
        vocabulary=facts.vocabulary,
        tied=bool(facts.tied_embeddings),
        context_length=facts.context_length,
        counted=facts.parameters,
        sees_images=facts.sees_images,
    )
    computed = dense.layers * (dense.attention + dense.mlp)
    if "moe" in facts.model_type or dense.matrices > 1.3 * computed:
        return replace(dense, experts=-1)
    return dense
