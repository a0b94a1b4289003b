"""Each known failure ends the run with its card, once, and the traceback stays in the log."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetui.core.errors import FinetuiError
from finetui.core.recipe import Recipe
from finetui.core.runs import checkpoints
from finetui.core.runs.event_log import read_all
from finetui.core.runs.events import Checkpoint, DatasetReady, Ended, Sample, Started, Step
from finetui.core.runs.store import RunFolder
from finetui.core.worker import failures

from . import harness, tiny


@pytest.fixture
def signals() -> Iterator[None]:
    """A worker in this process takes over the signals; they are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def work(made_of: Recipe, job: str = "train", run: RunFolder | None = None) -> tuple[int, RunFolder, Ended]:
    from finetui.core.worker.__main__ import work as real

    run = run or harness.make_run(made_of)
    code = real(job, run, (), 0.0)
    ends = harness.events(run, Ended)
    assert len(ends) == len(harness.events(run, Started))
    assert isinstance(read_all(run.events)[-1].event, Ended)
    return code, run, ends[-1]


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"max_length": 20}, "dataset-answers-cut", "20 tokens"),
        ({"precision": "4bit"}, "precision-4bit", "16bit"),
        ({"packing": True}, "packing-cpu", ""),
    ],
)
@pytest.mark.usefixtures("unsloth", "signals")
def test_refusals(tiny_model: Path, tiny_rows: Path, change: dict[str, Any], code: str, says: str) -> None:
    result, run, end = work(harness.recipe(tiny_model, tiny_rows, **change))
    assert (result, end.reason, end.code) == (1, "failed", code)
    assert end.what and end.why and says in end.fix
    assert not harness.events(run, Step) and "Traceback" not in run.events.read_text()


@pytest.mark.usefixtures("unsloth", "signals")
def test_a_base_model_without_a_template(tiny_base_model: Path, tiny_rows: Path) -> None:
    result, _run, end = work(harness.recipe(tiny_base_model, tiny_rows))
    assert (result, end.code) == (1, "model-no-chat-template")


@pytest.mark.usefixtures("unsloth", "signals")
def test_a_hub_id_without_a_network(tiny_rows: Path) -> None:
    result, _run, end = work(harness.recipe(Path("nobody/no-such-model"), tiny_rows))
    assert result == 1 and end.code.startswith("hub-"), end


