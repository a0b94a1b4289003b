"""The demo on the GPU: it learns, it is exported, and the dashboard's figures are those of nvidia-smi."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetui.core import recipe_file
from finetui.core.demo.recipe import demo_recipe
from finetui.core.recipe import ExportSection
from finetui.core.runs import store
from finetui.core.runs.event_log import Record, read_all
from finetui.core.runs.events import Device, Ended, Exported, Progress, Scored, Step
from finetui.core.runs.store import RunFolder
from tests.worker import harness

from .conftest import SmiWatch


@dataclass(frozen=True)
class Watched:
    run: RunFolder
    records: list[Record]
    smi: SmiWatch


@pytest.fixture(scope="module")
def watched() -> Watched:
    recipe = demo_recipe().model_copy(
        update={"export": ExportSection(formats=("adapter", "merged", "gguf_f16", "gguf_q8_0"))}
    )
    run = store.create("gpu-demo")
    recipe_file.save(recipe, run.recipe)
    with SmiWatch() as smi:
        worker = harness.start("train", run)
        code = harness.finish(worker, run)
    assert code == 0, run.log.read_text(errors="replace")[-3000:]
    return Watched(run, read_all(run.events), smi)


def timeline(records: list[Record]) -> str:
    """How many seconds the run spent in each stage, in order."""
    starts: list[tuple[str, float]] = []
    for record in records:
        if isinstance(record.event, Progress) and (not starts or starts[-1][0] != record.event.stage):
            starts.append((record.event.stage, record.ts))
    ends = [ts for _stage, ts in starts[1:]] + [records[-1].ts]
    return ", ".join(f"{stage} {end - ts:.0f} s" for (stage, ts), end in zip(starts, ends, strict=True))


def test_it_completes_and_learns(watched: Watched) -> None:
    (end,) = (r.event for r in watched.records if isinstance(r.event, Ended))
    assert end.reason == "completed"
    (score,) = (r.event for r in watched.records if isinstance(r.event, Scored))
    print(score.rows, score.base, score.tuned, f"{end.seconds:.0f} s")
    print(timeline(watched.records))
    assert score.rows == 40
    assert score.tuned.valid >= 38
    assert score.base.valid <= 4


def test_the_device_events_agree_with_nvidia_smi(watched: Watched) -> None:
    devices = [r for r in watched.records if isinstance(r.event, Device)]
    assert len(devices) >= 5
    used_gaps, heat_gaps = [], []
    for record in devices:
        event, smi = record.event, watched.smi.near(record.ts)
        assert isinstance(event, Device)
        assert event.device == "cuda:0"
        assert event.total_bytes == pytest.approx(smi.total_bytes, rel=0.02)
        assert event.reserved_bytes is not None and event.peak_reserved_bytes is not None
        assert event.peak_reserved_bytes >= event.reserved_bytes
        if event.used_bytes is not None:
            used_gaps.append(abs(event.used_bytes - smi.used_bytes) / smi.total_bytes)
        if event.temperature_celsius is not None:
            heat_gaps.append(abs(event.temperature_celsius - smi.temperature_celsius))
        if event.utilization_percent is not None:
            assert 0 <= event.utilization_percent <= 100
        if event.power_watts is not None and event.power_limit_watts is not None:
            assert 0 < event.power_watts < event.power_limit_watts * 1.2
    assert used_gaps, "the driver gave no memory reading at all"
    print(f"memory gap: median {statistics.median(used_gaps):.3%} of the card, worst {max(used_gaps):.3%}")
    assert statistics.median(used_gaps) < 0.002  # readings are up to 0.4 s apart
    assert not heat_gaps or statistics.median(heat_gaps) <= 2


def test_what_the_run_takes_is_what_torch_reserved_and_its_context(watched: Watched) -> None:
    last = [r.event for r in watched.records if isinstance(r.event, Device)][-1]
    idle = min(reading.used_bytes for reading in watched.smi.readings)
    peak = max(reading.used_bytes for reading in watched.smi.readings)
    assert last.peak_reserved_bytes is not None
    context = peak - idle - last.peak_reserved_bytes
    print(f"context beyond torch's reserved memory: {context / 2**20:.0f} MiB")
    assert 0 <= context < 2 * 2**30


def test_steps_count_tokens_and_speed(watched: Watched) -> None:
    steps = [r.event for r in watched.records if isinstance(r.event, Step)]
    assert [s.step for s in steps] == list(range(1, steps[-1].total_steps + 1))
    assert steps[-1].trained_tokens > steps[0].trained_tokens > 0
    speeds = [s.tokens_per_second for s in steps[5:] if s.tokens_per_second]
    print(f"trained tokens per second: median {statistics.median(speeds):,.0f}")
    assert steps[-1].loss < steps[0].loss / 2


def test_every_export_is_there(watched: Watched) -> None:
    exported = {r.event.format: r.event for r in watched.records if isinstance(r.event, Exported)}
    assert set(exported) == {"adapter", "merged", "gguf_f16", "gguf_q8_0"}
    for event in exported.values():
        assert (watched.run.path / event.path).exists()
        assert event.bytes > 0
    assert exported["gguf_q8_0"].bytes < exported["gguf_f16"].bytes


def test_the_run_leaves_nothing_beside_its_folder(watched: Watched) -> None:
    assert not list(Path.cwd().glob("unsloth_compiled_cache"))
