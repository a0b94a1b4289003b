"""The proof in the worker: the trained model is asked before anything is exported, each export is asked after it is made."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from .. import asking, export_budget, export_record, proof_file, refusals_export
from .. import proof as proof_step
from ..asking import Answer
from ..conversation import Turn
from ..errors import FinetuiError
from ..proof import Heard, Proof, Reference, ReferencePrompt, Weights
from ..recipe import Recipe
from ..runs import chosen
from ..runs.chosen import Chosen
from ..runs.store import RunFolder
from ..text import bytes_words
from . import base_weights, converting, llama_cpp, llama_runtime, samples, tensors
from .chat import Chat, Unrenderable
from .child import Check, environment, go_on
from .control import Stopped

_LONGEST_PROMPT: Final = 700
_LONGEST_EXPECTED: Final = 32_768
"""Characters: no talk answers at such length."""

_SECONDS: Final = 1800.0


def ask(
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    conversations: Sequence[Sequence[Turn]],
    ending: Callable[[], bool],
) -> Reference | None:
    """The trained model's own answers to the first held-out prompts; None where there is no prompt to ask.

    Greedy, as it stands in memory. Each answer's tokens come with the log-probability that the model gave them. Raises
    Stopped as soon as `ending` says that nobody waits for them any more.
    """
    import torch

    chat = Chat(tokenizer, recipe.model.max_length)
    asked: list[ReferencePrompt] = []
    with samples.answering(model), torch.no_grad():
        for turns in conversations:
            if len(asked) == proof_step.PROMPTS:
                break
            prompt = _prompt(chat, turns)
            if prompt is not None:
                asked.append(_answered(model, tokenizer, prompt, ending))
    if not asked:
        return None
    special = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    return Reference(
        tuple(asked),
        str(tokenizer.chat_template or ""),
        recipe.model.precision,
        {name: int(token) for name, token in special.items() if token is not None},
    )


def ask_again(model: Any, tokenizer: Any, of: Reference, ending: Callable[[], bool]) -> Reference:
    """What `model` answers to the prompts of `of`. Raises Stopped as `ask`."""
    import torch

    asked: list[ReferencePrompt] = []
    with samples.answering(model), torch.no_grad():
        for prompt in of.prompts:
            asked.append(_answered(model, tokenizer, prompt, ending))
    return dataclasses.replace(of, prompts=tuple(asked))


def _prompt(chat: Chat, turns: Sequence[Turn]) -> ReferencePrompt | None:
    """The conversation up to its last answer, not answered yet; None where it is no plain conversation. Of plain writing it is
    the beginning of the text, to be gone on with."""
    if turns[0].role == "text":
        parts = samples.beginning(turns)
        return (
            _unanswered((), parts[0], chat.prompt_ids([Turn("text", parts[0])]), parts[1]) if parts else None
        )
    if getattr(turns, "tools", ""):
        return None  # not every consumer's server takes tools in the same way
    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=0)
    before = turns[:last]
    if last == 0 or any(turn.role not in ("system", "user", "assistant") for turn in before):
        return None
    if any(turn.calls or turn.reasoning for turn in before) or before[-1].role != "user":
        return None
    try:
        messages = _messages(chat, before)
        text = chat.render(before, answer_next=True)
        ids = chat.prompt_ids(before)
    except Unrenderable:
        return None
    return _unanswered(messages, text, ids, turns[last].text)


def _unanswered(
    messages: tuple[tuple[str, str], ...], text: str, ids: list[int], expected: str
) -> ReferencePrompt | None:
    """The prompt; None where it is too long."""
    if len(ids) > _LONGEST_PROMPT:
        return None
    known = expected if len(expected) <= _LONGEST_EXPECTED else ""
    return ReferencePrompt(messages, text, tuple(ids), "", (), (), False, known)


def _messages(chat: Chat, turns: Sequence[Turn]) -> tuple[tuple[str, str], ...]:
    """Role and text of each turn, a system prompt folded into the question where the template has no place for it."""
    said = [(turn.role, turn.text) for turn in turns]
    if chat.folds_system and len(said) > 1 and said[0][0] == "system":
        said[:2] = [(said[1][0], f"{said[0][1]}\n\n{said[1][1]}")]
    return tuple((str(role), words) for role, words in said)


def _answered(
    model: Any, tokenizer: Any, asked: ReferencePrompt, ending: Callable[[], bool]
) -> ReferencePrompt:
    import torch

    ends = samples.end_tokens(model, tokenizer)
    given = torch.tensor([asked.ids], device=model.device)
    written = model.generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=proof_step.NEW_TOKENS,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        repetition_penalty=1.0,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0],
        use_cache=True,
        output_logits=True,
        return_dict_in_generate=True,
        stopping_criteria=samples.unless(ending),
    )
    if ending():
        raise Stopped
    answer = [int(token) for token in written.sequences[0, len(asked.ids) :].tolist()]
    logprobs = [
        float(torch.log_softmax(logits[0].float(), -1)[token])
        for logits, token in zip(written.logits, answer, strict=True)
    ]
    words = tokenizer.decode(answer, skip_special_tokens=True)
    return dataclasses.replace(
        asked,
        answer=words,
        answer_ids=tuple(answer),
        logprobs=tuple(logprobs),
        ended=bool(answer) and answer[-1] in ends,
    )


def prove(
    format: str,
    path: Path,
    base: Path,
    adapter: Path,
    reference: Reference,
    *,
    check: Check = go_on,
    tell: Callable[[str], None] = lambda _text: None,
) -> Proof:
    """Opens the export at `path` (a folder, or a GGUF file) as its consumer will, asks it, and looks at its weights.

    Whatever is wrong with the export is in the proof. Raises FinetuiError (package-fetch) where llama.cpp cannot be
    had, and what `check` raises.
    """
    if format == "merged_4bit" and (error := refusals_export.no_four_bit()) is not None:
        raise _untried(format, error.what, "Install it (pip install bitsandbytes), then: finetui verify RUN")
    began = time.monotonic()
    weights = _weights(format, path, base, adapter, check)
    if weights is not None and weights.error:
        heard = Heard(consumer=_consumer_name(format), error=weights.error)
        weights = None
    else:
        heard = _heard(format, path, base, reference, check, tell)
    return proof_step.judge(format, reference, heard, weights, time.monotonic() - began)


def _weights(format: str, path: Path, base: Path, adapter: Path, check: Check) -> Weights | None:
    try:
        if format == "adapter_gguf":
            return None  # llama.cpp's own forms of both sides; that they are the right ones is heard
        if format == "adapter":
            return tensors.copied(path, adapter)
        if format in ("merged", "merged_4bit"):
            return tensors.merged(path, base, adapter, check)
        return tensors.gguf(path, base, adapter, check)
    except tensors.Unreadable as error:
        return Weights(error=str(error))


def _consumer_name(format: str) -> str:
    known = {"merged": "Transformers", "merged_4bit": "Transformers", "adapter": "PEFT"}
    return known.get(format, "llama.cpp")


def _heard(
    format: str, path: Path, base: Path, reference: Reference, check: Check, tell: Callable[[str], None]
) -> Heard:
    if format == "adapter_gguf":
        _need_space(format, path.parent, base)
        with tempfile.TemporaryDirectory(prefix=".base-", dir=path.parent) as work:
            whole = Path(work) / "base.gguf"
            tool = llama_cpp.converter(tell, check)
            begins = reference.prompts[0].ids[:1] == (reference.special_tokens.get("bos"),)
            converting.convert(
                tool, base, whole, "f16", lambda _share: None, check, name="base", begins=begins
            )
            [lora] = path.glob("*.gguf")
            return _opened(format, "gguf", whole, str(lora.absolute()), reference, check, tell)
    kind = format if format in ("merged", "merged_4bit", "adapter") else "gguf"
    other = str(base.absolute()) if kind == "adapter" else ""
    return _opened(format, kind, path, other, reference, check, tell)


def _need_space(format: str, place: Path, base: Path) -> None:
    """Refuses what cannot fit beside `place`: an F16 GGUF of `base`. Raises FinetuiError (proof-untried)."""
    need = 2 * base_weights.count(base)
    free = shutil.disk_usage(place).free
    if free < need + export_budget.SPARE_BYTES:
        raise _untried(
            format,
            f"It is proved over a GGUF of the base model, which takes {bytes_words(need)} for a while, and {place} has "
            f"{bytes_words(free)} free.",
            "Free some space, then: finetui verify RUN",
        )


def _opened(
    format: str,
    kind: str,
    path: Path,
    other: str,
    reference: Reference,
    check: Check,
    tell: Callable[[str], None],
) -> Heard:
    """What the consumer says of the export `path` with `other`: the base of an adapter, or the adapter over a base."""
    extra: dict[str, str] = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if kind == "gguf":
        where = llama_runtime.folder(check, tell)
        if where is not None:
            extra["PYTHONPATH"] = str(where)
    argv = [sys.executable, "-P", "-m", "finetui.core.worker.consumer", kind, str(path.absolute())]
    if other:
        argv.append(other)
    question = json.dumps(dataclasses.asdict(reference), ensure_ascii=True).encode()
    try:
        answer = asking.ask(argv, question, environment(extra), check, _SECONDS)
    except TimeoutError as error:
        raise _untried(format, f"{error}.".capitalize()) from error
    return heard_or_untried(format, answer)


def heard_or_untried(format: str, answer: Answer) -> Heard:
    """What the consumer said, or why it could not open the export. Raises FinetuiError (proof-untried) where that was for
    want of memory, which says nothing about the export."""
    heard = proof_step.heard_from(answer, _consumer_name(format))
    short = "OutOfMemory" in heard.error or "MemoryError" in heard.error
    if heard.error and (short or answer.code == -signal.SIGKILL):
        raise _untried(format, "There was too little memory to open it beside what is loaded.")
    return heard


def _untried(
    format: str, why: str, fix: str = "When the machine is free: finetui verify RUN"
) -> FinetuiError:
    """The card for an export that could not be tried, of which nothing is known (proof-untried)."""
    return FinetuiError(
        f"The export {format} could not be tried.",
        why,
        f"The export itself is whole. {fix}",
        code="proof-untried",
    )


def of_run(
    run: RunFolder,
    recipe: Recipe,
    base: Path,
    format: str,
    *,
    check: Check = go_on,
    tell: Callable[[str], None] = lambda _text: None,
) -> Proof:
    """Proves the export `format` that stands in the folder of `run`, and keeps the verdict beside it.

    Raises FinetuiError (proof-no-reference, proof-no-export, proof-untried, package-fetch) and OSError.
    """
    folder = run.exports / format
    path = next(iter(sorted(folder.glob("*.gguf"))), folder) if format.startswith("gguf") else folder
    if not path.exists():
        raise FinetuiError(
            f"The run has no export {format}.",
            f"{folder} is not there.",
            f"Make it: finetui export {run.id} --format {format}",
            code="proof-no-export",
        )
    weights = _weights_of(folder, run, recipe)
    reference = proof_file.load_reference(run, weights)
    if reference is None:
        raise proof_file.no_reference(run)
    record = export_record.read(folder)
    if record is not None and reference.learned and reference.learned != record.learned:
        raise FinetuiError(
            f"The export {format} cannot be compared any more.",
            "The run has learned more since it was made, and its answers are those of today.",
            f"Make it again: finetui export {run.id} --format {format} --replace",
            code="proof-other-weights",
        )
    tell(format)
    proof = prove(format, path, base, weights.folder, reference, check=check, tell=tell)
    proof_file.save(folder, proof)
    return proof


def _weights_of(folder: Path, run: RunFolder, recipe: Recipe) -> Chosen:
    """The weights that an export was made from. Raises FinetuiError (proof-weights-gone)."""
    record = export_record.read(folder)
    place = chosen.result_folder(recipe, run) if record is None else (run.path / record.weights).resolve()
    if record is not None and not place.is_relative_to(run.path.resolve()):
        place = chosen.result_folder(recipe, run)
    if not chosen.holds_weights(recipe, place):
        raise FinetuiError(
            "The weights that this export was made from are gone.",
            f"{place.name} has been removed since, so there is nothing to compare it with.",
            f"Export what is there: finetui export {run.id} --replace",
            code="proof-weights-gone",
        )
    return Chosen(place, record.step if record else None, record is None or record.result)
