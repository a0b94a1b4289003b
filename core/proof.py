"""The proof that an export answers like the trained model did: what is compared, how much may differ, and the verdict.

The trained model's own answers to a few held-out prompts are kept with the run (`Reference`). Whoever will use the
export (Transformers, PEFT, llama.cpp) opens it in a process of its own and is asked the same (`Heard`); the weights are
compared with what base and adapter must give (`Weights`). `judge` puts it in one `Proof`. No torch.
"""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from .asking import Answer

Verdict = Literal["same", "differs", "broken"]

PROMPTS = 8
NEW_TOKENS = 64


def gpu_room_bytes(model_bytes: int) -> int:
    """What must be free on a GPU for an export to be opened there by Transformers: the model, what it computes with, and CUDA's
    own beside the model that was just trained. Where it is not free, the CPU proves it."""
    return int(1.2 * model_bytes) + 2 * 1024**3


@dataclass(frozen=True)
class Limit:
    """What may differ. `gap`: mean absolute difference of a token's log-probability (natural logarithm); `agreement`:
    the least share of tokens that the consumer would choose too; `error`: root mean square error of a tensor against
    what it must be, relative to it; `learned`: how far the share of the adapter's change in the weights may lie from 1."""

    gap: float
    agreement: float
    error: float
    learned: float = 0.2


LIMITS: dict[str, Limit] = {
    "adapter": Limit(0.05, 0.97, 0.0),
    "adapter_gguf": Limit(0.08, 0.95, 0.0),
    "merged": Limit(0.08, 0.95, 0.006),
    "merged_4bit": Limit(0.60, 0.75, 0.25),
    "gguf_f16": Limit(0.08, 0.95, 0.006),
    "gguf_f32": Limit(0.08, 0.95, 0.006),
    "gguf_bf16": Limit(0.08, 0.95, 0.006),
    "gguf_q8_0": Limit(0.10, 0.94, 0.02),
    "gguf_q6_k": Limit(0.20, 0.90, 0.05),
    "gguf_q5_k_m": Limit(0.30, 0.85, 0.12),
    "gguf_q5_k_s": Limit(0.40, 0.82, 0.12),
    "gguf_q5_1": Limit(0.40, 0.82, 0.12),
    "gguf_q5_0": Limit(0.45, 0.80, 0.15),
    "gguf_q4_k_m": Limit(0.60, 0.75, 0.22),
    "gguf_q4_k_s": Limit(0.70, 0.72, 0.22),
    "gguf_iq4_nl": Limit(0.70, 0.72, 0.25),
    "gguf_iq4_xs": Limit(0.70, 0.72, 0.25),
    "gguf_q4_1": Limit(0.90, 0.68, 0.24),
    "gguf_q4_0": Limit(0.90, 0.68, 0.30),
    "gguf_q3_k_l": Limit(1.10, 0.62, 0.45),
    "gguf_q3_k_m": Limit(1.20, 0.60, 0.45),
    "gguf_iq3_m": Limit(1.20, 0.60, 0.52),
    "gguf_iq3_s": Limit(1.30, 0.58, 0.52),
    "gguf_q3_k_s": Limit(1.70, 0.50, 0.48),
    "gguf_q2_k": Limit(2.40, 0.40, 0.90),
    "gguf_iq3_xs": Limit(1.40, 0.56, 0.60, 0.75),
    "gguf_iq3_xxs": Limit(1.60, 0.52, 0.70, 0.75),
    "gguf_q2_k_s": Limit(2.40, 0.40, 0.90, 0.75),
    "gguf_iq2_m": Limit(2.20, 0.42, 0.90, 0.75),
    "gguf_iq2_s": Limit(2.40, 0.40, 0.90, 0.75),
    "gguf_iq2_xs": Limit(2.80, 0.36, 0.90, 0.75),
    "gguf_iq2_xxs": Limit(3.40, 0.30, 1.00, 0.75),
    "gguf_iq1_m": Limit(4.50, 0.20, 1.10, 0.75),
    "gguf_iq1_s": Limit(5.00, 0.15, 1.10, 0.75),
}
"""By format, for a model that was trained in 16 bit. The figures were set from the demo's exports: each is about three
times what a sound export showed, and a broken one shows far more. Those from IQ3_XS on are drawn on from there by llama.cpp's
measurements: the demo's rows are too narrow for most of these types. With rows padded to their width
(`tests/bench/proof_limits.py`) a sound IQ3_XS showed a gap of 0.31 and an agreement of 0.90, IQ3_XXS 0.71 and 0.82, Q2_K_S
1.13 and 0.74; the smaller ones are not measured. Such types lean with the adapter's change, which is under 1 % of the
weights: a sound IQ3_XS held 1.20 of it and IQ3_XXS 1.29, but an unmerged IQ2_M 0.02. That of merged_4bit is Q4_K_M's but for
the error, and is not measured on the demo."""

