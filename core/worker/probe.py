"""The probe: before the first step, the longest real batch goes through the model once, so that a run starts only where it fits.

It runs inside the trainer's own loop, after all has been made ready and before the first batch is taken: the same model,
optimizer, collator and precision. Then everything is set back, so the run's losses are those of a run without a probe.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from transformers import TrainerCallback

from .. import memory, pace
from ..errors import FinetuiError
from ..lengths import Lengths
from ..memory_shape import Shape, from_config
from ..pace import Measured
from ..recipe import Recipe
from ..runs.events import Probed
from ..system import Gpu, Machine, usable_cores
from ..text import bytes_words
from . import failures, randomness
from .control import Control
from .events import EventWriter

if TYPE_CHECKING:
    from .ladder import Ladder

NEAR_SHARE = 0.6
"""On a CPU a run is probed when its predicted memory is more than this share of what it may take: below that even a
prediction that is half wrong fits, and a batch takes seconds."""

_CHUNK_ROWS = 10_000
_LENGTH_POINTS = 64
_QUICK_SECONDS = 3.0
"""A first batch that took longer on a CPU is not repeated for a better time."""


class Probe(TrainerCallback):
    """Probes `trainer` when its training begins, and emits what was measured."""

    def __init__(
        self,
        trainer: Any,
        ladder: Ladder,
        control: Control,
        writer: EventWriter,
        *,
        alone: bool = False,
        always: bool = False,
        parameters: int | None = None,
    ) -> None:
        """`alone`: nothing else is to happen; the training ends with `Done` before its first step. `always`: even where
        memory is plenty. `parameters` is the
        count of the base model's weights."""
        self._trainer, self._ladder, self._control, self._writer = trainer, ladder, control, writer
        self._alone, self._always, self._parameters = alone, alone or always, parameters

    def hold(self) -> Probe:
        """Takes its place before all other callbacks but the ladder, so that the training is told of only once it can begin."""
        self._trainer.add_callback(self)
        callbacks = self._trainer.callback_handler.callbacks
        callbacks.insert(1 if self._ladder in callbacks else 0, callbacks.pop())
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        rows = lengths_of(self._trainer.train_dataset)
        shape = shape_of(self._trainer.model, self._parameters)
        needed, why = True, ""
        if not self._always:
            needed, why = wanted(self._ladder.recipe, shape, max(rows, default=1))
        if needed:
            self._writer.progress("probe", text="the longest batch")
            self._control.check()
            self._writer.emit(self._probe(rows, shape))
            self._control.check()
        else:
            self._writer.progress("probe", text=why)
        if self._alone:
            raise Done

    def _probe(self, rows: Sequence[int], shape: Shape | None) -> Probed:
        """Raises FinetuiError (gpu-memory, host-memory) where the run does not fit in any form that it may take."""
        began = time.monotonic()
        trainer, ladder = self._trainer, self._ladder
        before = ladder.descended
        gauge = _Gauge()
        kept = _Kept(trainer)
        try:
            batch = longest_batch(trainer, rows)
            first = _train_once(trainer, batch)
            # On a GPU memory is at its peak only in the second, when the optimizer's state is there.
            again = _train_once(trainer, batch) if gauge.gpu or first < _QUICK_SECONDS else first
            seconds = min(first, again)
            evaluation = _evaluate_once(trainer)
        except Exception as error:  # the edge of torch's allocator
            if not failures.out_of_memory(error):
                raise
            raise _does_not_fit(error, gauge, ladder.recipe) from None
        finally:
            kept.restore()
        measured = gauge.read()
        recipe = ladder.recipe
        predicted, longest_seconds, foreseen = _foresee(recipe, shape, rows, trainer, gauge, seconds)
        return Probed(
            device="gpu" if gauge.gpu else "cpu",
            predicted_bytes=predicted,
            measured_bytes=measured,
            limit_bytes=gauge.limit_bytes,
            rows=min(trainer.args.per_device_train_batch_size, len(rows)),
            longest=max(rows, default=0),
            tokens=int(batch["input_ids"].numel()),
            predicted_seconds=longest_seconds,
            seconds=seconds,
            evaluation_seconds=evaluation,
            seconds_per_step=foreseen.seconds_per_step if foreseen else 0.0,
            training_seconds=foreseen.seconds if foreseen else 0.0,
            stepped_down=ladder.descended > before,
            probe_seconds=time.monotonic() - began,
            compile_seconds=first - seconds if ladder.descended == before else 0.0,
        )