@pytest.mark.usefixtures("unsloth", "signals")
def test_missing_and_empty_data(tiny_model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for path, code in ((tmp_path / "missing.jsonl", "dataset-missing"), (empty, "dataset-empty")):
        result, _run, end = work(harness.recipe(tiny_model, path))
        assert (result, end.code) == (1, code)


@pytest.mark.usefixtures("unsloth", "signals")
def test_a_broken_recipe_still_has_a_beginning_and_an_end(tiny_model: Path, tiny_rows: Path) -> None:
    run = harness.make_run(harness.recipe(tiny_model, tiny_rows))
    run.recipe.write_text("version: 1\nlora:\n  ranck: 8\n")
    result, _run, end = work(harness.recipe(tiny_model, tiny_rows), run=run)
    assert (result, end.code) == (1, "recipe") and "ranck" in end.why


@pytest.mark.usefixtures("unsloth", "signals")
def test_a_loss_that_becomes_nan_keeps_the_last_good_checkpoint(tmp_path: Path, tiny_rows: Path) -> None:
    """An adapter weight turns to NaN in the middle of a real run: what divergence leaves behind."""
    model = tiny.make(tmp_path / "model")
    made_of = harness.recipe(
        model,
        tiny_rows,
        learning_rate=0.1,
        alpha=4096,
        rank=1,
        max_steps=60,
        save_every_steps=1,
        warmup_share=0.5,
    )
    run = harness.make_run(made_of)
    _poison(run, made_of, at_step=4)
    found, damaged = checkpoints.choose(run.checkpoints)
    assert found is not None and not damaged
    assert checkpoints.step_of(found) < 4


def _poison(run: RunFolder, made_of: Recipe, at_step: int) -> None:
    from transformers import TrainerCallback

    from .in_process import Trainer

    class Poison(TrainerCallback):
        def on_step_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            if state.global_step + 1 == at_step:
                weight = next(p for n, p in model.named_parameters() if "lora_B" in n)
                weight.data.fill_(float("nan"))

    from finetui.core.worker import training

    built = Trainer(made_of, run)
    built.trainer.add_callback(Poison())
    with pytest.raises(FinetuiError) as caught:
        training.train(built.trainer, built.reporter, made_of, None)
    assert caught.value.code == "loss-nan"
    assert "0.1" in caught.value.why
    losses = harness.losses(run)
    assert max(losses) == at_step + 2
    assert [c.step for c in harness.events(run, Checkpoint)] == [1, 2, 3]


@pytest.mark.usefixtures("unsloth", "signals")
def test_rows_that_cannot_be_used_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    tiny.write_rows(rows, 10)
    with rows.open("a") as file:
        file.write(
            '{"messages": [{"role": "user", "content": "'
            + "long " * 60
            + '"}, {"role": "assistant", "content": "x"}]}\n'
        )
    result, run, _end = work(
        harness.recipe(tiny_model, rows, max_steps=1, warmup_steps=0, evaluation_share=0.0, sample_count=1)
    )
    assert result == 0
    (data,) = harness.events(run, DatasetReady)
    assert (data.rows, data.dropped, data.cut_rows) == (10, 1, 1)
    assert {"rows-cut", "rows-dropped"} <= set(harness.codes(run))
    assert [s.step for s in harness.events(run, Sample)] == [0, 1]


@pytest.mark.usefixtures("unsloth")
def test_a_loss_of_exactly_zero_ends_the_run(tiny_model: Path, tiny_rows: Path) -> None:
    from finetui.core.worker import callbacks, training

    from .in_process import Trainer

    made_of = harness.recipe(tiny_model, tiny_rows, max_steps=50)
    built = Trainer(made_of)
    forward = built.trainer.compute_loss
    built.trainer.compute_loss = lambda *args, **kwargs: forward(*args, **kwargs) * 0
    with pytest.raises(FinetuiError) as caught:
        training.train(built.trainer, built.reporter, made_of, None)
    assert caught.value.code == "loss-zero"
    assert max(harness.losses(built.run)) == callbacks.ZERO_STEPS
    assert not harness.events(built.run, Checkpoint)


def _raised(kind: str, said: str) -> BaseException:
    return type(kind, (RuntimeError,), {})(said)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (_raised("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB"), "gpu-memory"),
        (MemoryError(), "host-memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "host-memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/somewhere/optimizer.pt"), "no-space"),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "no-space",
        ),
        (RuntimeError("Error while serializing: I/O error: File too large (os error 27)"), "no-space"),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 239424 vs 239316"),
            "no-space",
        ),
        (_raised("RepositoryNotFoundError", "404 Client Error: /api/models/me/x-bnb-4bit"), "hub-not-found"),
        (StopIteration(), "dataset-empty"),
        (
            ValueError("tokenizer.chat_template is not set and no template argument was passed!"),
            "model-no-chat-template",
        ),
        (KeyError("text"), "dataset-format"),
        (_raised("GatedRepoError", "403 Client Error. Access to model is restricted"), "hub-gated"),
        (_raised("RepositoryNotFoundError", "404 Client Error"), "hub-not-found"),
        (_raised("HfHubHTTPError", "429 Too Many Requests"), "hub-busy"),
        (_raised("ConnectError", "Name or service not known"), "hub-offline"),
        (ImportError("Using `bitsandbytes` 4-bit quantization requires bitsandbytes"), "precision-4bit"),
        (
            RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
            "compiler-missing",
        ),
        (RuntimeError("something new"), "run-failed"),
    ],
)
def test_cards(error: BaseException, code: str) -> None:
    card = failures.card(error, Path("worker.log"))
    assert card.code == code
    assert card.what.endswith(".") and card.fix
    wrapped = RuntimeError("a library's wrapper")
    wrapped.__cause__ = error
    assert failures.card(wrapped, Path("worker.log")).code == code


def test_layers_that_torch_cannot_compile_have_a_card() -> None:
    import torch

    def backend(_graph: Any, _inputs: Any) -> Any:
        raise AssertionError

    with pytest.raises(Exception) as caught:
        torch.compile(lambda x: x + 1, backend=backend)(torch.ones(1))
    card = failures.card(caught.value, Path("worker.log"))
    assert card.code == "compile-failed" and "UNSLOTH_COMPILE_DISABLE=1" in card.fix


def test_an_unknown_failure_shows_its_last_line_without_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "very-secret-canary")
    card = failures.card(RuntimeError("first\nGET x?token=very-secret-canary \x1b[31mred"), Path("w.log"))
    assert "very-secret-canary" not in str(card) and "\x1b" not in str(card)
    assert card.why.startswith("RuntimeError: GET x") and "w.log" in card.fix