TIE = 0.08
"""Two tokens that lie no farther apart are as likely as each other (natural logarithm): 16 bits may order them either way."""

FOUR_BIT_FACTOR = 3.0
"""A model trained over a 4-bit base is exported over the 16-bit one, so its answers move by what 4 bit had cost."""


@dataclass(frozen=True)
class ReferencePrompt:
    """One prompt and what the trained model made of it, greedily. Plain writing has no `messages`: `text` is the beginning
    of a text, and the answer goes on with it. `logprobs` belong to `answer_ids`, which end with the
    end-of-turn token where the model stopped by itself. `expected` is the dataset's own answer; empty where it is very long,
    or an older finetui asked."""

    messages: tuple[tuple[str, str], ...]
    text: str
    ids: tuple[int, ...]
    answer: str
    answer_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool
    expected: str = ""

    @property
    def question(self) -> str:
        """What a person would call the prompt."""
        return self.messages[-1][1] if self.messages else self.text


@dataclass(frozen=True)
class Reference:
    """The trained model in memory, asked before anything was exported."""

    prompts: tuple[ReferencePrompt, ...]
    template: str
    precision: str
    special_tokens: dict[str, int]
    """Ids by name: bos, eos; absent where the tokenizer has none."""
    learned: str = ""
    """The print of the weights that answered (`export_record.learned_print`); empty where an older finetui asked."""


