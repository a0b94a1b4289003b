"""A talk beside a training: it says what it would take of the GPU, keeps off it by itself, and goes there where it is told to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from finetui.core import talk
from finetui.core.runs import control, launch, state
from finetui.core.runs.events import Checkpoint, Step
from finetui.core.runs.store import RunFolder
from finetui.core.talk import Device, Sampling, Target
from finetui.core.talking import Talker
from finetui.core.worker.demo_model import prepare
from tests.coach.record import CASES, recipe_of
from tests.worker import harness

QUESTION = (("user", "My parcel has not come, and nobody answers the telephone."),)


def gpu_bytes(pid: int) -> int:
    """What the driver says that the process holds of the GPUs."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    held = [line.split(",") for line in lines if line.strip()]
    return sum(int(mib) * 2**20 for of, mib in held if int(of) == pid)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """The demo's model, at work with a checkpoint behind it."""
    prepare()
    recipe = recipe_of(CASES["gpu-one-row"], tmp_path_factory.mktemp("rows"))
    values = {"max_steps": 100_000, "epochs": 1000.0, "save_every_steps": 10}
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=values)})
    run = launch.new(recipe)
    harness.until(lambda: harness.events(run, Checkpoint) or not state.status(run).live)
    assert state.status(run).live, run.log.read_text(errors="replace")[-3000:]
    yield run
    control.request(run, "stop")
    harness.until(lambda: not state.status(run).live)


@pytest.fixture(scope="module")
def target(training: RunFolder) -> Target:
    return talk.find(training.id)


def test_a_gpu_that_trains_is_left_alone_and_why_is_said(training: RunFolder, target: Target) -> None:
    plan = talk.plan_here(target)
    print(plan.why)
    assert (plan.device, plan.choices) == ("cpu", ("cpu", "gpu"))
    assert "is training on the GPU" in plan.why and "about" in plan.why


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_checkpoint_of_a_run_at_work_answers(training: RunFolder, target: Target, device: Device) -> None:
    before = len(harness.events(training, Step))
    talker = Talker(target, device)
    try:
        ready = talker.wait_ready()
        assert talker.pid is not None
        tuned = talker.ask("tuned", QUESTION, Sampling(max_new_tokens=40)).wait()
        base = talker.ask("base", QUESTION, Sampling(max_new_tokens=40)).wait()
        held = gpu_bytes(talker.pid)
        expected = talk.needed_bytes(target)
        print(
            f"{device}: {ready.device}, step {ready.step}, loaded in {ready.seconds:.0f} s, holds {held / 2**20:.0f} MiB of the GPU "
            f"({(expected or 0) / 2**20:.0f} said); first token after {tuned.first_seconds:.2f} s\n{tuned.text}\n{base.text}"
        )
        assert tuned.tokens > 1 and base.tokens > 1
        assert ready.step is not None and ready.step >= 10
        assert (held > 0) == (device == "gpu") == (ready.device != "CPU")
        assert expected is not None and held <= expected
    finally:
        talker.close()
    harness.until(lambda: len(harness.events(training, Step)) > before + 5)
    assert state.status(training).live
