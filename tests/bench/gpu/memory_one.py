"""One process that measures the memory of trainings, one after another: points come in on stdin, results go out on stdout.

`python -m tests.bench.gpu.memory_one FOLDER` imports Unsloth once and then answers each line of JSON with one. What is
trained is built by the worker's own code. Between points everything is freed; a result says what was left over before.
"""

from __future__ import annotations

import collections
import gc
import json
import math
import os
import sys
import time
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

EVALUATION_SHARE = 0.2
SHORT_ROW_TOKENS = 180
MIXED_ROW_TOKENS = (64, 97, 140, 181, 230, 310, 450)
TEMPLATE_TOKENS = 21
"""What the tiny model's template writes around a question and its answer."""

STEPS = 2
"""From the second step on the optimizer's state is there, and Unsloth reloads offloaded inputs through two buffers."""


@dataclass(frozen=True)
class Point:
    """One training to measure. `length` in tokens, `batch` in rows; `card_gib` stands in for a smaller card, 0 for this one."""

    shape: str
    precision: str = "16bit"
    length: int = 2048
    batch: int = 1
    rank: int = 16
    checkpointing: bool = True
    packing: bool = False
    optimizer: str = "adamw_torch"
    targets: str = "all"
    method: str = "lora"
    """lora, dora or full."""
    rows: str = "full"
    """full: every row fills the length. short: rows of SHORT_ROW_TOKENS. mixed: of MIXED_ROW_TOKENS, in turn."""
    dropout: float = 0.0
    evaluation_batch: int = 0
    """Rows of a batch of held-out rows; 0 for as many as in training."""
    card_gib: float = 0.0
    split: str = "fit"
    trace: bool = False

    @property
    def key(self) -> str:
        """What must be the same for two points to be measured in one process.

        Packed rows leave an allocator of their own making behind, full fine-tuning and DoRA settings of Unsloth's that the
        next model would be loaded with: each is measured in a process of its own.
        """
        if self.packing or self.method != "lora" or self.precision in ("8bit", "32bit"):
            return " ".join(map(str, astuple(self)))
        return f"{self.shape} {self.card_gib:g}"

    @property
    def row_tokens(self) -> tuple[int, ...]:
        """The lengths of the rows, in turn."""
        named = {"short": (SHORT_ROW_TOKENS,), "mixed": MIXED_ROW_TOKENS}
        return named.get(self.rows, (self.length,))


def recipe_of(point: Point, model: str, rows: str) -> Any:
    """The recipe whose memory `point` measures."""
    from finetui.core.recipe import (
        DatasetSection,
        ExportSection,
        LoraSection,
        ModelSection,
        Recipe,
        TrainingSection,
    )

    lora: dict[str, Any] = {
        "rank": point.rank,
        "gradient_checkpointing": point.checkpointing,
        "dropout": point.dropout,
    }
    fused = point.shape.startswith("Phi")
    if point.targets == "attention":
        lora["target_modules"] = ("qkv_proj", "o_proj") if fused else ("attention",)
    elif fused:
        lora["target_modules"] = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    if point.method == "full":
        lora["method"] = "full"
    lora["dora"] = point.method == "dora"
    return Recipe(
        name="memory",
        model=ModelSection.model_validate(
            {"source": model, "precision": point.precision, "max_length": point.length}
        ),
        dataset=DatasetSection(source=rows, evaluation_share=EVALUATION_SHARE),
        lora=LoraSection.model_validate(lora),
        training=TrainingSection.model_validate(
            {
                "epochs": 100.0,
                "max_steps": STEPS,
                "batch_size": point.batch,
                "learning_rate": 1e-6,
                "optimizer": point.optimizer,
                "packing": point.packing,
                "evaluation_batch_size": point.evaluation_batch or None,
                "evaluate_every_steps": 0,
                "save_every_steps": 0,
                "sample_count": 0,
            }
        ),
        export=ExportSection(formats=("merged",) if point.method == "full" else ("adapter",)),
    )