class Done(Exception):
    """A probe that was all that was wanted is over."""


def wanted(recipe: Recipe, shape: Shape | None, longest: int) -> tuple[bool, str]:
    """Whether a run of `recipe` is probed, and if not, why, in words.

    On a GPU always: it takes seconds there. On a CPU a batch may take as long as the probe could save, so only where
    memory is near the edge.
    """
    import torch

    if torch.cuda.is_available():
        return True, ""
    if shape is None:
        return True, ""
    needed = memory.estimate_host(recipe, shape, longest_tokens=longest).total_bytes
    own, free = psutil.Process().memory_info().rss, here().memory_available_bytes
    if needed > NEAR_SHARE * (own + free):
        return True, ""
    return False, f"not needed: {bytes_words(needed)} predicted, {bytes_words(own + free)} free"


def here() -> Machine:
    """This machine as pace and memory need it; what torch can use decides what GPU there is."""
    import torch

    from .. import system

    now = system.snapshot(Path.cwd())
    gpus: tuple[Gpu, ...] = ()
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        gpus = (Gpu(0, torch.cuda.get_device_name(), int(total), int(total - free)),)
    return Machine(
        usable_cores() if not now.cores else now.cores,
        None,
        now.memory_total_bytes,
        now.memory_available_bytes,
        now.disk_free_bytes,
        gpus,
    )


def shape_of(model: Any, parameters: int | None = None) -> Shape | None:
    """The shape of a loaded model, for the predictions."""
    from dataclasses import replace

    shape = from_config(model.config.to_dict())
    return replace(shape, counted=parameters) if shape is not None and parameters else shape


def lengths_of(dataset: Any) -> list[int]:
    """The length of each row in tokens, as the trainer has it; of packed sequences where rows are packed."""
    import pyarrow.compute as pc

    table = dataset.with_format("arrow")
    found: list[int] = []
    for at in range(0, len(dataset), _CHUNK_ROWS):
        column = table[at : at + _CHUNK_ROWS]["input_ids"]
        found += pc.list_value_length(column).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
    return found


def longest_row(dataset: Any) -> int:
    """The longest of the rows that packed sequences hold, in tokens."""
    import pyarrow.compute as pc

    held = pc.list_flatten(dataset.with_format("arrow")[:]["seq_lengths"])  # pyright: ignore[reportAttributeAccessIssue]
    return int(pc.max(held).as_py())  # pyright: ignore[reportAttributeAccessIssue]


def longest_batch(trainer: Any, rows: Sequence[int]) -> dict[str, Any]:
    """The longest rows in one batch, as the trainer's collator makes it: no batch of the run is larger."""
    size = trainer.args.per_device_train_batch_size
    return _collated(trainer, trainer.train_dataset, rows, size)


def _collated(trainer: Any, dataset: Any, rows: Sequence[int], size: int) -> dict[str, Any]:
    longest = sorted(range(len(rows)), key=lambda index: -rows[index])[:size]
    return dict(trainer.data_collator([dataset[index] for index in longest]))


def _train_once(trainer: Any, batch: dict[str, Any]) -> float:
    """One update from `batch` alone. Returns its seconds."""
    gradients = trainer.accelerator.gradient_state
    synced = gradients.sync_gradients
    began = time.monotonic()
    taken, items = type(trainer).get_batch_samples(trainer, iter([batch]), 1, trainer.args.device)
    trainer.current_gradient_accumulation_steps = 1
    gradients._set_sync_gradients(True)
    try:
        trainer.training_step(trainer.model_wrapped, taken[0], items)
        if trainer.args.max_grad_norm > 0:
            trainer._clip_grad_norm(trainer.model_wrapped)
        trainer.optimizer.step()
        trainer.model_wrapped.zero_grad()
    finally:
        gradients._set_sync_gradients(synced)
    _wait()
    return time.monotonic() - began


def _evaluate_once(trainer: Any) -> float | None:
    """The longest batch of the held-out rows; its seconds, or None where none are held out."""
    dataset = trainer.eval_dataset
    if dataset is None or not len(dataset):
        return None
    batch = _collated(trainer, dataset, lengths_of(dataset), trainer.args.per_device_eval_batch_size)
    began = time.monotonic()
    model = trainer.model_wrapped
    model.eval()
    try:
        trainer.prediction_step(model, batch, True, None)
    finally:
        model.train()
    _wait()
    return time.monotonic() - began


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _Gauge:
    """Memory from here on at its peak: what torch reserves on the GPU, or this process's resident memory."""

    def __init__(self) -> None:
        import torch

        self.gpu: bool = torch.cuda.is_available()
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            free, _total = torch.cuda.mem_get_info()
            self.limit_bytes = int(free + torch.cuda.memory_reserved())
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        self.limit_bytes = int(psutil.Process().memory_info().rss + here().memory_available_bytes)

    def read(self) -> int:
        """Bytes at the peak."""
        import torch

        if self.gpu:
            return int(torch.cuda.max_memory_reserved())
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return int(psutil.Process().memory_info().rss)