@dataclass(frozen=True)
class HeardPrompt:
    """The same prompt through the consumer: its own rendering, and what it thinks of the reference's answer, token by token.

    `logprobs` are None where the consumer tells none; `behind` is how far each token lies below the likeliest, 0 where the
    consumer would have chosen it. Both are natural logarithms. `answer` and `ended` are its own free run.
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    behind: tuple[float, ...]
    answer: str
    ended: bool

    @property
    def agrees(self) -> tuple[bool, ...]:
        """Of each token, whether the consumer would have chosen it, or one as likely."""
        return tuple(behind <= TIE for behind in self.behind)


@dataclass(frozen=True)
class Heard:
    """What the consumer said. `error` is set where it could not open the export at all."""

    prompts: tuple[HeardPrompt, ...] = ()
    template: str = ""
    special_tokens: dict[str, int] = dataclasses.field(default_factory=dict)
    consumer: str = ""
    error: str = ""


@dataclass(frozen=True)
class Weights:
    """The export's tensors against base + adapter, from rows of each. `learned` is the share of the adapter's change that is
    in them: 1 where it is merged, 0 where it is not; None where there is nothing to measure it on. `noise` is its standard
    error, by how the tensors differ: the coarser the rounding, and the smaller the change, the larger it is."""

    tensors: int = 0
    compared: int = 0
    missing: tuple[str, ...] = ()
    wrong_shape: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    """All zero, or not finite."""
    worst: str = ""
    worst_error: float = 0.0
    learned: float | None = None
    noise: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    sentence: str
    severe: bool = True
    """A severe one that fails makes the export broken; another makes it differ."""


@dataclass(frozen=True)
class Proof:
    """The verdict, its checks and the table behind them."""

    format: str
    verdict: Verdict
    sentence: str
    consumer: str
    checks: tuple[Check, ...]
    prompts: tuple[tuple[str, str, str], ...] = ()
    """Question, the trained model's answer, the export's answer."""
    agreement: float | None = None
    gap: float | None = None
    seconds: float = 0.0


def limit(format: str, precision: str) -> Limit:
    """What may differ in `format` from a model that was trained at `precision`."""
    known = LIMITS[format]
    if precision != "4bit":
        return known
    return Limit(
        known.gap * FOUR_BIT_FACTOR,
        max(0.5, 1 - FOUR_BIT_FACTOR * (1 - known.agreement)),
        known.error,
        known.learned,
    )


def judge(
    format: str, reference: Reference, heard: Heard, weights: Weights | None, seconds: float = 0.0
) -> Proof:
    """The proof of one export."""
    allowed = limit(format, reference.precision)
    checks = [Check("opens", not heard.error, heard.error or f"{heard.consumer} opens it.")]
    agreement = gap = None
    table: tuple[tuple[str, str, str], ...] = ()
    if not heard.error:
        checks += _spoken(reference, heard)
        told = [h for h in heard.prompts if h.agrees]
        if told:
            flat = [a for h in told for a in h.agrees]
            agreement = sum(flat) / len(flat)
            gaps = [
                abs(ours - theirs)
                for asked, h in zip(reference.prompts, heard.prompts, strict=True)
                for ours, theirs in zip(asked.logprobs, h.logprobs, strict=False)
                if theirs is not None
            ]
            gap = statistics.fmean(gaps) if gaps else None
            checks += _answered(heard, allowed, agreement, gap)
        table = tuple(
            (asked.question, asked.answer, h.answer)
            for asked, h in zip(reference.prompts, heard.prompts, strict=True)
        )
    if weights is not None:
        checks += _weighed(weights, allowed)
    failed = [check for check in checks if not check.passed]
    severe = [check for check in failed if check.severe]
    if severe:
        verdict, sentence = "broken", severe[0].sentence
    elif failed:
        verdict, sentence = "differs", failed[0].sentence
    else:
        same = sum(ours == theirs for _, ours, theirs in table)
        verdict = "same"
        sentence = f"It answers as the trained model did: {same} of {len(table)} answers word for word" + (
            f", {_share(agreement)} of the tokens chosen alike." if agreement is not None else "."
        )
    return Proof(format, verdict, sentence, heard.consumer, tuple(checks), table, agreement, gap, seconds)


def _share(part: float) -> str:
    """A share in words; 100 % only where it is all."""
    return "all" if part == 1.0 else f"{min(part, 0.999):.1%}"


def _spoken(reference: Reference, heard: Heard) -> list[Check]:
    """Template, tokens and end: what decides whether it is spoken to as in training."""
    pairs = list(zip(reference.prompts, heard.prompts, strict=True))
    texts = sum(asked.text == h.text for asked, h in pairs)
    ids = sum(asked.ids == h.ids for asked, h in pairs)
    count = len(pairs)
    checks: list[Check] = []
    if any(asked.messages for asked in reference.prompts):
        sentence = f"Its chat template writes {texts} of {count} prompts as in training."
        checks.append(Check("chat template", texts == count, sentence))
    checks += [
        Check("tokens", ids == count, f"Its tokenizer cuts {ids} of {count} prompts into the same tokens."),
    ]
    if reference.template:  # without one llama.cpp reports a stand-in of its own
        alike = reference.template.strip() == heard.template.strip()
        sentence = (
            "The chat template is the one of the training, letter for letter."
            if alike
            else "The chat template is written differently than in training."
        )
        checks.append(Check("template text", alike, sentence, severe=False))
    for name, token in sorted(reference.special_tokens.items()):
        found = heard.special_tokens.get(name)
        if name == "bos" and found is None:
            continue  # no harm: the prompts' tokens are compared above
        checks.append(
            Check(
                f"{name} token",
                found == token,
                f"Its {name} token is {found}, as in training."
                if found == token
                else f"Its {name} token is {found if found is not None else 'missing'}; in training it was {token}.",
            )
        )
    # An answer that turned another way on its own tells nothing of the place where the trained model's ended.
    stopped = [h for asked, h in pairs if asked.ended and h.answer.startswith(asked.answer)]
    if stopped:
        ends = sum(h.ended for h in stopped)
        checks.append(
            Check(
                "stops",
                ends * 2 >= len(stopped),
                f"It stops by itself in {ends} of {len(stopped)} answers where the trained model did.",
            )
        )
    return checks


def _answered(heard: Heard, allowed: Limit, agreement: float, gap: float | None) -> list[Check]:
    first = [h.agrees[0] for h in heard.prompts if h.agrees]
    far = gap is not None and gap > 4 * allowed.gap or agreement < allowed.agreement - 0.35
    return [
        Check(
            "first token",
            sum(first) >= max(1, round(len(first) * (allowed.agreement - 0.2))),
            f"The first token is chosen alike in {sum(first)} of {len(first)} answers.",
            severe=sum(first) == 0,
        ),
        Check(
            "same choices",
            agreement >= allowed.agreement,
            f"{_share(agreement)} of the answers' tokens are chosen alike (at least {allowed.agreement:.0%} is expected).",
            severe=far,
        ),
        Check(
            "log-probability",
            gap is None or gap <= allowed.gap,
            f"{heard.consumer} tells no log-probability of these tokens."
            if gap is None
            else f"A token's log-probability differs by {gap:.3f} on average (up to {allowed.gap:.2f} is expected).",
            severe=far,
        ),
    ]


def _weighed(weights: Weights, allowed: Limit) -> list[Check]:
    if weights.error:
        return [Check("weights", False, weights.error)]
    wrong = weights.missing or weights.wrong_shape
    checks = [
        Check(
            "all weights there",
            not wrong,
            f"All {weights.tensors:,} tensors are there, in their shapes."
            if not wrong
            else f"{len(weights.missing)} tensors are missing and {len(weights.wrong_shape)} have another shape, first {wrong[0]}.",
        ),
        Check(
            "no dead weights",
            not weights.dead,
            "No tensor is all zero or not finite."
            if not weights.dead
            else f"{weights.dead[0]} holds nothing but zeros, or numbers that are none.",
        ),
    ]
    if weights.compared:
        checks.append(
            Check(
                "weights",
                weights.worst_error <= max(allowed.error, 1e-6),
                f"{weights.compared:,} tensors agree with base and adapter, the worst to {weights.worst_error:.2%}."
                if weights.worst_error <= max(allowed.error, 1e-6)
                else f"{weights.worst} is off by {weights.worst_error:.1%} (up to {allowed.error:.1%} is expected).",
                severe=weights.worst_error > 3 * allowed.error,
            )
        )
    if weights.learned is not None:
        sentence = f"{weights.learned:.0%} of what was learned is in the weights"
        slack = allowed.learned + 3 * weights.noise
        if weights.noise >= 0.01:
            sentence += f", give or take {weights.noise:.0%}: it is small beside the rounding"
        checks.append(Check("adapter merged", abs(weights.learned - 1) <= slack, f"{sentence}."))
    return checks


def heard_from(answer: Answer, consumer: str) -> Heard:
    """What a consumer's process wrote, as Heard; its last words as an error where it wrote nothing usable."""
    try:
        return TypeAdapter(Heard).validate_json(answer.output)
    except (ValidationError, ValueError):
        last = answer.last_words or "it gave no answer"
        return Heard(consumer=consumer, error=f"{consumer} cannot open it: {last[:300]}")