def write_rows(point: Point, path: Path) -> Path:
    """Rows for `STEPS` batches and one batch of evaluation; a token of the tiny tokenizer is a byte.

    Full rows are `point.length` tokens, to the token. Short ones are all of one length, and their number is one that
    packs into whole sequences, so that no batch is smaller than another; mixed ones fill a sequence more.
    """
    lengths = point.row_tokens
    sequences = point.batch * (STEPS + 1) + (point.rows == "mixed")
    training = math.ceil(sequences * (point.length // (sum(lengths) / len(lengths))))
    held_out = (point.evaluation_batch or point.batch) * (1 if point.rows == "full" else 2)
    count = max(10, math.ceil(training / (1 - EVALUATION_SHARE)), held_out * 5)
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            question = f"{index:06}?"
            size = lengths[index % len(lengths)] - len(question) - TEMPLATE_TOKENS
            answer = (f"{index:06} " + "abcdefghij " * (size // 11 + 1))[:size]
            said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": said}) + "\n")
    return path


def _status() -> dict[str, int]:
    """Bytes of this process's resident memory, by kind."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem"):
            found[name] = int(value.split()[0]) * 1024
    return found


def _reset_high_water() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def clean() -> None:
    """Frees what a training leaves in the process beside its objects: Unsloth's staging and dequantization buffers."""
    import torch

    gc.collect()
    if not torch.cuda.is_available():
        return
    import unsloth.kernels.utils as kernels
    import unsloth_zoo.gradient_checkpointing as checkpointing

    checkpointing.unpatch_unsloth_smart_gradient_checkpointing()
    for buffers in (kernels.WEIGHT_BUFFERS, kernels.ABSMAX_BUFFERS):
        for index in range(len(buffers)):
            buffers[index] = None
    gc.collect()
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    torch._C._host_emptyCache()


def _peak_of(snapshot: Any) -> list[list[Any]]:
    """What was allocated at the peak: [where, bytes, count], largest first; what came before the recording is not there."""
    live: dict[int, tuple[int, str]] = {}
    total = best = 0
    best_live: dict[int, tuple[int, str]] = {}
    events = snapshot["device_traces"][0]
    peak_at = -1
    for index, event in enumerate(events):
        if event["action"] == "alloc":
            live[event["addr"]] = (event["size"], "")
            total += event["size"]
            if total > best:
                best, peak_at = total, index
        elif event["action"] == "free_completed" and event["addr"] in live:
            total -= live.pop(event["addr"])[0]
    live.clear()
    for event in events[: peak_at + 1]:
        if event["action"] == "alloc":
            frames = [
                f"{Path(f['filename']).name}:{f['line']}:{f['name']}"
                for f in event.get("frames", ())
                if any(
                    part in f["filename"]
                    for part in ("unsloth", "trl", "bitsandbytes", "peft", "finetui", "compiled")
                )
                or "modeling_" in f["filename"]
            ][:3]
            if not frames:
                frames = [
                    f"{Path(f['filename']).name}:{f['line']}:{f['name']}" for f in event.get("frames", ())
                ][:3]
            best_live[event["addr"]] = (event["size"], " < ".join(frames))
        elif event["action"] == "free_completed":
            best_live.pop(event["addr"], None)
    groups: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for size, where in best_live.values():
        groups[f"{where} @{size}"][0] += size
        groups[f"{where} @{size}"][1] += 1
    ranked = sorted(groups.items(), key=lambda item: -item[1][0])[:45]
    return [[where, size, count] for where, (size, count) in ranked]


def _held(model: Any) -> dict[str, int]:
    """Bytes of the model's weights by kind, quantization states included."""
    held: dict[str, int] = collections.defaultdict(int)
    seen: set[int] = set()
    for name, parameter in model.named_parameters():
        pointer = parameter.data_ptr()
        if pointer in seen:
            continue
        seen.add(pointer)
        size = parameter.numel() * parameter.element_size()
        if "lora_" in name:
            kind = "adapter"
        elif "embed_tokens" in name or "lm_head" in name:
            kind = "embeddings"
        elif getattr(parameter, "quant_state", None) is not None:
            kind = "4bit"
            state = parameter.quant_state
            held["4bit_states"] += state.absmax.numel() * state.absmax.element_size()
            if state.state2 is not None:
                held["4bit_states"] += state.state2.absmax.numel() * 4 + 256 * 4
        elif parameter.dim() == 1:
            kind = "vectors"
        else:
            kind = "matrices"
        held[kind + ("_host" if parameter.device.type == "cpu" else "")] += size
    for _name, buffer in model.named_buffers():
        held["buffers"] += buffer.numel() * buffer.element_size()
    return dict(held)


def measure(point: Point, models: Path) -> dict[str, Any]:
    """Trains `point` for STEPS steps and one evaluation. All figures in bytes unless their name says otherwise."""
    import torch

    from tests.worker.in_process import Trainer

    gpu = torch.cuda.is_available()
    found: dict[str, Any] = {}
    clean()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
        found["before_allocated"], found["before_reserved"] = (
            torch.cuda.memory_allocated(),
            torch.cuda.memory_reserved(),
        )
    _reset_high_water()
    rows = write_rows(point, models / f"rows-{os.getpid()}.jsonl")
    recipe = recipe_of(point, str(models / point.shape), str(rows))
    started = time.monotonic()
    built = Trainer(recipe)
    trainer: Any = built.trainer
    trainer._save_checkpoint = lambda *a, **k: None  # what is saved is not what is measured
    built.reporter.on_save = lambda *a, **k: None  # type: ignore[method-assign]
    found["seconds_load"] = time.monotonic() - started
    found["held"] = _held(built.loaded.model)
    found["padding_free"] = bool(getattr(trainer.data_collator, "padding_free", False))
    lora = next(p for p in built.loaded.model.parameters() if p.requires_grad)
    found["adapter_dtype"] = str(lora.dtype)
    if gpu:
        found["loaded_allocated"], found["loaded_reserved"] = (
            torch.cuda.memory_allocated(),
            torch.cuda.memory_reserved(),
        )
        found["load_peak_reserved"] = torch.cuda.max_memory_reserved()
        found["load_peak_allocated"] = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        if point.trace:
            torch.cuda.memory._record_memory_history(max_entries=3_000_000, stacks="python")
    found["host_loaded"] = _status()
    peaks: list[list[int]] = []
    shapes: list[list[int]] = []

    def watched(call: Any) -> Any:
        def step(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            inputs = next((a for a in args if isinstance(a, dict)), kwargs.get("inputs"))
            if inputs and "input_ids" in inputs:
                shapes.append(list(inputs["input_ids"].shape))
            if gpu:
                peaks.append([torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()])
            return result

        return step

    trainer.training_step = watched(trainer.training_step)
    trainer.prediction_step = watched(trainer.prediction_step)
    started = time.monotonic()
    trainer.train()
    found["seconds_train"] = time.monotonic() - started
    found["outcome"], found["steps"] = built.reporter.outcome, int(trainer.state.global_step)
    found["evaluations"] = sum("eval_loss" in entry for entry in trainer.state.log_history)
    found["peaks"], found["inputs"] = peaks, shapes
    if gpu:
        torch.cuda.synchronize()
        found["allocated"], found["reserved"] = (
            torch.cuda.max_memory_allocated(),
            torch.cuda.max_memory_reserved(),
        )
        found["reserved_whole"] = max(found["reserved"], found["load_peak_reserved"])
        free, total = torch.cuda.mem_get_info()
        found["driver_used"], found["reserved_now"] = total - free, torch.cuda.memory_reserved()
        found["after_allocated"] = torch.cuda.memory_allocated()
        stats = torch.cuda.host_memory_stats()
        found["pinned"] = stats.get("allocated_bytes.peak", 0)
        if point.trace:
            found["peak"] = _peak_of(torch.cuda.memory._snapshot())
            torch.cuda.memory._record_memory_history(enabled=None)
    found["host"] = _status()
    run = built.run.path
    found["disk"] = sum(p.stat().st_size for p in run.rglob("*") if p.is_file())
    del built, trainer, lora
    return found


def main() -> None:
    """Answers points until stdin ends. Whatever a point raises is its answer, and the process goes on."""
    models = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the libraries print is no answer
    started = time.monotonic()
    from finetui.core.worker import environment

    environment.import_unsloth()
    import torch

    ready: dict[str, Any] = {"ready": True, "seconds": time.monotonic() - started, "host": _status()}
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
        ready["card"] = torch.cuda.get_device_name()
        free, total = torch.cuda.mem_get_info()
        ready["driver_used"], ready["card_bytes"] = total - free, total
        ready["host_cuda"] = _status()
    answers.write(json.dumps(ready) + "\n")
    for line in sys.stdin:
        point = Point(**json.loads(line))
        answer: dict[str, Any] = {"point": asdict(point)}
        try:
            answer |= measure(point, models)
        except Exception as error:  # a process's edge: the next point may still be measured
            import traceback

            answer["error"] = f"{type(error).__name__}: {error}"[:600]
            answer["traceback"] = traceback.format_exc()[-2500:]
        clean()  # before the answer: whoever waits for it counts on the memory
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