class _Kept:
    """What a step changes, put aside on the host and put back."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._random = randomness.states()
        self._weights = [
            (parameter, parameter.detach().to("cpu", copy=True))
            for parameter in trainer.model.parameters()
            if parameter.requires_grad
        ]
        optimizer = self._optimizer()
        self._state = {
            parameter: {
                name: value.detach().to("cpu", copy=True) if hasattr(value, "detach") else value
                for name, value in state.items()
            }
            for parameter, state in optimizer.state.items()
        }
        scaler = getattr(trainer.accelerator, "scaler", None)
        self._scale = scaler.state_dict() if scaler is not None else None

    def _optimizer(self) -> Any:
        optimizer = self._trainer.optimizer
        return getattr(optimizer, "optimizer", optimizer)

    def restore(self) -> None:
        import torch

        trainer = self._trainer
        trainer.model_wrapped.zero_grad()
        with torch.no_grad():
            for parameter, weights in self._weights:
                parameter.copy_(weights)
        optimizer = self._optimizer()
        for parameter in list(optimizer.state):
            before = self._state.get(parameter)
            if before is None:
                del optimizer.state[parameter]  # it had made no step; the next one begins anew
                continue
            for name, value in before.items():
                now = optimizer.state[parameter][name]
                if hasattr(value, "detach"):
                    now.copy_(value)
                else:
                    optimizer.state[parameter][name] = value
        if self._scale is not None:
            trainer.accelerator.scaler.load_state_dict(self._scale)
        randomness.restore(self._random)


def _foresee(
    recipe: Recipe,
    shape: Shape | None,
    rows: Sequence[int],
    trainer: Any,
    gauge: _Gauge,
    seconds: float,
) -> tuple[int, float, pace.Pace | None]:
    """Predicted bytes and seconds of the probed batch, and the run's time after what was measured."""
    if shape is None or not rows:
        return 0, 0.0, None
    machine, longest = here(), max(rows)
    if gauge.gpu:
        row = longest_row(trainer.train_dataset) if recipe.training.packing else longest
        found = memory.estimate_shape(recipe, shape, card_bytes=machine.total_bytes, longest_tokens=row)
        predicted = found.gpu_reserved_bytes
    else:
        predicted = memory.estimate_host(recipe, shape, longest_tokens=longest).total_bytes
    held_out = len(trainer.eval_dataset) if trainer.eval_dataset is not None else 0
    lengths = counted(rows, held_out)
    asked = recipe
    if recipe.training.packing:  # the sequences are the rows of this calculation
        training = recipe.training.model_copy(update={"packing": False})
        asked = recipe.model_copy(update={"training": training})
    size = int(trainer.args.per_device_train_batch_size)
    foreseen = pace.batch_seconds(recipe, shape, machine, size * longest, longest)
    foreseen += pace.update_seconds(recipe, shape, machine)
    again = pace.predict(asked, shape, machine, lengths, Measured(ratio=seconds / foreseen))
    return predicted, foreseen, again


def counted(rows: Sequence[int], evaluation_rows: int = 0) -> Lengths:
    """The lengths of `rows`, in at most 64 steps of equally many rows."""
    ordered = sorted(rows)
    count = len(ordered)
    points: list[tuple[float, float]] = []
    slices = min(count, _LENGTH_POINTS)
    for number in range(slices):
        part = ordered[number * count // slices : (number + 1) * count // slices]
        points.append((sum(part) / len(part), len(part) / count))
    return Lengths(tuple(points), ordered[-1], count, evaluation_rows, measured=True)


def _does_not_fit(error: BaseException, gauge: _Gauge, recipe: Recipe) -> FinetuiError:
    known = failures.card(error, Path("worker.log"), recipe)
    return FinetuiError(
        "The run does not fit in memory.",
        f"Its longest batch was tried before the first step: {known.why}",
        known.fix,
        code=known.code,
    )
