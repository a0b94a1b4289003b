"""The importance matrix: how large the inputs of each weight are as the tuned model reads rows of its training data.

llama.cpp itself reads the rows, from the F16 GGUF, in a child process. The matrix is kept beside the run, in the form that
llama.cpp's own tools take too (`llama-quantize --imatrix`).
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .. import paths
from ..errors import FinetuiError
from ..recipe import Recipe
from ..runs.store import RunFolder
from . import converting, dataset, llama_cpp, tokenizer
from .chat import Chat
from .child import Check

TOKENS: Final = 32_768
"""Tokens that are read. llama.cpp's table of Llama-3-8B (tools/perplexity/README.md) shows that a matrix of ten thousand
tokens is worth as much as one of ten million."""
_ROW: Final = 4096
"""Of a longer row only so many tokens are read: the cache of the context grows with the longest."""
_CHUNK: Final = 64


def file(run: RunFolder, key: str) -> Path:
    """Where the matrix of the weights with the export's `key` stands, whether it is there or not."""
    return run.importance / f"{key[:16]}.gguf"


def make(
    recipe: Recipe,
    run: RunFolder,
    key: str,
    words: Path,
    model: Path,
    tell: Callable[[str, float], None],
    check: Check,
) -> Path:
    """The matrix for the F16 GGUF `model`, made where it is not there yet. `words` is a folder with the model's tokenizer.

    Raises FinetuiError (importance-none, gguf-convert, and those of reading the dataset), OSError, and what `check` raises.
    """
    target = file(run, key)
    if target.is_file():
        return target
    tool = llama_cpp.matrix_maker(lambda said: tell(said, 0.0), check)
    rows = _rows(recipe, words, tell, check)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=paths.private_dir(target.parent)))
    try:
        (work / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
        label = "importance matrix: rows of the training data"
        converting.weigh(
            tool, model, work / "rows.json", work / "made", lambda share: tell(label, share), check
        )
        (work / "made").replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for old in target.parent.glob("*.gguf"):
        if old != target:
            old.unlink(missing_ok=True)
    return target


def _rows(recipe: Recipe, words: Path, tell: Callable[[str, float], None], check: Check) -> list[list[int]]:
    """Rows of the training side, as in training, in an order by the recipe's seed, until there are enough tokens."""

    def progress(count: int) -> None:
        check()
        tell(f"importance matrix: reading the training data, {count:,} rows", 0.0)

    conversations = list(dataset.read(recipe, progress).train)
    chat = Chat(tokenizer.load(words), recipe.model.max_length)
    random.Random(recipe.training.seed).shuffle(conversations)
    rows: list[list[int]] = []
    count = 0
    for start in range(0, len(conversations), _CHUNK):
        check()
        for row in chat.encode(conversations[start : start + _CHUNK]):
            if isinstance(row, str) or not row.ids or count >= TOKENS:
                continue
            rows.append(row.input_ids[: min(_ROW, TOKENS - count)])
            count += len(rows[-1])
        if count >= TOKENS:
            break
    if not rows:
        raise FinetuiError(
            "There is no importance matrix without rows.",
            "None of the rows of the training data can be read by this model's chat template.",
            "Put the training data back, or export a quantization that needs none, such as gguf_q4_k_m.",
            code="importance-none",
        )
    return rows
