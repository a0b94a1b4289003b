"""Exceptions of the libraries turned into cards: what happened, why, and what to do."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from .. import secrets, text
from ..errors import FinetuiError
from ..recipe import Recipe

_NETWORK = (
    "ConnectionError",
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
)


_WRITE_FAILED = re.compile(
    r"No space left on device|os error (5|27|28|30|122)\b|inline_container\.cc.*(unexpected pos|failed writing)",
    re.S,
)
"""What safetensors (in Rust) and torch.save (in C++) say where the disk takes no more."""


_GPU_MEMORY = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def last_line(error: BaseException) -> str:
    """The error's own last line, with tokens and terminal escapes taken out."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    said = f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
    return text.one_line(secrets.redact(said), 300)


def card(error: BaseException, log: Path, recipe: Recipe | None = None) -> FinetuiError:
    """The card for `error`. An unknown one says so and names the log."""
    chain = _chain(error)
    for one in chain:
        if isinstance(one, FinetuiError):
            return one
    for one in chain:
        known = _known(one, recipe)
        if known is not None:
            return known
    return FinetuiError(
        "The run failed.", last_line(error), f"The whole story is in {log}.", code="run-failed"
    )


def is_of_this_machine(error: BaseException) -> bool:
    """Whether memory or disk ran out: a card about this machine then says more than one about the hub or the model."""
    return any(_memory(one, type(one).__name__, str(one), None) is not None for one in _chain(error))


def out_of_memory(error: BaseException) -> bool:
    """Whether the GPU's or the host's memory ran out, wherever in the chain that is said.

    oneDNN has no word of its own for it: what it cannot create on a CPU is taken for a lack of memory.
    """
    chain = _chain(error)
    cards = (_memory(one, type(one).__name__, str(one), None) for one in chain)
    return any(card is not None and card.code in ("gpu-memory", "host-memory") for card in cards) or any(
        isinstance(one, RuntimeError) and str(one).startswith("could not create a") for one in chain
    )


def is_unwritable(error: BaseException) -> bool:
    """Whether the disk did not take what was written: no space, a limit, an I/O error, read-only."""
    return any(
        (isinstance(one, OSError) and not isinstance(one, (ConnectionError, TimeoutError)))
        or _WRITE_FAILED.search(str(one))
        for one in _chain(error)
    )


def is_known(error: BaseException) -> bool:
    """Whether `card` has a card of its own for `error`."""
    return any(isinstance(one, FinetuiError) or _known(one, None) is not None for one in _chain(error))


def _known(error: BaseException, recipe: Recipe | None) -> FinetuiError | None:
    kind, said = type(error).__name__, str(error)
    return (
        _memory(error, kind, said, recipe)
        or _hub(error, kind, said)
        or _compiling(error, kind, said)
        or _precision(error, said)
        or _data(error, kind, said)
    )


def _memory(error: BaseException, kind: str, said: str, recipe: Recipe | None) -> FinetuiError | None:
    if kind == "OutOfMemoryError" or any(words in said for words in _GPU_MEMORY):
        batch = f" (now {recipe.training.batch_size})" if recipe else ""
        length = f" (now {recipe.model.max_length})" if recipe else ""
        return FinetuiError(
            "The GPU ran out of memory.",
            last_line(error),
            f"In this order: a smaller batch size{batch} with more accumulation, checkpointing on, a shorter sequence "
            f"length{length}, 4-bit precision, a smaller model. Close other programs that use the GPU.",
            code="gpu-memory",
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in said or "Cannot allocate memory" in said:
        return FinetuiError(
            "The machine ran out of memory.",
            last_line(error),
            "A smaller batch size or sequence length, a smaller model, or fewer rows; close other programs.",
            code="host-memory",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return FinetuiError(
            "The disk is full.",
            f"No space was left while writing {Path(str(error.filename)).name if error.filename else 'the run'}.",
            "Free some space, then resume the run: its last whole checkpoint is untouched.",
            code="no-space",
        )
    if _WRITE_FAILED.search(said):
        return FinetuiError(
            "The disk is full.",
            "No space was left while writing the run.",
            "Free some space, then resume the run: its last whole checkpoint is untouched.",
            code="no-space",
        )
    return None


_NO_COMPILER = ("Failed to find C compiler", "No working C++ compiler")
_NOT_COMPILED = ("BackendCompilerFailed", "InductorError", "CompilationError", "OutOfResources")


def _compiling(error: BaseException, kind: str, said: str) -> FinetuiError | None:
    if kind == "InvalidCxxCompiler" or any(words in said for words in _NO_COMPILER):
        return FinetuiError(
            "A C compiler is needed, and there is none here.",
            "torch and Triton write their fast kernels with it while the model is made ready.",
            "Install one (apt install gcc g++, or dnf install gcc-c++), or name yours with CC and CXX; then try again.",
            code="compiler-missing",
        )
    if kind in _NOT_COMPILED:
        return FinetuiError(
            "torch could not compile this model's layers.",
            last_line(error),
            "Start it with UNSLOTH_COMPILE_DISABLE=1 before the command: slower, and it learns the same. Other versions of torch "
            "and Unsloth may compile it.",
            code="compile-failed",
        )
    return None


def _precision(error: BaseException, said: str) -> FinetuiError | None:
    if "bitsandbytes" in said.lower() or "bnb_4bit" in said or "4bit" in said.lower():
        return FinetuiError(
            "The model cannot be loaded in 4-bit.",
            last_line(error),
            "Set precision to 16bit, or install bitsandbytes for this GPU.",
            code="precision-4bit",
        )
    return None


def _hub(error: BaseException, kind: str, said: str) -> FinetuiError | None:
    if kind == "GatedRepoError" or "gated repo" in said:
        return FinetuiError(
            "This repository asks for permission first.",
            "Its owner lets in only accounts that accepted the terms.",
            "Accept them on its page at huggingface.co, then set HF_TOKEN or run: hf auth login",
            code="hub-gated",
        )
    if kind in (
        "RepositoryNotFoundError",
        "RevisionNotFoundError",
        "DatasetNotFoundError",
        "HFValidationError",
    ):
        return FinetuiError(
            "The hub has nothing under this name.",
            last_line(error),
            "Check owner/name and the revision. A private repository needs HF_TOKEN.",
            code="hub-not-found",
        )
    if kind == "HfHubHTTPError" and "429" in said:
        return FinetuiError(
            "The hub asks to wait.", "Too many requests came from here.", "Try again later.", code="hub-busy"
        )
    if kind in _NETWORK or kind == "HfHubHTTPError":
        return FinetuiError(
            "The hub cannot be reached.",
            last_line(error),
            "Check the network, or choose the demo or a local folder.",
            code="hub-offline",
        )
    return None


def _data(error: BaseException, kind: str, said: str) -> FinetuiError | None:
    if isinstance(error, StopIteration):
        return FinetuiError(
            "There are no rows to train on.",
            "The dataset came out empty.",
            "Look at the dataset step: every row was dropped, or the file has none.",
            code="dataset-empty",
        )
    if "chat_template is not set" in said or "does not have a chat template" in said:
        return no_chat_template()
    if isinstance(error, KeyError) and said.strip("'\"") in ("text", "messages", "prompt", "input_ids"):
        return FinetuiError(
            f"The dataset has no column {text.one_line(said, 40)}.",
            "Its rows are not in the format that was chosen.",
            "Set format to auto, or name the format that the rows have.",
            code="dataset-format",
        )
    return None


def not_loaded(error: BaseException, title: str) -> FinetuiError:
    """The card for a model whose files look whole and yet do not load."""
    why = last_line(error)
    if "ignore_mismatched_sizes" in why or "size mismatch" in why:
        why = "The shapes of its weights are not those that its config.json states."
    return FinetuiError(
        f"{text.one_line(title, 100)} does not load.",
        why,
        "A file of it may be damaged, cut off, or of another model: download it again, or choose another.",
        code="model-broken",
    )


def no_chat_template() -> FinetuiError:
    return FinetuiError(
        "This model has no chat template.",
        "It is a base model: it continues text and knows no turns of a conversation.",
        "Choose the instruct version of the model (its name usually ends in Instruct, it or chat), or a dataset of plain "
        "writing.",
        code="model-no-chat-template",
    )


def diverged(step: int, learning_rate: float, kept: str) -> FinetuiError:
    return FinetuiError(
        f"The loss became NaN at step {step}.",
        f"Usually the learning rate is too high (now {learning_rate:g}); now and then a row is damaged.",
        f"Try a third of the learning rate with more warm-up. {kept}",
        code="loss-nan",
    )


def nothing_to_learn(step: int, kept: str) -> FinetuiError:
    return FinetuiError(
        f"The loss is exactly 0 at step {step}, several steps running.",
        "A real loss is never 0: nothing is left to learn from, or the numbers broke down.",
        f"Look at the dataset step for what is trained on; try a lower learning rate. {kept}",
        code="loss-zero",
    )
